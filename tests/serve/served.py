"""Requests as clients send them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from more_r1.document import Document


def uri(picture: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def encoded(image: Image.Image, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def picture_of(document: Document) -> bytes:
    return document.image.read_bytes() if isinstance(document.image, Path) else document.image


def in_memory(document: Document) -> Document:
    return document.model_copy(update={"image": picture_of(document)})


def unlabelled(document: Document, pairs: int | None = None) -> Document:
    """Without gold labels, as a client asks; only the first pairs of it."""
    asked = tuple(pair.model_copy(update={"label": None, "hops": None}) for pair in document.pairs[:pairs])
    return in_memory(document).model_copy(update={"pairs": asked})


def body_of(document: Document, **options: Any) -> dict[str, Any]:
    """The document as /extract takes it."""
    return {**document.model_dump(mode="json", exclude={"image"}), "image": uri(picture_of(document)), **options}
