"""Documents to write and read: one by hand, and hypothesis strategies for any."""

from __future__ import annotations

import io
from typing import Any

from hypothesis import strategies as st
from PIL import Image

from more_r1.document import Box, Document, Entity, Object, Pair, Span
from more_r1.schema import Schema

LABELS = Schema.more().labels


def picture(colour: str = "red", size: tuple[int, int] = (40, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def box(left: float, top: float, right: float, bottom: float) -> Box:
    return Box.from_corners(left, top, right, bottom)


def game(id: str = "game.png", **changes: Any) -> Document:
    """Two objects, two entities, three of the four pairs."""
    fields: dict[str, Any] = {
        "id": id,
        "image": picture(),
        "tokens": ("Ada", "Bell", "beats", "the", "Gulls"),
        "objects": (
            Object(id="person_0", box=box(0.0, 0.0, 0.5, 1.0), type="per"),
            Object(id="logo_1", box=box(0.5, 0.25, 0.75, 0.75), type="org"),
        ),
        "entities": (
            Entity(id="0-2", span=Span(start=0, end=2), type="per"),
            Entity(id="4-5", span=Span(start=4, end=5), type="org"),
        ),
        "pairs": (
            Pair(object="person_0", entity="0-2", label="/per/per/alternate_names", hops=1),
            Pair(object="person_0", entity="4-5", label="/per/org/opposed_to", hops=2),
            Pair(object="logo_1", entity="0-2", label="none"),
        ),
    }
    return Document(**{**fields, **changes})


texts = st.text(max_size=8)
types = st.sampled_from(["per", "org", "loc", "misc", None])
labels = st.sampled_from(LABELS)
file_names = st.text(st.characters(categories=["L", "N", "Zs"], include_characters="-_.#'\""), min_size=1, max_size=12).filter(
    lambda name: name.strip(".") != ""
)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    left, right = sorted(draw(st.lists(st.floats(0, 1), min_size=2, max_size=2).filter(lambda v: abs(v[0] - v[1]) > 1e-3)))
    top, bottom = sorted(draw(st.lists(st.floats(0, 1), min_size=2, max_size=2).filter(lambda v: abs(v[0] - v[1]) > 1e-3)))
    return box(left, top, right, bottom)


@st.composite
def documents(draw: st.DrawFn, id: str = "7", labelled: bool = False) -> Document:
    """Any document; `labelled`: as the MORE layout gives it back (all entities in pairs, in their order; all labels known)."""
    tokens = tuple(draw(st.lists(texts, min_size=1, max_size=6)))
    names = draw(st.lists(texts, min_size=1, max_size=5, unique=True))
    ends = draw(
        st.lists(st.tuples(st.integers(0, len(tokens) - 1), st.integers(1, len(tokens))), min_size=1, unique=True, max_size=4)
    )
    spans = [(start, end) for start, end in ends if start < end] or [(0, 1)]
    chosen = draw(
        st.lists(st.tuples(st.sampled_from(names), st.sampled_from(spans)), min_size=int(labelled), max_size=8, unique=True)
    )
    asked = dict.fromkeys(span for _, span in chosen)
    paired = {name for name, _ in chosen}
    known = labels if labelled else labels | st.none()
    return Document(
        id=id,
        image=draw(st.binary(min_size=1, max_size=40)) if not labelled else picture(),
        tokens=tokens,
        objects=tuple(
            Object(id=name, box=draw(boxes()), type=draw(types) if name in paired or not labelled else None) for name in names
        ),
        entities=tuple(
            Entity(id=f"{s}-{e}", span=Span(start=s, end=e), type=draw(types)) for s, e in (asked if labelled else spans)
        ),
        pairs=tuple(
            Pair(object=name, entity=f"{s}-{e}", label=draw(known), hops=draw(st.integers(1, 4) | st.none()))
            for name, (s, e) in chosen
        ),
    )
