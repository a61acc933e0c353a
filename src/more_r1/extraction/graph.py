"""Predictions -> a graph: things seen, things named, and how the ones relate to the others, each relation with its evidence.

The merging rule, `name`: mentions are one entity if their words are the same in any case and their type is the same. A type
is what the relations of a mention say of it, the commonest if they differ; a mention without relations goes to the entity of
its words if these have one type only. Things seen are never merged: that two pictures show the same person is what their
relation `alternate_names` to one entity says. With `none` every mention is an entity of its own.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from more_r1.reasoning.prediction import Prediction
from more_r1.schema import NONE

Merge = Literal["name", "none"]
# The relation that says that the thing seen is the one named.
IDENTITY = "alternate_names"
_LABEL = re.compile(r"/(\w+)/(\w+)/\w+", re.ASCII)
# A longer id is cut, and ends in a hash of the whole.
_LONGEST = 120


@dataclass(frozen=True)
class Node:
    """Something seen (with document, picture and box) or something named. `id` is made of letters that every format takes."""

    id: str
    kind: Literal["object", "entity"]
    name: str
    """An object's id in its document, an entity's words where it is named first."""
    type: str | None
    document: str | None = None
    image: str | None = None
    box: tuple[float, float, float, float] | None = None
    """Centre and size as fractions of the picture."""


@dataclass(frozen=True)
class Edge:
    """A relation from something seen to something named, as one document shows it."""

    source: str
    target: str
    label: str
    document: str
    text: str
    span: tuple[int, int]
    """The tokens [start, end) of the text that name the target."""
    box: tuple[float, float, float, float]
    confidence: float | None
    agreement: float | None
    trace: str
    """The completion that led to the label."""

    @property
    def relation(self) -> str:
        """The last part of the label."""
        return self.label.rpartition("/")[2]


@dataclass(frozen=True)
class Graph:
    """Nodes by id in the order in which they come, edges in the order of the predictions."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


class GraphError(ValueError):
    """Predictions that make no graph, or a graph that cannot be written; the message names the mend."""


def build_graph(predictions: Iterable[Prediction], merge: Merge = "name") -> Graph:
    """The graph of all that was asked about; `none` and answers withheld make no edge.

    Of two predictions on one pair the later counts. Text of strangers is made harmless: control codes become spaces, what
    XML and UTF-8 cannot hold U+FFFD. Raises GraphError for a label that is none.
    """
    asked: dict[tuple[str, str, tuple[int, int]], Prediction] = {}
    for prediction in predictions:
        asked[prediction.document, prediction.object, prediction.span] = prediction
    related = [each for each in asked.values() if each.predicted not in (None, NONE)]
    object_types = _types(((each.document, each.object), _parts(each)[0]) for each in related)
    entity_types = _types(((each.document, each.span), _parts(each)[1]) for each in related)

    types_of_words: dict[str, list[str]] = {}
    for each in asked.values():
        type = entity_types.get((each.document, each.span))
        if type is not None and type not in types_of_words.setdefault(_words(each), []):
            types_of_words[_words(each)].append(type)

    def entity(each: Prediction) -> tuple[str, str | None]:
        """Id and type."""
        type = entity_types.get((each.document, each.span))
        if merge == "none":
            return _id("entity", each.document, "{}-{}".format(*each.span)), type
        types = types_of_words.get(_words(each), [])
        type = types[0] if type is None and len(types) == 1 else type
        return _id("entity", type or "unknown", _words(each)), type

    nodes: dict[str, Node] = {}
    for each in asked.values():
        seen = _id("object", each.document, each.object)
        named, type = entity(each)
        if seen not in nodes:
            image = None if each.image is None else clean(each.image)
            kind = object_types.get((each.document, each.object))
            nodes[seen] = Node(seen, "object", clean(each.object), kind, clean(each.document), image, each.box)
        if named not in nodes:
            nodes[named] = Node(named, "entity", clean(each.name), type)
    edges = tuple(
        Edge(
            source=_id("object", each.document, each.object),
            target=entity(each)[0],
            label=str(each.predicted),
            document=clean(each.document),
            text=clean(" ".join(each.tokens)),
            span=each.span,
            box=each.box,
            confidence=each.confidence,
            agreement=each.agreement,
            trace=clean(each.completion),
        )
        for each in related
    )
    return Graph(tuple(nodes.values()), edges)


def clean(text: str) -> str:
    """Text that every format can hold and give back: control codes become spaces, halves of characters and non-characters
    U+FFFD."""
    return "".join(_CLEAN.get(unicodedata.category(c), c) if _strange(c) else c for c in text)


_CLEAN = {"Cc": " ", "Cs": "�", "Cn": "�"}


def _strange(character: str) -> bool:
    code = ord(character)
    # Of what is not assigned only the non-characters: others may come to mean something.
    return code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or 0xFDD0 <= code < 0xFDF0 or code & 0xFFFE == 0xFFFE


def _types(said: Iterable[tuple[object, str]]) -> dict[object, str]:
    """What is said of each most often; of two as common, what was said first."""
    votes: dict[object, Counter[str]] = {}
    for what, type in said:
        votes.setdefault(what, Counter())[type] += 1
    return {what: counts.most_common(1)[0][0] for what, counts in votes.items()}


def _parts(prediction: Prediction) -> tuple[str, str]:
    found = _LABEL.fullmatch(str(prediction.predicted))
    if found is None:
        raise GraphError(f"document {prediction.document[:60]!r}: {str(prediction.predicted)[:60]!r} is no label")
    return found[1], found[2]


def _words(prediction: Prediction) -> str:
    return unicodedata.normalize("NFC", clean(prediction.name).casefold())


def _id(*parts: str) -> str:
    """Letters, digits, `.`, `-`, `_`, `~`, `%` and `:` alone; different parts give different ids."""
    return ":".join(_short(quote(part, safe="", errors="surrogatepass")) for part in parts)


def _short(part: str) -> str:
    if len(part) <= _LONGEST:
        return part
    start = re.sub(r"%.?$", "", part[:_LONGEST])  # no half of an escape
    return f"{start}~{hashlib.sha256(part.encode()).hexdigest()[:16]}"
