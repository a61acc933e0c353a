"""Entities and objects by the model itself: a Qwen-VL answers both as JSON, boxes on the scale of its family.

What it answers is read like a stranger's file: anything that is not an item of the form asked for is passed over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from more_r1.document import Box, Document, Entity, Object
from more_r1.extraction.proposers.boxes import objects_of
from more_r1.extraction.proposers.errors import takes_no_argument
from more_r1.extraction.words import entity_at, mentions, tokenise
from more_r1.models.engine import Model
from more_r1.models.generate import generate
from more_r1.reasoning.prompt import Part, Picture, Prompt, plain
from more_r1.schema import TYPES

MAX_NEW_TOKENS = 512
_ITEM = re.compile(r"\{[^{}]*\}")
_KINDS = "per (a person), org (an organisation, by its logo or sign), loc (a place or landmark), misc (anything else)"


def entities(argument: str, model: Model) -> Names:
    """The proposer. Raises ProposerError for an argument."""
    takes_no_argument("lvlm", argument)
    return Names(model)


def objects(argument: str, model: Model) -> Grounding:
    """The proposer. Raises ProposerError for an argument."""
    takes_no_argument("lvlm", argument)
    return Grounding(model)


class Names:
    """Asks for the names in the headline; those that stand there word for word are taken."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __call__(self, document: Document) -> tuple[Entity, ...]:
        task = (
            f"Headline: {plain(document.text)}\n"
            "List the named entities of the headline, each as it stands there, with its type: "
            f'{_KINDS}. Answer with JSON and write nothing else: [{{"name": "...", "type": "per"}}]'
        )
        return read_names(_ask(self._model, task), document.tokens)


class Grounding:
    """Asks for the boxes of what a headline could speak of."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __call__(self, document: Document) -> tuple[Object, ...]:
        picture = Picture(document.image, None, self._model.form.whole_pixels)
        task = (
            "Locate every person, logo or sign of an organisation, landmark and flag in the picture, with its type: "
            f'{_KINDS}. Answer with JSON and write nothing else: [{{"bbox_2d": [x1, y1, x2, y2], "label": "per"}}]'
        )
        scale = self._model.encoder.box_scale(picture)
        return read_boxes(_ask(self._model, picture, task), *scale)


def read_names(answer: str, tokens: tuple[str, ...]) -> tuple[Entity, ...]:
    """The entities of an answer, in the order of the text: every mention of each name, the longer of two that overlap."""
    found: list[tuple[int, int, str | None]] = []
    for item in _items(answer):
        name = item.get("name")
        words = tokenise(name) if isinstance(name, str) else ()
        found += [(start, start + len(words), _type(item.get("type"))) for start in mentions(words, tokens)]
    kept: list[tuple[int, int, str | None]] = []
    for start, end, type in sorted(found, key=lambda each: (each[0] - each[1], each[0])):
        if all(end <= other[0] or start >= other[1] for other in kept):
            kept.append((start, end, type))
    return tuple(entity_at(*each) for each in sorted(kept))


def read_boxes(answer: str, width: int, height: int) -> tuple[Object, ...]:
    """The objects of an answer, in its order, with boxes on a scale of so much for the picture's sides."""
    return objects_of(
        (-float(number), Box.from_pixels(*corners, width=width, height=height), _type(item.get("label")))
        for number, item in enumerate(_items(answer))
        if (corners := _corners(item.get("bbox_2d"))) is not None
    )


def _ask(model: Model, *parts: Part) -> str:
    return generate(model, [Prompt((parts,))], MAX_NEW_TOKENS)[0]


def _items(answer: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of an answer, one by one: around them may be words or a fence, and the last may be cut off."""
    for match in _ITEM.finditer(answer):
        try:
            item = json.loads(match[0])
        except (ValueError, RecursionError):
            continue
        yield item


def _corners(values: object) -> tuple[float, float, float, float] | None:
    if not isinstance(values, list) or len(values) != 4 or not all(type(value) in (int, float) for value in values):
        return None
    try:
        left, top, right, bottom = (float(value) for value in values)
    except OverflowError:
        return None
    if not all(map(math.isfinite, (left, top, right, bottom))):
        return None
    return min(left, right), min(top, bottom), max(left, right), max(top, bottom)


def _type(given: object) -> str | None:
    return given if isinstance(given, str) and given in TYPES else None
