"""Windows and pictures whose tokens see each other, in every layout: what a token sees is what it would see in its sequence
alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from more_r1.models.attention import Below, Blocks, Dense, Flex, Layout, Paths
from more_r1.models.sight import Run, Span

HEADS, KV_HEADS, DIM = 4, 2, 8


@st.composite
def rows(draw: st.DrawFn) -> tuple[list[Span], list[Run], int | None]:
    """Trees of nodes of one to six tokens, some with a picture, and a window or none."""
    spans: list[list[int]] = []
    runs: list[Run] = []

    def grow(start: int, depth: int) -> int:
        size = draw(st.integers(1, 6))
        span = [start, start + size, start + size]
        spans.append(span)
        if size > 2 and draw(st.booleans()):
            first = draw(st.integers(0, size - 2))
            runs.append((start + first, start + draw(st.integers(first + 2, size))))
        for _ in range(draw(st.integers(0, 2)) if depth < 3 else 0):
            span[2] = grow(span[2], depth + 1)
        return span[2]

    end = 0
    for _ in range(draw(st.integers(1, 2))):
        end = grow(end, 0)
    return [Span(*span) for span in spans], runs, draw(st.none() | st.integers(1, 12))


def seen_alone(spans: Sequence[Span], runs: Sequence[Run], window: int | None) -> Tensor:
    """Sequence by sequence, as if each stood alone: Boolean [T, T]."""
    total = max(span.stop for span in spans)
    sees = torch.zeros(total, total, dtype=torch.bool)
    for leaf in spans:
        tokens = [token for span in spans if span.start <= leaf.start < span.stop for token in range(span.start, span.end)]
        for place, token in enumerate(tokens):
            for other, key in enumerate(tokens):
                together = any(first <= token < last and first <= key < last for first, last in runs)
                near = window is None or place - other < window
                sees[token, key] = (other <= place or together) and near
    return sees


def inputs(total: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(total)
    return [torch.randn(1, heads, total, DIM, generator=generator, requires_grad=True) for heads in (HEADS, KV_HEADS, KV_HEADS)]


def outcome(layout: Layout, qkv: list[Tensor], window: int | None) -> tuple[Tensor, ...]:
    """The result, and the gradients of a sum in which each number has a weight of its own."""
    out = layout.attend(0, *qkv, 0.4, window)  # type: ignore[misc, arg-type, call-arg]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
    return out.detach(), *torch.autograd.grad((out * weights).sum(), qkv)


def close(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-5)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(rows())
def test_a_token_sees_what_it_sees_alone(row: tuple[list[Span], list[Run], int | None]) -> None:
    spans, runs, window = row
    assert torch.equal(Dense(spans, runs).mask(window), seen_alone(spans, runs, window))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows())
def test_all_layouts_are_the_dense_mask(row: tuple[list[Span], list[Run], int | None]) -> None:
    spans, runs, window = row
    qkv = inputs(max(span.stop for span in spans))
    wanted = outcome(Dense(spans, runs), qkv, window)
    for layout in (Paths(spans, pictures=runs), Blocks(spans, pictures=runs)):
        close(outcome(layout, qkv, window), wanted)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows(), st.integers(1, 9))
def test_below_a_path_it_is_the_same(row: tuple[list[Span], list[Run], int | None], above: int) -> None:
    """The path as a root before all, whose keys and values are given."""
    spans, runs, window = row
    total = max(span.stop for span in spans)
    whole = [Span(0, above, above + total), *(Span(*(above + place for place in span)) for span in spans)]
    q, k, v = inputs(above + total)
    wanted = Dense(whole, [(above + first, above + last) for first, last in runs]).attend(0, q, k, v, 0.4, window)
    given_above = {0: (k[:, :, :above], v[:, :, :above])}
    found = Below(spans, given_above, runs).attend(0, q[:, :, above:], k[:, :, above:], v[:, :, above:], 0.4, window)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    close([found], [wanted[:, :, above:]])
    ours, theirs = (torch.autograd.grad((out * weights).sum(), (q, k, v)) for out in (found, wanted[:, :, above:]))
    close(ours, theirs)


@pytest.mark.parametrize("window", [None, 1, 5])
def test_flex_is_the_dense_mask(window: int | None) -> None:
    """Forwards only: on CPUs it has no way back."""
    spans, runs = [Span(0, 6, 14), Span(6, 10, 10), Span(10, 14, 14)], [(1, 5), (11, 13)]
    q, k, v = (part.detach() for part in inputs(14))
    found, wanted = (layout(spans, runs).attend(0, q, k, v, 0.4, window) for layout in (Flex, Dense))
    close([found], [wanted])
