"""Bodies in /openapi.json. They are read by our own hands (bounds, time, forms), so FastAPI does not know them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

_REFERENCE = "#/components/schemas/{model}"


def takes(model: type[BaseModel], *, kind: str = "application/json", form: type[BaseModel] | None = None) -> dict[str, Any]:
    """For `openapi_extra` of a route: its body is that model; or, with `form`, a multipart form with the fields image, text and
    document, which is that one."""
    content: dict[str, Any] = {kind: {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}}
    if form is not None:
        fields = {
            "image": {"type": "string", "format": "binary"},
            "text": {"type": "string"},
            "document": {"$ref": _REFERENCE.format(model=form.__name__)},
        }
        content["multipart/form-data"] = {"schema": {"type": "object", "required": ["image"], "properties": fields}}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI, models: Sequence[type[BaseModel]]) -> None:
    """Add the models of bodies to what the app says of itself."""
    usual = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            said = usual()
            _, defined = models_json_schema([(model, "validation") for model in models], ref_template=_REFERENCE)
            said["components"]["schemas"] |= defined["$defs"]
        return app.openapi_schema or said

    app.openapi = openapi  # type: ignore[method-assign]
