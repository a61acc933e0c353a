"""Objects of the embedded world's pictures, found by their pixels: whatever stands out from the ground.

The world's pictures have one plain ground below the horizon, with squares of about a quarter of the width on it, in one row
or two (synthetic/drawing.py). Other pictures give nothing of use.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from PIL import Image

from more_r1.document import Box, Document, Object
from more_r1.extraction.proposers.boxes import objects_of
from more_r1.extraction.proposers.errors import takes_no_argument
from more_r1.models.engine import Model

_SIZE = 224
_SIDE = 54  # of a thing, give or take 4
_STANDS_OUT = 18  # summed over the colours; the noise of a JPEG is below
_BELOW_HORIZON = 100
# Tops and bottoms of the bands that hold a row's things, and where those begin if it is not seen. A person's clothes reach a
# fifth of its height into the row below, which is therefore looked at from lower down.
_ONE_ROW = ((108, 190, None),)
_TWO_ROWS = ((98, 156, 103), (172, _SIZE, 163))
_SECOND_ROW = 205  # a single row leaves free what lies below
_LEAST_WIDTH = 14  # what is narrower is a post


def objects(argument: str, _: Model) -> Figures:
    """The proposer. Raises ProposerError for an argument."""
    takes_no_argument("embedded", argument)
    return Figures()


class Figures:
    """Finds the things of a picture, row by row and from left to right."""

    def __call__(self, document: Document) -> tuple[Object, ...]:
        image = document.open_image().resize((_SIZE, _SIZE), Image.Resampling.BOX)
        out = _standing_out(np.asarray(image, dtype=np.int32))
        rows = _TWO_ROWS if out[_SECOND_ROW:].sum() > _SIDE else _ONE_ROW
        found = [box for row in rows for box in _row(out, *row)]
        return objects_of((-float(number), box, None) for number, box in enumerate(found))


def _standing_out(pixels: np.ndarray) -> np.ndarray:
    """Which pixels [height, width] differ from the ground: the commonest colour below the horizon."""
    low = pixels[_BELOW_HORIZON:].reshape(-1, 3)
    coarse = (low // 8) @ np.array([1024, 32, 1])
    values, counts = np.unique(coarse, return_counts=True)
    ground = np.median(low[coarse == values[counts.argmax()]], axis=0)
    out: np.ndarray = np.abs(pixels - ground).sum(-1) > _STANDS_OUT
    return out


def _row(out: np.ndarray, top: int, bottom: int, begins: int | None) -> Iterator[Box]:
    band = out[top:bottom]
    for left, right in _runs(band.sum(0) >= 2):
        if right - left < _LEAST_WIDTH:
            continue
        # Neighbours may touch; the world sets them a quarter of the width apart then.
        count = max(1, round((right - left + 6) / (_SIZE / 4)))
        width = (right - left) / count
        for x in (left + (number + 0.5) * width for number in range(count)):
            columns = band[:, max(int(x - width / 2) + 3, 0) : int(x + width / 2) - 3]
            seen = np.flatnonzero(columns.sum(1) >= 3)
            if len(seen):
                y = top + int(seen[0]) - 1 if begins is None else begins
                yield Box.from_pixels(x - _SIDE / 2, y, x + _SIDE / 2, y + _SIDE, width=_SIZE, height=_SIZE)


def _runs(columns: np.ndarray) -> list[tuple[int, int]]:
    """Where columns [width] are set, as [start, end); gaps of up to two columns do not part a run."""
    places = np.flatnonzero(columns)
    if not len(places):
        return []
    cuts = [0, *(np.flatnonzero(np.diff(places) > 3) + 1).tolist(), len(places)]
    return [(int(places[a]), int(places[b - 1]) + 1) for a, b in pairwise(cuts)]
