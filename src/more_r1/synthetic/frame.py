"""What all drawing shares: a square to draw in, on a canvas of twice the picture's size."""

from __future__ import annotations

import math

from PIL import ImageDraw

SCALE = 2
INK = (40, 40, 46)

Canvas = ImageDraw.ImageDraw


class Frame:
    """A square to draw in: points are fractions of it."""

    def __init__(self, left: float, top: float, side: float) -> None:
        self.left, self.top, self.side = left, top, side

    def __call__(self, *fractions: float) -> list[float]:
        """x, y, x, y ... as fractions -> pixels of the large canvas."""
        return [
            (self.top if index % 2 else self.left) * SCALE + value * self.side * SCALE for index, value in enumerate(fractions)
        ]

    def width(self, fraction: float) -> int:
        return max(round(fraction * self.side * SCALE), 1)


def star(cx: float, cy: float, outer: float, inner: float, points: int = 5) -> list[float]:
    """Corners of a star as x, y, x, y ..., the first one on top."""
    found = []
    for index in range(2 * points):
        radius, angle = (inner if index % 2 else outer), math.pi * index / points - math.pi / 2
        found += [cx + radius * math.cos(angle), cy + radius * math.sin(angle)]
    return found
