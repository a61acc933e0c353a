"""Decoding many prompts at once: each shared segment is computed once, its keys and values are never copied.

How the next token is chosen is the caller's: greedily, by force of form, or drawn (generate.py, form.py, sampling.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from more_r1.models.attention import Blocks, attend
from more_r1.models.families import family_of
from more_r1.models.forest import Forest
from more_r1.models.load import Backbone
from more_r1.models.processor import Segment
from more_r1.models.sight import paths_of
from more_r1.models.step import stepper

# Keys and values held at a time, in tokens: memory grows with it, the work lost on waiting for the longest row too.
BATCH_TOKENS = 32768
# Dropping finished rows costs about one step, so it waits until this share of them is done.
DROP_SHARE = 0.125


class Chooser(Protocol):
    """Chooses tokens and says when a completion has ended; rows are counted over all prompts."""

    def choose(self, logits: Tensor, rows: Sequence[int]) -> list[int]:
        """The next token of each row, from its logits [rows, vocabulary], which are the chooser's to change."""
        ...

    def ends(self, row: int, ids: Sequence[int]) -> bool:
        """Whether this completion, its newest token included, has ended."""
        ...


def decode(
    backbone: Backbone,
    prompts: Iterable[tuple[Segment, ...]],
    max_new_tokens: int,
    chooser: Chooser,
    progress: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """The tokens of a completion of each prompt, the one that ended it included; the same prompt may come many times.

    Prompts that begin alike are fastest side by side. `progress` is told how many prompts are done. Raises ValueError for
    less than one token.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    completions: list[list[int]] = []
    for batch in batches(prompts, max_new_tokens, BATCH_TOKENS):
        completions += _decode(backbone, batch, max_new_tokens, chooser, len(completions), progress)
    return completions


def stop_ids(backbone: Backbone) -> frozenset[int]:
    """The tokens that end a completion: the tokenizer's end of sequence and the model's own."""
    own = backbone.model.generation_config.eos_token_id
    return frozenset([backbone.encoder.eos_id, *(own if isinstance(own, list) else [own] if own is not None else [])])


def vision_ids(backbone: Backbone) -> list[int]:
    """The tokens that stand for pictures and, as far as the configuration has them, for their borders, which no completion may
    hold."""
    return picture_ids(backbone.model.config)


def picture_ids(config: Any) -> list[int]:
    """As `vision_ids`, from a model's configuration."""
    return [getattr(config, mark) for mark in family_of(config).marks]


def batches(prompts: Iterable[tuple[Segment, ...]], room: int, most: int) -> Iterator[list[tuple[Segment, ...]]]:
    """Neighbours share what they begin with, and each needs `room` of its own: batches of at most so many tokens."""
    batch: list[tuple[Segment, ...]] = []
    held = 0
    for segments in prompts:
        total = sum(len(segment.ids) for segment in segments)
        shared = 0
        for own, before in zip(segments, batch[-1] if batch else (), strict=False):
            if own != before:
                break
            shared += len(own.ids)
        if batch and held + total - shared + room > most:
            yield batch
            batch, held, shared = [], 0, 0
        batch.append(segments)
        held += total - shared + room
    if batch:
        yield batch


@torch.no_grad()
def _decode(
    backbone: Backbone,
    prompts: list[tuple[Segment, ...]],
    max_new_tokens: int,
    chooser: Chooser,
    before: int,
    progress: Callable[[int], None] | None,
) -> list[list[int]]:
    model, encoder = backbone.model, backbone.encoder
    device = next(model.parameters()).device
    # A completion of one token adds nothing to the row: the forest of the bare prompts.
    forest = Forest.build([(prompt, (encoder.eos_id,)) for prompt in prompts], encoder)
    prefill = _Prefill(forest)
    logits = model(**forest.inputs(device, prefill), logits_to_keep=forest.index.to(device)).logits[0]
    rows = _Rows(forest, prefill, max_new_tokens)
    del prefill  # its keys and values are by node now, in `rows`
    positions = torch.tensor([_next_position(forest, path) for path in forest.paths], device=device)
    following = stepper(model, encoder.family, len(prompts))

    alive = list(range(len(prompts)))  # prompt of each row
    open_rows = set(alive)
    ids: list[list[int]] = [[] for _ in prompts]
    for step in range(max_new_tokens):
        tokens = chooser.choose(logits, [before + number for number in alive])
        for number, token in zip(alive, tokens, strict=True):
            if number not in open_rows:
                continue
            ids[number].append(token)
            if step + 1 == max_new_tokens or chooser.ends(before + number, ids[number]):
                open_rows.discard(number)
                if progress is not None:
                    progress(before + len(prompts) - len(open_rows))
        if not open_rows:
            break
        chosen = torch.tensor(tokens, device=device)
        if len(open_rows) <= (1 - DROP_SHARE) * len(alive):
            kept = [row for row, number in enumerate(alive) if number in open_rows]
            index = torch.tensor(kept, device=device)
            rows.keep(kept, index)
            chosen, positions = chosen[index], positions[index]
            alive = [alive[row] for row in kept]
        logits = following(chosen, positions, rows.attend)
        rows.length += 1
        positions = positions + 1
    return ids


def _next_position(forest: Forest, path: tuple[int, ...]) -> int:
    last = forest.spans[path[-1]]
    return int(forest.positions[:, 0, last.start : last.end].max()) + 1


class _Prefill(Blocks):
    """Attention of the prompts that remembers keys and values, [kv heads, T, dim] a layer."""

    def __init__(self, forest: Forest) -> None:
        super().__init__(forest.spans, pictures=forest.runs)
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        self.keys[layer], self.values[layer] = key[0], value[0]
        return super().attend(layer, query, key, value, scale, window)


class _Rows:
    """Attention of one new token a row: to the nodes of its path, level by level, and to its own tokens so far."""

    def __init__(self, forest: Forest, prefill: _Prefill, max_new_tokens: int) -> None:
        depth = max(map(len, forest.paths))
        paths = [[path[level] if level < len(path) else None for path in forest.paths] for level in range(depth)]
        self.levels = [_Level(nodes, forest, prefill) for nodes in paths]
        # Tokens of each row's prompt.
        sizes = [sum(forest.spans[node].end - forest.spans[node].start for node in path) for path in forest.paths]
        self.asked = torch.tensor(sizes, device=prefill.keys[0].device)
        self.longest = max(sizes)
        self.own: dict[int, tuple[Tensor, Tensor]] = {}
        self.length = 0
        self.limit = max_new_tokens

    def keep(self, rows: list[int], index: Tensor) -> None:
        """Drop all but these rows; `index` is the same as a tensor."""
        for level in self.levels:
            level.keep(rows)
        self.levels = [level for level in self.levels if level.used]
        self.asked = self.asked[index]
        self.own = {layer: (keys[index], values[index]) for layer, (keys, values) in self.own.items()}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Query [rows, heads, dim], key and value [rows, kv heads, dim] -> [rows, heads, dim]."""
        # [rows, kv heads, queries of a kv head, dim]
        q = query.unflatten(1, (key.shape[1], -1))  # type: ignore[no-untyped-call]
        keys, values = self._append(layer, key, value)
        first = None  # of its path, what each row sees in this layer
        if window is not None and window <= self.longest + self.length:
            first = self.asked + self.length + 1 - window
            keys, values = keys[:, :, -window:], values[:, :, -window:]
        parts = [level.attend(layer, q, scale, first) for level in self.levels]
        parts.append(attend(q, keys, values, scale))
        outs, sums = zip(*parts, strict=True)
        shares = torch.stack(sums).softmax(0).to(q.dtype).unsqueeze(-1)
        return (torch.stack(outs) * shares).sum(0).flatten(1, 2)

    def _append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Own keys and values, [rows, kv heads, tokens, dim], with the new ones [rows, kv heads, dim] at the end."""
        if layer not in self.own or self.own[layer][0].shape[2] == self.length:
            # Doubled when full: the limit may be far above what is needed.
            room = min(max(32, 2 * self.length), self.limit)
            grown = [part.new_empty(*part.shape[:2], room, part.shape[2]) for part in (key, value)]
            if layer in self.own:
                for new, old in zip(grown, self.own[layer], strict=True):
                    new[:, :, : self.length] = old
            self.own[layer] = (grown[0], grown[1])
        now = self.length + 1
        keys, values = self.own[layer]
        keys[:, :, self.length], values[:, :, self.length] = key, value
        return keys[:, :, :now], values[:, :, :now]


class _Level:
    """The nodes at one depth, padded to the longest, and the rows below each, padded to the most."""

    def __init__(self, nodes: list[int | None], forest: Forest, prefill: _Prefill) -> None:
        used = sorted({node for node in nodes if node is not None})
        spans = [forest.spans[node] for node in used]
        longest = max(span.end - span.start for span in spans)
        at = torch.tensor([[min(span.start + i, span.end - 1) for i in range(longest)] for span in spans])
        self.device = prefill.keys[0].device
        padding = torch.tensor([[span.start + i >= span.end for i in range(longest)] for span in spans]).to(self.device)
        at = at.to(self.device)
        # Nodes, kv heads, tokens, dim
        self.keys = {layer: keys[:, at].transpose(0, 1).contiguous() for layer, keys in prefill.keys.items()}
        self.values = {layer: values[:, at].transpose(0, 1).contiguous() for layer, values in prefill.values.items()}
        # Nodes, one, one, tokens: what is added to scores
        self.mask = torch.zeros(padding.shape, dtype=self.keys[0].dtype, device=self.device)[:, None, None]
        self.mask.masked_fill_(padding[:, None, None], -torch.inf)
        # How far down its path each token is, [nodes, tokens]
        before = {span.start: sum(each.end - each.start for each in above) for *above, span in paths_of(forest.spans)}
        self.places = torch.tensor([[before[span.start] + i for i in range(longest)] for span in spans], device=self.device)
        number = {node: i for i, node in enumerate(used)}
        self.nodes = [None if node is None else number[node] for node in nodes]
        self._index()

    @property
    def used(self) -> bool:
        """Whether any row has a node here."""
        return any(node is not None for node in self.nodes)

    def keep(self, rows: list[int]) -> None:
        """Drop all but these rows, and the nodes that no row needs any more."""
        nodes = [self.nodes[row] for row in rows]
        used = sorted({node for node in nodes if node is not None})
        if used and len(used) < len(self.mask):
            index = torch.tensor(used, device=self.device)
            self.mask, self.places = self.mask[index], self.places[index]
            self.keys = {layer: keys[index] for layer, keys in self.keys.items()}
            self.values = {layer: values[index] for layer, values in self.values.items()}
        number = {node: i for i, node in enumerate(used)}
        self.nodes = [None if node is None else number[node] for node in nodes]
        self._index()

    def _index(self) -> None:
        below: list[list[int]] = [[] for _ in range(len(self.mask))]
        for row, node in enumerate(self.nodes):
            if node is not None:
                below[node].append(row)
        self.most = max(map(len, below))
        places = sorted((row, node * self.most + i) for node, rows in enumerate(below) for i, row in enumerate(rows))
        self.rows = torch.tensor([row for row, _ in places], device=self.device)
        self.slots = torch.tensor([slot for _, slot in places], device=self.device)
        # An empty slot holds a row of the same node, or row 0; what it computes is never read.
        filled = [rows + [rows[0] if rows else 0] * (self.most - len(rows)) for rows in below]
        flat = [row for rows in filled for row in rows]
        self.filled = torch.tensor(flat, device=self.device)
        # The usual case: groups of one size, one after another.
        self.ordered = flat == list(range(len(self.nodes)))
        self.complete = len(places) == len(self.nodes)
        self.ragged = bool(self.mask.any())

    def attend(self, layer: int, query: Tensor, scale: float, first: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As the function `attend`, of queries [rows, kv heads, queries, dim]; a row without a node here has sums of -inf.

        With `first` [rows] each row sees only what is so far down its path, or farther.
        """
        # Under autocast rotated queries are in single precision, and values are not.
        query = query.to(self.values[layer].dtype)
        # [rows, kv heads, queries, dim] -> [nodes, kv heads, rows below x queries, dim], and back
        q = query if self.ordered else query[self.filled]
        q = q.view(-1, self.most, *query.shape[1:]).transpose(1, 2).flatten(2, 3)
        mask = self.mask if self.ragged else None
        if first is not None:
            seen = self.places[:, None] >= first[self.filled].view(-1, self.most, 1)
            mask = self.mask.masked_fill(~seen.repeat_interleave(query.shape[2], 1).unsqueeze(1), -torch.inf)
        out, sums = attend(q, self.keys[layer], self.values[layer], scale, mask)
        out, sums = (
            part.view(*part.shape[:2], self.most, -1, *part.shape[3:]).transpose(1, 2).flatten(0, 1) for part in (out, sums)
        )
        if self.ordered:
            return out, sums
        out, sums = out[self.slots], sums[self.slots]
        if self.complete:
            return out, sums
        none = sums.new_full(query.shape[:3], -torch.inf)
        return torch.zeros_like(query).index_copy_(0, self.rows, out), none.index_copy_(0, self.rows, sums)
