"""Who sees whom in a row that holds a forest: a token sees its own sequence up to itself.

Two things families of models change of that. The tokens of a picture may see each other, those behind them, too; a picture
lies within one node. And a layer may have a window: of all that, a token sees there only what is fewer tokens back than the
window has, counted along its path, as if its sequence stood alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Span(NamedTuple):
    """A node of the forest, in tokens: its own are [start, end), its descendants' [end, stop)."""

    start: int
    end: int
    stop: int


Run = tuple[int, int]
"""The tokens [first, last) of a picture that see each other."""


def paths_of(spans: Sequence[Span]) -> Iterator[tuple[Span, ...]]:
    """Of each node, depth-first: the nodes from its root down to it."""
    path: list[Span] = []
    for span in spans:
        while path and path[-1].stop <= span.start:
            path.pop()
        path.append(span)
        yield tuple(path)


class Sight:
    """It token by token, for layouts that ask so."""

    def __init__(self, spans: Sequence[Span], pictures: Sequence[Run], device: torch.device) -> None:
        total = max(span.stop for span in spans)
        stop, depth = torch.empty(total, dtype=torch.long), torch.empty(total, dtype=torch.long)
        for *above, span in paths_of(spans):
            own = slice(span.start, span.end)
            stop[own] = span.stop
            depth[own] = torch.arange(span.end - span.start) + sum(each.end - each.start for each in above)
        picture = torch.full((total,), -1)
        for first, last in pictures:
            picture[first:last] = first
        self.total, self.both_ways = total, bool(pictures)
        # Where the token's subtree ends, how many tokens its path has before it, where its picture begins (-1: it has none).
        self.stop, self.depth, self.picture = (each.to(device) for each in (stop, depth, picture))

    def sees(self, row: Tensor, column: Tensor, window: int | None) -> Tensor:
        """Whether the tokens `row` see the tokens `column`, of any shapes that go together."""
        seen = (column <= row) & (row < self.stop[column])
        if self.both_ways:  # a compiled mask is no larger than it must be
            seen = seen | ((self.picture[row] == self.picture[column]) & (self.picture[row] >= 0))
        return seen if window is None else seen & (self.depth[row] - self.depth[column] < window)
