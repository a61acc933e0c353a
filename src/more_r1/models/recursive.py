"""The prefix forest part by part, in the memory of one path and one chunk; the results are those of the packed form.

A node is computed by one call of the model, on the keys and values of its ancestors. Those are detached, so that what is
below it can go back through its own graph, chunk by chunk, and leave its gradient on them; then one backward pass goes
through the node, from its own tokens' loss and from that gradient together. Subtrees of at most a chunk are packed.

Each call of the model has a backward pass of its own: under DDP the caller says `no_sync` and adds up gradients once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from more_r1.models.attention import Below, KeysAndValues
from more_r1.models.forest import Forest, read
from more_r1.models.sight import Span

Loss = Callable[[Tensor, Tensor], Tensor]
"""From the log-probabilities [n] of some completion tokens (float32, attached) and their places [n] among the forest's K
(in the order of its targets) to their share of the loss, a scalar. Each token comes once, and the shares add up to the loss.
"""


def scored(
    model: Any,
    forest: Forest,
    chunk_tokens: int,
    loss: Loss | None = None,
    temperature: float = 1.0,
    entropies: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """As `models.forest.scored`, but detached: [K] log-probabilities and, if asked for, entropies in nats.

    With a loss its gradient is added to the parameters' `grad`, as the loss's own `backward` would do; without one nothing is
    kept for it. `chunk_tokens` is the most tokens of one call, but for a single node that has more. Raises ValueError if it
    is less than 1.
    """
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be at least 1, not {chunk_tokens}")
    walk = _Walk(model, forest, chunk_tokens, loss, temperature, entropies)
    with torch.set_grad_enabled(loss is not None):
        walk.below(forest.spans, {})
    return walk.logprobs, walk.entropies


class _Walk:
    """What all calls of one walk through the forest share."""

    def __init__(
        self, model: Any, forest: Forest, chunk_tokens: int, loss: Loss | None, temperature: float, entropies: bool
    ) -> None:
        self.model, self.forest, self.chunk_tokens = model, forest, chunk_tokens
        self.loss, self.temperature = loss, temperature
        self.device = next(model.parameters()).device
        self.index, self.targets = forest.index.to(self.device), forest.targets.to(self.device)
        self.logprobs = torch.empty(len(self.targets), device=self.device)
        self.entropies = torch.empty_like(self.logprobs) if entropies else None

    def below(self, spans: Sequence[Span], above: KeysAndValues) -> None:
        """Whole subtrees, side by side in the row, that have the same ancestors."""
        chunk: list[Span] = []
        for tree in _trees(spans):
            if chunk and tree[0].stop - chunk[0].start > self.chunk_tokens:
                self.call(chunk, above)
                chunk = []
            if tree[0].stop - tree[0].start > self.chunk_tokens and len(tree) > 1:
                self.call(tree[:1], above, tree[1:])
            else:
                chunk += tree
        if chunk:
            self.call(chunk, above)

    def call(self, nodes: Sequence[Span], above: KeysAndValues, below: Sequence[Span] = ()) -> None:
        """Forward and backward through nodes that stand side by side, and in between through the trees below the last."""
        first, last = nodes[0].start, nodes[-1].end
        spans = [Span(start - first, end - first, min(stop, last) - first) for start, end, stop in nodes]
        runs = [(begin - first, end - first) for begin, end in self.forest.runs if first <= begin < last]
        layout = Below(spans, above, runs)
        at = ((self.index >= first) & (self.index < last)).nonzero()[:, 0]
        inputs = self.forest.inputs(self.device, layout, first, last)
        hidden = self.model.model(**inputs).last_hidden_state[0, self.index[at] - first]
        logprobs, entropies = read(self.model.lm_head, hidden, self.targets[at], self.temperature, self.entropies is not None)
        self.logprobs[at] = logprobs.detach()
        if self.entropies is not None and entropies is not None:
            self.entropies[at] = entropies

        roots: list[Tensor] = []
        gradients: list[Tensor | None] = []
        if self.loss is not None and len(at):
            share = self.loss(logprobs, at)
            # What is computed from frozen parameters alone has no backward pass, here and below.
            if share.requires_grad:
                roots.append(share)
                gradients.append(None)
        if below:
            kept = {layer: (_leaf(keys), _leaf(values)) for layer, (keys, values) in layout.kept.items()}
            self.below(below, kept)
            for layer, leaves in kept.items():
                for attached, leaf in zip(layout.kept[layer], leaves, strict=True):
                    if leaf.grad is not None:
                        roots.append(attached)
                        gradients.append(leaf.grad)
        if roots:
            torch.autograd.backward(roots, gradients)


def _leaf(tensor: Tensor) -> Tensor:
    """The same values, where gradients stop and gather."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _trees(spans: Sequence[Span]) -> Iterator[Sequence[Span]]:
    """Nodes in depth-first order, cut into subtrees that stand side by side, each with its own root first."""
    first = 0
    for number, span in enumerate(spans):
        if span.start >= spans[first].stop:
            yield spans[first:number]
            first = number
    yield spans[first:]
