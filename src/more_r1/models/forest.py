"""The packed prefix forest: many sequences as one row in which nothing that they share is there twice.

Sequences that begin alike share their first segments. In depth-first order the subtree of each segment is one interval
of the row, so that a token sees exactly its own sequence up to itself (see attention.py); positions go on along the path
from the root as if the sequence stood alone. One call of the model then gives the log-probabilities of all completions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from more_r1.models.attention import Blocks, Layout
from more_r1.models.families.family import Family
from more_r1.models.processor import Encoder, Segment
from more_r1.models.sight import Run, Span

# Logits of a call that are there at a time, in numbers: half a GiB, and as much again for each pass over them.
LOGITS = 2**27

Sample = tuple[tuple[Segment, ...], tuple[int, ...]]
"""A prompt in segments, from shared to own, and the ids of its completion."""


@dataclass(frozen=True)
class Forest:
    """The layout of one call of the model. T: tokens of the row, K: tokens of all completions."""

    ids: Tensor
    """[1, T]"""
    positions: Tensor
    """[axes, 1, T]: time, height and width where positions have three."""
    pixels: Tensor | None
    """Rows of pixel values, pictures in the order of the row; None without pictures."""
    grids: Tensor | None
    """[pictures, 3]: time, height, width in patches."""
    pictures: tuple[int, ...]
    """Of each picture: where in the row the segment that shows it begins."""
    runs: tuple[Run, ...]
    """The tokens of each picture, in the families where they see each other; empty in the others."""
    spans: tuple[Span, ...]
    """The nodes, depth-first. A segment with a single follower forms one node with it, unless a sequence ends between."""
    paths: tuple[tuple[int, ...], ...]
    """Of each sequence: the nodes from its root down, as indices of `spans`. It ends where the last of them ends."""
    index: Tensor
    """[K]: the token of the row that predicts each completion token."""
    targets: Tensor
    """[K]: the completions, one after another."""
    lengths: tuple[int, ...]
    """Tokens of each completion."""
    repeated_tokens: int
    """What a layout without sharing or padding would compute."""
    family: Family
    """Whose model is to be called."""

    @property
    def tokens(self) -> int:
        """T, what one call computes."""
        return self.ids.shape[1]

    @classmethod
    def build(cls, sequences: Sequence[Sample], encoder: Encoder) -> Forest:
        """Lay out sequences; equal prompts with different completions are welcome, equal sequences are computed once.

        Raises ValueError for no sequences, an empty prompt or an empty completion.
        """
        if not sequences:
            raise ValueError("a forest needs at least one sequence")
        return _plant(sequences, encoder)

    def inputs(
        self, device: torch.device, layout: Layout | None = None, start: int = 0, stop: int | None = None
    ) -> dict[str, Any]:
        """Keyword arguments of the model's forward; `layout` stands in for the default attention.

        With `start` and `stop` of that part of the row only, which must be of whole nodes and needs a layout of its own.
        """
        stop = self.tokens if stop is None else stop
        inputs = {
            "input_ids": self.ids[:, start:stop].to(device),
            **asked_at(self.positions[..., start:stop].to(device)),
            "forest": layout or Blocks(self.spans, pictures=self.runs),
        }
        first, last = bisect_left(self.pictures, start), bisect_left(self.pictures, stop)
        if self.pixels is not None and self.grids is not None and first < last:
            rows = self.family.rows(self.grids)
            pixels = self.pixels[rows[:first].sum() : rows[:last].sum()]
            shown = self.family.arguments(pixels, self.grids[first:last])
            inputs |= {name: value.to(device) for name, value in shown.items()}
        return inputs


def asked_at(positions: Tensor) -> dict[str, Any]:
    """Keyword arguments of a text model's forward for tokens at positions [axes, 1, T], but for `forest`, which says what they
    see."""
    # A mask that nothing reads: transformers takes one of four dimensions as it is, instead of building one of T x T.
    unread = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=positions.device)
    positions = positions if len(positions) > 1 else positions[0]
    return {"position_ids": positions, "attention_mask": unread, "use_cache": False}


def logprobs(model: Any, forest: Forest, layout: Layout | None = None, temperature: float = 1.0) -> list[Tensor]:
    """The log-probability of each completion token: one float32 tensor a sequence, in the order given.

    One call of `model`, which must be loaded by models/load.py, with or without adapters; logits are computed for completion
    tokens only, and divided by the temperature.
    """
    return list(scored(model, forest, layout, temperature)[0].split(forest.lengths))  # type: ignore[no-untyped-call]


def scored(
    model: Any, forest: Forest, layout: Layout | None = None, temperature: float = 1.0, entropies: bool = False
) -> tuple[Tensor, Tensor | None]:
    """As `logprobs`, in one tensor [K]; and, if asked for, the entropy of what each token was drawn from, [K], in nats."""
    device = next(model.parameters()).device
    hidden = model.model(**forest.inputs(device, layout)).last_hidden_state[0, forest.index.to(device)]
    return read(model.lm_head, hidden, forest.targets.to(device), temperature, entropies)


def read(head: Any, hidden: Tensor, targets: Tensor, temperature: float, entropies: bool) -> tuple[Tensor, Tensor | None]:
    """The log-probabilities of targets [K] by the head's logits of hidden [K, width], in float32; if asked for, the entropies
    [K], detached.

    Of a large vocabulary and many tokens there are never all logits at a time: they are made anew on the way back.
    """
    rows = max(LOGITS // head.weight.shape[0], 1)
    if len(targets) <= rows:
        return _read(head, hidden, targets, temperature, entropies)
    parts = [
        checkpoint(_read, head, *part, temperature, entropies, use_reentrant=False, preserve_rng_state=False)
        for part in zip(hidden.split(rows), targets.split(rows), strict=True)  # type: ignore[no-untyped-call]
    ]
    chosen, spread = zip(*parts, strict=True)
    return torch.cat(chosen), torch.cat(spread) if entropies else None


def _read(head: Any, hidden: Tensor, targets: Tensor, temperature: float, entropies: bool) -> tuple[Tensor, Tensor | None]:
    logits = head(hidden).float()
    # Logits are large: each pass over them counts.
    logprobs = (logits if temperature == 1 else logits / temperature).log_softmax(-1)
    chosen = logprobs.gather(1, targets[:, None])[:, 0].clone()  # a view would lose FSDP's hooks if it were changed in place
    if not entropies:
        return chosen, None
    with torch.no_grad():
        return chosen, -logprobs.exp().mul_(logprobs).sum(-1)


@dataclass
class _Node:
    segment: Segment
    children: dict[Segment, _Node] = field(default_factory=dict)
    ends: bool = False
    """Whether a sequence ends here."""
    start: int = 0
    """Where its tokens begin in the row."""
    path: tuple[int, ...] = ()

    @property
    def last(self) -> int:
        return self.start + len(self.segment.ids) - 1

    def child(self, segment: Segment) -> _Node:
        found = self.children.get(segment)
        if found is None:
            found = self.children[segment] = _Node(segment)
        return found


def _plant(sequences: Sequence[Sample], encoder: Encoder) -> Forest:
    ground = _Node(Segment(()))
    ends: list[tuple[_Node, _Node]] = []
    for prompt, completion in sequences:
        node = ground
        for segment in prompt:
            node = node.child(segment) if segment.ids else node
        if node is ground:
            raise ValueError("a prompt needs at least one token")
        if not completion:
            raise ValueError("a completion needs at least one token")
        # Nothing follows the last token, so it is predicted but never read.
        end = node.child(Segment(completion[:-1])) if len(completion) > 1 else node
        end.ends = True
        ends.append((node, end))

    row = _Row(encoder)
    for root in ground.children.values():
        row.add(root, 0, ())
    index: list[int] = []
    for (asked, answered), (_, completion) in zip(ends, sequences, strict=True):
        index += [asked.last, *range(answered.start, answered.start + len(completion) - 1)]
    pixels = [encoder.pixels(picture) for picture in row.pictures]
    return Forest(
        ids=torch.tensor([row.ids]),
        positions=torch.cat(row.positions, dim=1).unsqueeze(1),
        pixels=torch.cat([values for values, _ in pixels]) if pixels else None,
        grids=torch.stack([grid for _, grid in pixels]) if pixels else None,
        pictures=tuple(row.shown),
        runs=tuple(row.runs),
        spans=tuple(Span(*span) for span in row.spans),
        paths=tuple(answered.path for _, answered in ends),
        index=torch.tensor(index),
        targets=torch.tensor([id for _, completion in sequences for id in completion]),
        lengths=tuple(len(completion) for _, completion in sequences),
        repeated_tokens=sum(sum(len(s.ids) for s in prompt) + len(completion) for prompt, completion in sequences),
        family=encoder.family,
    )


class _Row:
    """The row while it grows."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.ids: list[int] = []
        self.positions: list[Tensor] = []
        self.pictures: list[Any] = []
        self.shown: list[int] = []
        self.runs: list[Run] = []
        self.spans: list[list[int]] = []

    def add(self, node: _Node, base: int, above: tuple[int, ...]) -> None:
        """Append a new span of the node and, below it, its descendants; `base`: the first position along the path."""
        number = len(self.spans)
        span = [len(self.ids), 0, 0]
        self.spans.append(span)
        path = (*above, number)
        while True:
            node.start, node.path = len(self.ids), path
            positions, advance = self.encoder.positions(node.segment)
            self.ids += node.segment.ids
            self.positions.append(positions + base)
            self.pictures += node.segment.pictures
            self.shown += [node.start] * len(node.segment.pictures)
            if self.encoder.family.both_ways:
                self.runs += [(node.start + first, node.start + last) for first, last in self.encoder.runs(node.segment)]
            base += advance
            if node.ends or len(node.children) != 1:
                break
            (node,) = node.children.values()
        span[1] = len(self.ids)
        for child in node.children.values():
            self.add(child, base, path)
        span[2] = len(self.ids)
