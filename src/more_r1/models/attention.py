"""Attention along a forest: token i sees token j if and only if j <= i < end of j's subtree.

What a family's pictures and windows change of that is in sight.py.

`ATTENTION` is the name under which transformers finds it. The layout comes with the call, as the keyword `forest`; a call
without one (stock `generate`, say) is plain SDPA.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from more_r1.models.sight import Run, Sight, Span, paths_of

ATTENTION = "more_r1_forest"

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


KeysAndValues = dict[int, tuple[Tensor, Tensor]]
"""By layer."""


class Layout(Protocol):
    """Who sees whom in one call of the model."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Query [1, heads, T, dim], key and value [1, kv heads, T, dim] -> [1, heads, T, dim]. `window`: the layer's.

        Where a layout has tokens above, keys and values are [1, kv heads, above + T, dim] and these, which every query
        sees, come first.
        """
        ...


class Dense:
    """The reference: one mask of T x T."""

    def __init__(self, spans: Sequence[Span], pictures: Sequence[Run] = ()) -> None:
        self._sight = Sight(spans, pictures, torch.device("cpu"))

    def mask(self, window: int | None = None) -> Tensor:
        """Boolean [T, T], true where the row's token sees the column's."""
        token = torch.arange(self._sight.total)
        return self._sight.sees(token[:, None], token[None], window)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """As Layout has it."""
        mask = self.mask(window).to(query.device)
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=True)


class Paths:
    """Each node attends to the keys on its path, gathered for it: one kernel call a node, no mask of T x T, any device.

    A mask of T x T would cost gigabytes at the real size, where T is some ten thousand. Where a node sees all that is before
    it, the bias is a promise of where the diagonal lies, not a tensor, so that flash kernels take it.
    """

    def __init__(self, spans: Sequence[Span], above: int = 0, pictures: Sequence[Run] = ()) -> None:
        self.above = above
        self.paths = list(paths_of(spans))
        self.pictures = [[run for run in pictures if span.start <= run[0] < span.end] for span in spans]
        self._masks: dict[tuple[int, int | None], Tensor] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """As Layout has it."""
        parts = []
        for node, path in enumerate(self.paths):
            start, end, _ = path[-1]
            seen = [slice(self.above), *(slice(self.above + s.start, self.above + s.end) for s in path)]
            keys, values = (torch.cat([each[:, :, part] for part in seen], dim=2) for each in (key, value))
            rows, total = query[:, :, start:end], keys.shape[2]
            if self.pictures[node] or (window is not None and window < total):
                # With a mask no fast kernel groups heads by itself.
                keys, values = (each.repeat_interleave(query.shape[1] // key.shape[1], 1) for each in (keys, values))
                mask = self._mask(node, total, window, query.device)
                parts.append(scaled_dot_product_attention(rows, keys, values, attn_mask=mask, scale=scale))
            else:
                bias = causal_lower_right(end - start, total)
                parts.append(scaled_dot_product_attention(rows, keys, values, attn_mask=bias, scale=scale, enable_gqa=True))
        return torch.cat(parts, dim=2)

    def _mask(self, node: int, total: int, window: int | None, device: torch.device) -> Tensor:
        """Boolean [tokens of the node, tokens of its path]."""
        if (node, window) not in self._masks:
            start, end, _ = self.paths[node][-1]
            before = total - (end - start)
            place = torch.arange(total, device=device)
            row, column = place[before:, None], place[None]
            sees = column <= row
            for first, last in self.pictures[node]:
                sees[first - start : last - start, before + first - start : before + last - start] = True
            self._masks[node, window] = sees if window is None else sees & (row - column < window)
        return self._masks[node, window]


class Flex:
    """One kernel call, compiled, that leaves out what no token sees, block by block; for CUDA, and without gradients on CPUs.

    Slower to begin with than `Paths`, for each new length of the row is compiled.
    """

    def __init__(self, spans: Sequence[Span], pictures: Sequence[Run] = ()) -> None:
        self.spans, self.pictures = tuple(spans), tuple(pictures)
        self._masks: dict[int | None, BlockMask] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """As Layout has it."""
        if window not in self._masks:
            sight = Sight(self.spans, self.pictures, query.device)

            def sees(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
                return sight.sees(row, column, window)

            self._masks[window] = create_block_mask(sees, None, None, sight.total, sight.total, device=query.device.type)
        kernel = _compiled() if query.is_cuda else flex_attention
        result: Tensor = kernel(query, key, value, block_mask=self._masks[window], scale=scale, enable_gqa=True)
        return result


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)


class Blocks:
    """Each node attends to itself, all its descendants together attend to it, and the parts are merged: no mask of
    T x T, no copied keys, no padding.

    The kernel that tells its softmax sums is the CPU's; on other devices, and where a block is not seen wholly (pictures whose
    tokens see those behind them, windows), this is `Paths`.
    """

    def __init__(self, spans: Sequence[Span], above: int = 0, pictures: Sequence[Run] = ()) -> None:
        self.blocks: list[_Block] = []
        # Leaves first: a token's own part is written before the parts of its ancestors are merged into it.
        for start, end, stop in reversed(spans):
            keys = slice(above + start, above + end)
            self.blocks.append(_Block(slice(start, end), keys, own=True))
            if end < stop:
                self.blocks.append(_Block(slice(end, stop), keys, own=False))
        if above:
            self.blocks.append(_Block(slice(None), slice(above), own=False))
        self._paths = Paths(spans, above, pictures)
        self._masked = bool(pictures)
        self._longest = above + max(sum(span.end - span.start for span in path) for path in self._paths.paths)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """As Layout has it."""
        if query.device.type != "cpu" or self._masked or (window is not None and window < self._longest):
            return self._paths.attend(layer, query, key, value, scale, window)
        result: Tensor = _BlockAttention.apply(query, key, value, self.blocks, scale)  # type: ignore[no-untyped-call]
        return result


class Below(Blocks):
    """A part of a forest below a path that earlier calls of the model went through; its nodes are counted from 0.

    `above` has the keys and values of that path, by layer; `kept`, after the call, those with the part's own at the end,
    attached to the graph. Each is [1, kv heads, tokens, dim].
    """

    def __init__(self, spans: Sequence[Span], above: KeysAndValues, pictures: Sequence[Run] = ()) -> None:
        super().__init__(spans, above[0][0].shape[2] if above else 0, pictures)
        self.above = above
        self.kept: KeysAndValues = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """As Layout has it; keys and values are the part's own."""
        if self.above:
            keys, values = self.above[layer]
            key, value = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
        self.kept[layer] = key, value
        return super().attend(layer, query, key, value, scale, window)


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Query [batch, heads, queries, dim] on all of key and value [batch, heads, tokens, dim]: the result, and the logs of its
    softmax sums, float32 [batch, heads, queries], by which parts are merged.

    `mask` [batch, 1, 1 or queries, tokens] is added to the scores. A query that sees nothing gets zeros, and sums of -inf.
    """
    if query.device.type == "cpu":
        out, sums = _flash(query, key, value, attn_mask=mask, scale=scale)
        return (out, sums) if mask is None else (out, sums.masked_fill((mask == -torch.inf).all(-1), -torch.inf))
    scores = ((query * scale) @ key.transpose(2, 3)).float()
    if mask is not None:
        scores = scores + mask
    sums = scores.logsumexp(-1)
    shares = (scores - sums.unsqueeze(-1).clamp(min=torch.finfo(torch.float32).min)).exp()
    return shares.to(value.dtype) @ value, sums


class _Block(NamedTuple):
    """Queries that see a run of keys: causally if both are of the same tokens, else wholly."""

    queries: slice
    keys: slice
    own: bool


class _BlockAttention(torch.autograd.Function):
    """Softmax over several blocks of keys, one kernel call a block.

    With out_b and lse_b the result and the log of the softmax sum of block b alone, lse = log sum_b exp(lse_b) and
    out = sum_b exp(lse_b - lse) out_b. The kernel's own backward, given the merged out and lse, yields the block's share of
    the exact gradients, for its probabilities are exp(score - lse) then (Liu et al. 2023, Ring Attention, do the same).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: Sequence[_Block], scale: float) -> Tensor:
        q, k, v = _grouped(query, key, value)
        out = torch.empty_like(q)
        lse = torch.empty(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32))
        for rows, keys, own in blocks:
            part, part_lse = _flash(q[:, :, rows], k[:, :, keys], v[:, :, keys], is_causal=own, scale=scale)
            if own:
                out[:, :, rows], lse[:, :, rows] = part, part_lse
            else:
                total = torch.logaddexp(lse[:, :, rows], part_lse)
                out[:, :, rows].lerp_(part, (part_lse - total).exp_().to(part.dtype).unsqueeze(-1))
                lse[:, :, rows] = total
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.blocks, ctx.scale = blocks, scale
        return out.view(query.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out, lse = ctx.saved_tensors
        q, k, v = _grouped(query, key, value)
        g = grad.reshape(q.shape)
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(key[0]), torch.zeros_like(value[0])
        for rows, keys, own in ctx.blocks:
            block = (g[:, :, rows], q[:, :, rows], k[:, :, keys], v[:, :, keys], out[:, :, rows], lse[:, :, rows])
            parts = _flash_backward(*block, 0.0, own, scale=ctx.scale)
            dq[:, :, rows] += parts[0]
            dk[:, keys] += parts[1].sum(1)
            dv[:, keys] += parts[2].sum(1)
        return dq.view(query.shape), dk[None], dv[None], None, None


def _grouped(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All three as [kv heads, queries a kv head, tokens, dim]; keys and values by expansion, without a copy."""
    heads, tokens, dim = key.shape[1:]
    q = query[0].reshape(heads, -1, query.shape[2], dim)
    shape = (heads, q.shape[1], tokens, dim)
    return q, key[0].unsqueeze(1).expand(shape), value[0].unsqueeze(1).expand(shape)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    forest: Layout | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if forest is None:
        # A window is in the mask already.
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
        return out, None
    if dropout:
        raise ValueError("attention along a forest has no dropout; set attention_dropout of the model to 0")
    # Under autocast the rotation leaves queries and keys in float32, values in bfloat16; the kernels want one type.
    query, key = query.to(value.dtype), key.to(value.dtype)
    return forest.attend(module.layer_idx, query, key, value, scaling, sliding_window).transpose(1, 2), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
