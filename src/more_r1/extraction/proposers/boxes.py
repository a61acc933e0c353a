"""From scored boxes to objects: what lies outside is cut off, what is there twice counts once, the best are kept."""

from __future__ import annotations

from collections.abc import Iterable

from more_r1.document import Box, Object

Scored = tuple[float, Box, str | None]
"""Score, box, and the type if it is known."""

# As many as the MORE benchmark has at most, whose loader stops at an image with more.
MOST = 10
# Two boxes that share more than this part of their union are one object.
SAME = 0.7
_LEAST = 1e-3


def objects_of(found: Iterable[Scored], most: int = MOST) -> tuple[Object, ...]:
    """At most `most` objects in the order of their scores, the best first; ids are object_1 and so on."""
    kept: list[tuple[Box, str | None]] = []
    for _, box, type in sorted(found, key=lambda each: -each[0]):
        inside = _clipped(box)
        if inside is not None and len(kept) < most and all(shared(inside, other) <= SAME for other, _ in kept):
            kept.append((inside, type))
    return tuple(Object(id=f"object_{number}", box=box, type=type) for number, (box, type) in enumerate(kept, 1))


def shared(one: Box, other: Box) -> float:
    """Intersection over union, 0 to 1."""
    (a, b, c, d), (e, f, g, h) = one.corners, other.corners
    width, height = min(c, g) - max(a, e), min(d, h) - max(b, f)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (one.w * one.h + other.w * other.h - width * height)


def _clipped(box: Box) -> Box | None:
    left, top, right, bottom = (min(max(value, 0.0), 1.0) for value in box.corners)
    if right - left < _LEAST or bottom - top < _LEAST:
        return None
    return Box.from_corners(left, top, right, bottom)
