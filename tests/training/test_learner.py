"""Loss and learning rate by their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from more_r1.reasoning.prompt import Prompt
from more_r1.training.examples import Example
from more_r1.training.learner import rates, token_mean

PROMPT = Prompt((("a",),))


def test_loss_is_the_mean_over_tokens_not_over_examples() -> None:
    logprobs = [torch.tensor([-1.0]), torch.tensor([-2.0, -4.0, -5.0])]
    total, count = token_mean(logprobs, [Example(PROMPT, "a"), Example(PROMPT, "b")])
    assert total / count == 3.0


def test_weights_multiply_tokens_and_divisor() -> None:
    logprobs = [torch.tensor([-1.0]), torch.tensor([-2.0, -4.0])]
    total, count = token_mean(logprobs, [Example(PROMPT, "a", weight=3.0), Example(PROMPT, "b", weight=0.5)])
    assert total / count == pytest.approx((3 * 1 + 0.5 * 6) / (3 + 2 * 0.5))
    total, count = token_mean(logprobs, [Example(PROMPT, "a", weight=0.0), Example(PROMPT, "b")])
    assert total / count == 3.0


def test_cosine_rises_then_falls_to_nothing() -> None:
    values = rates(2.0, 100, 0.1, "cosine")
    assert len(values) == 100
    assert values[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert values[10] == 2.0 and values[55] == pytest.approx(1.0)
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[-1] == pytest.approx(1 + math.cos(math.pi * 89 / 90))


def test_constant_stays_level_and_without_warmup_starts_there() -> None:
    assert rates(0.5, 4, 0.0, "constant") == [0.5] * 4
    assert rates(0.5, 4, 0.5, "constant") == [0.25, 0.5, 0.5, 0.5]
    assert rates(0.5, 1, 0.03, "cosine") == [0.5]
