"""What a Qwen2.5-VL costs, by arithmetic alone: floating-point operations. No torch.

A multiplication and an addition are two operations, so a matrix of N weights costs 2N a token (Kaplan et al. 2020, arXiv
2001.08361, table 1). What is not a matrix product (norms, activation functions, rotation, softmax) is not counted.
docs/plan.md has all the formulas and their sources.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from more_r1.training.plan.shape import Shape


class Level(NamedTuple):
    """Equal segments at one depth of a forest."""

    copies: float
    tokens: float
    """Of each of them."""
    before: float = 0
    """Tokens of its ancestors."""
    pictures: tuple[float, ...] = ()
    """Tokens of each picture in it."""


def tokens_of(levels: Iterable[Level]) -> float:
    """What one call of the model computes."""
    return sum(level.copies * level.tokens for level in levels)


def seen_by(levels: Iterable[Level]) -> float:
    """Pairs of a token and one that it attends to, itself among them: half of the square of each segment, and its ancestors."""
    return sum(level.copies * level.tokens * ((level.tokens + 1) / 2 + level.before) for level in levels)


def image_tokens_of(levels: Iterable[Level]) -> float:
    """Tokens that pictures become."""
    return sum(level.copies * sum(level.pictures) for level in levels)


@dataclass(frozen=True)
class Flops:
    """Operations, by where they fall."""

    matrices: float
    """The language layers' weights."""
    attention: float
    """Scores and their sums of values."""
    head: float
    vision: float
    total: float

    @classmethod
    def of(cls, matrices: float, attention: float, head: float, vision: float) -> Flops:
        """With their sum."""
        return cls(matrices, attention, head, vision, matrices + attention + head + vision)

    @property
    def remembered(self) -> Flops:
        """The same where the pictures' features are there already."""
        return Flops.of(self.matrices, self.attention, self.head, 0.0)

    def times(self, factor: float) -> Flops:
        """The same, so many times."""
        return Flops.of(*(factor * part for part in (self.matrices, self.attention, self.head, self.vision)))


def forward(shape: Shape, levels: Iterable[Level], scored: float) -> Flops:
    """One forward call on these segments, with logits for `scored` tokens.

    Attention is 4 x hidden operations a layer for each pair of a token and one it sees (Hoffmann et al. 2022, arXiv
    2203.15556, appendix F, without the half that a causal mask hides).
    """
    levels = list(levels)
    return Flops.of(
        matrices=2 * shape.matrices * tokens_of(levels),
        attention=4 * shape.layers * shape.hidden * seen_by(levels),
        head=2 * shape.head * scored,
        vision=sum(level.copies * shape.picture_flops(picture) for level in levels for picture in level.pictures),
    )


def training(shape: Shape, once: Flops, *, recomputed: bool, adapters: bool, frozen_vision: bool) -> Flops:
    """Forward and backward, given the forward.

    The backward pass of a matrix is two products, one for its weights and one for its inputs (Kaplan et al. 2020: 6N a
    token); where only adapters are trained it is one. That of attention is 2.5 times its forward, since flash attention
    computes the scores anew (Dao 2023, arXiv 2307.08691). With gradient checkpointing the layers run forward once more, but
    for the last matrix of each, whose result nothing in the layer's backward pass needs; the head does not.
    """
    again, back = int(recomputed), 1 if adapters else 2
    last = shape.layers * shape.hidden * shape.intermediate / shape.matrices
    return Flops.of(
        matrices=once.matrices * (1 + again * (1 - last) + back),
        attention=once.attention * (1 + again + 2.5),
        head=once.head * (1 + back),
        vision=once.vision * (1 if frozen_vision or adapters else 3 + again),
    )
