"""Which predictions a report lets one browse, and their pictures, small enough to be part of the page."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from more_r1.document import Box, DocumentError, open_image
from more_r1.evaluation.metrics import PredictionError
from more_r1.reasoning.prediction import Prediction
from more_r1.reasoning.prompt import PromptForm
from more_r1.schema import NONE, Relation, Schema

T = TypeVar("T")
_SHOWN = {"object", "entity", "span", "gold", "predicted", "abstained", "confidence", "agreement", "hops", "completion"}
PICTURE_SIDE = 480  # pixels of the longer side


def read_prediction(record: dict[str, Any], place: str) -> Prediction:
    """A record of predictions.jsonl; PredictionError names the `place` and the field that does not fit."""
    try:
        prediction = Prediction.model_validate(record)
        corners(prediction.box)  # a box that is none is this line's fault, to be named here
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "box"
        raise PredictionError(f"{place}: {field}: {first['msg'].lower()}; write it anew with `more-r1 evaluate`") from error
    return prediction


def choose(predictions: Sequence[Prediction], limit: int) -> list[Prediction]:
    """At most `limit` predictions: half of them wrong, a quarter right with a relation, a quarter right with `none`."""
    return pick([(p, p.document, p.predicted is not None and p.predicted == p.gold, p.gold) for p in predictions], limit)


def pick(items: Sequence[tuple[T, str, bool, str | None]], limit: int) -> list[T]:
    """At most `limit` of (item, its document, whether it is right, its gold label), mixed as `choose` has it.

    Where there are too few of one kind, the others fill its place. The draw depends on the documents' ids alone, and pairs
    of one document stay together.
    """
    order = sorted(range(len(items)), key=lambda index: (_hash(items[index][1]), index))
    wrong: list[int] = []
    relations: list[int] = []
    nones: list[int] = []
    for index in order:
        _, _, right, gold = items[index]
        if not right:
            wrong.append(index)
        else:
            (nones if gold == NONE else relations).append(index)
    quarter = limit // 4
    chosen = {*wrong[: limit - 2 * quarter], *relations[:quarter], *nones[:quarter]}
    rest = (index for index in (*wrong, *relations, *nones) if index not in chosen)
    chosen.update(index for index, _ in zip(rest, range(limit - len(chosen)), strict=False))
    return [items[index][0] for index in order if index in chosen]


def page_data(predictions: Iterable[Prediction], run: Path) -> dict[str, Any]:
    """What the page's script gets: each document once with its picture, and the pairs that refer to it by index."""
    documents: dict[tuple[str, str | None, tuple[str, ...]], int] = {}
    shown: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    for prediction in predictions:
        key = (prediction.document, prediction.image, prediction.tokens)
        if key not in documents:
            documents[key] = len(shown)
            shown.append({"id": prediction.document, "tokens": prediction.tokens, **picture(prediction.image, run)})
        own = prediction.model_dump(include=_SHOWN)
        pairs.append({**own, "document": documents[key], "corners": corners(prediction.box), "steps": _steps(prediction)})
    return {"documents": shown, "pairs": pairs}


def corners(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a box of centre and size, as fractions of the picture, clipped to it."""
    cx, cy, w, h = box
    left, top, right, bottom = (min(max(value, 0.0), 1.0) for value in Box(cx=cx, cy=cy, w=w, h=h).corners)
    return left, top, right, bottom


def _steps(prediction: Prediction) -> tuple[str, ...]:
    """The steps of the completion; none where it has none or broke the form."""
    if prediction.predicted is None and not prediction.abstained:
        return ()
    # The completion's own answer, which joint reading may have overruled. That it is a label was checked when the pair was
    # asked: here it is a schema of its own.
    _, _, answer = prediction.completion.rpartition("<answer>")
    label = answer.removesuffix("</answer>").strip()
    try:
        relations = () if label == NONE else (Relation(label=label, meaning=""),)
        trace = prediction.trace(Schema(relations=relations), PromptForm())
    except ValidationError:
        return ()
    return trace.steps if trace else ()


def picture(image: str | None, run: Path) -> dict[str, Any]:
    """A data URI and the size in pixels, or why there is none. Relative paths hold from here or from the run's folder."""
    if image is None:
        return {"uri": None, "why": "the record names no image"}
    try:
        found = open_image(next((path for path in (Path(image), run / image) if path.is_file()), Path(image)))
    except (DocumentError, OSError, ValueError) as error:
        return {"uri": None, "why": str(error)}
    found.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    jpeg = io.BytesIO()
    found.save(jpeg, "JPEG", quality=80, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode("ascii")
    return {"uri": uri, "width": found.width, "height": found.height}


def _hash(document: str) -> bytes:
    return hashlib.sha256(document.encode("utf-8", "surrogatepass")).digest()
