"""GRPO's loss against its formulas, written out token by token."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from more_r1.training.objective import STD_FLOOR, Objective, advantages, k3, token_weights

EPSILON, BETA = 0.2, 0.04
# Also what sums of weighted rewards look like, and what no mean of floats hits exactly.
REWARD = st.sampled_from([0.0, 1.0, 2.0, 0.1, 0.1 + 0.2, 1 / 3, 1e-30, 1e30]) | st.floats(-1e6, 1e6, width=32)


@settings(derandomize=True, deadline=None)
@given(reward=REWARD, size=st.integers(2, 33), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_equal_rewards_teach_exactly_nothing(reward: float, size: int, dtype: torch.dtype) -> None:
    assert not advantages(torch.full((3, size), reward, dtype=dtype)).any()


@settings(derandomize=True, deadline=None)
@given(st.integers(2, 9).flatmap(lambda size: st.lists(st.lists(st.integers(0, 4), min_size=size, max_size=size), min_size=1)))
def test_advantages_are_the_formula_group_by_group(groups: list[list[int]]) -> None:
    found = advantages(torch.tensor(groups, dtype=torch.float32))
    for group, row in zip(groups, found.tolist(), strict=True):
        mean = sum(group) / len(group)
        deviation = math.sqrt(sum((reward - mean) ** 2 for reward in group) / (len(group) - 1))
        assert row == pytest.approx([(reward - mean) / (deviation + STD_FLOOR) for reward in group], abs=1e-5)
        assert abs(sum(row)) < 1e-5


def test_groups_do_not_mix() -> None:
    alone = advantages(torch.tensor([[1.0, 0.0, 0.0]]))
    beside = advantages(torch.tensor([[5.0, 5.0, 5.0], [1.0, 0.0, 0.0], [100.0, 0.0, 7.0]]))
    assert torch.equal(beside[1:2], alone)
    assert not beside[0].any() and beside[2].all()


@pytest.mark.parametrize("average", ["token", "sequence"])
@settings(derandomize=True, deadline=None)
@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=30), cut=st.integers(0, 30))
def test_weights_of_a_batch_are_one_however_it_is_cut(
    average: Literal["token", "sequence"], lengths: list[int], cut: int
) -> None:
    parts = [part for part in (lengths[:cut], lengths[cut:]) if part]
    weights = [token_weights(part, average, len(lengths), sum(lengths)) for part in parts]
    assert sum(float(part.double().sum()) for part in weights) == pytest.approx(1, abs=1e-5)
    assert [len(part) for part in weights] == [sum(part) for part in parts]


def test_what_each_average_holds_equal() -> None:
    lengths = [1, 4, 10]
    tokens = token_weights(lengths, "token", 3, 15)
    assert tokens.tolist() == pytest.approx([1 / 15] * 15)
    completions = token_weights(lengths, "sequence", 3, 15).split(lengths)
    assert [float(part.sum()) for part in completions] == pytest.approx([1 / 3] * 3)
    assert all(len(set(part.tolist())) == 1 for part in completions)


def numbers(seed: int, size: int = 200) -> dict[str, list[float]]:
    """Ratios on both sides of both borders, advantages of both signs and 0."""
    rng = random.Random(seed)
    now = [rng.uniform(-4, -0.01) for _ in range(size)]
    return {
        "now": now,
        "old": [p + rng.uniform(-0.5, 0.5) for p in now],
        "advantage": [rng.choice((0.0, rng.gauss(0, 1))) for _ in now],
        "weight": [rng.uniform(0, 0.1) for _ in now],
        "reference": [p + rng.gauss(0, 1) for p in now],
    }


def objective(values: dict[str, list[float]], beta: float) -> Objective:
    found = {name: torch.tensor(them, dtype=torch.float64) for name, them in values.items()}
    reference = found["reference"] if beta else None
    return Objective(found["old"], found["advantage"], found["weight"], reference, EPSILON, beta)


def by_hand(values: dict[str, list[float]], at: int, beta: float) -> float:
    """The loss of one token."""
    ratio = math.exp(values["now"][at] - values["old"][at])
    advantage = values["advantage"][at]
    loss = -min(ratio * advantage, min(max(ratio, 1 - EPSILON), 1 + EPSILON) * advantage)
    difference = values["reference"][at] - values["now"][at]
    return values["weight"][at] * (loss + beta * (math.exp(difference) - difference - 1))


@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_the_sum_of_its_tokens(seed: int, beta: float) -> None:
    values = numbers(seed)
    now = torch.tensor(values["now"], dtype=torch.float64)
    one = objective(values, beta)
    whole = [by_hand(values, at, beta) for at in range(len(now))]
    assert float(one(now)) == pytest.approx(sum(whole), rel=1e-12)
    # Part by part, as the recursive forest asks, in any order.
    places = torch.randperm(len(now), generator=torch.Generator().manual_seed(seed))
    for at in places.split(7):
        assert float(one(now[at], at)) == pytest.approx(sum(whole[i] for i in at.tolist()), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_stops_at_the_borders_that_count(seed: int) -> None:
    values = numbers(seed)
    one = objective(values, 0.0)
    now = torch.tensor(values["now"], dtype=torch.float64, requires_grad=True)
    one(now).backward()
    assert now.grad is not None
    kinds = set()
    for at, found in enumerate(now.grad.tolist()):
        advantage, ratio = values["advantage"][at], math.exp(values["now"][at] - values["old"][at])
        held = (advantage > 0 and ratio > 1 + EPSILON) or (advantage < 0 and ratio < 1 - EPSILON)
        # The derivative of a ratio by its log-probability is the ratio.
        assert found == pytest.approx(0.0 if held else -values["weight"][at] * advantage * ratio, rel=1e-12)
        assert bool(one.clipped(now.detach())[at]) is held
        kinds.add((advantage > 0) - (advantage < 0) + (10 if held else 0))
    assert kinds == {-1, 0, 1, 9, 11}, "all kinds of tokens must have been there"


@pytest.mark.parametrize("seed", range(5))
def test_the_model_that_drew_is_at_ratio_one_and_learns_there(seed: int) -> None:
    values = numbers(seed)
    values["old"] = values["now"]
    said = objective(values, BETA)
    found = []
    for one in (said, replace(said, old=None)):
        now = torch.tensor(values["now"], dtype=torch.float64, requires_grad=True)
        loss = torch.stack([one(now[at], at) for at in torch.arange(len(now)).split(7)]).sum()
        loss.backward()
        assert now.grad is not None and not one.clipped(now.detach()).any()
        found.append([float(loss.detach()), *now.grad.tolist()])
    assert found[0] == pytest.approx(found[1], rel=1e-12)


@pytest.mark.parametrize(("advantage", "border"), [(1.0, 1 + EPSILON), (-1.0, 1 - EPSILON)])
def test_at_the_very_borders(advantage: float, border: float) -> None:
    """A hair inside it learns, a hair outside it does not; beyond the other border it learns whatever the ratio."""
    for ratio, learns in (
        (border * (1 - 1e-9 * advantage), True),
        (border * (1 + 1e-9 * advantage), False),
        (2 - border, True),
    ):
        now = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
        zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        Objective(zero, one * advantage, one, None, EPSILON, 0.0)(now).backward()
        assert now.grad is not None
        assert float(now.grad) == pytest.approx(-advantage * ratio if learns else 0.0)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.floats(-30, 0), st.floats(-30, 0)), min_size=1))
def test_k3_is_never_below_zero_and_zero_only_without_distance(pairs: list[tuple[float, float]]) -> None:
    now, reference = torch.tensor(pairs, dtype=torch.float64).T
    found = k3(now, reference)
    assert (found >= 0).all()
    assert (found[(now - reference).abs() > 1e-6] > 0).all()
    assert not k3(now, now).any()
    assert found.tolist() == pytest.approx([math.exp(r - p) - (r - p) - 1 for p, r in pairs])


def test_k3_is_on_average_the_divergence() -> None:
    """Weighted by how likely the policy draws each token, it is the divergence from the reference itself."""
    logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    policy, reference = logits.log_softmax(-1)
    divergence = (policy.exp() * (policy - reference)).sum()
    assert float((policy.exp() * k3(policy, reference)).sum()) == pytest.approx(float(divergence), rel=1e-12)
