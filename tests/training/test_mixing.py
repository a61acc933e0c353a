"""The order of an epoch: exact counts, fair draws, and what the settings promise, on random pools."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from more_r1.schema import NONE
from more_r1.training.measured import Measured, split
from more_r1.training.mixing import Mixing, order

# The same examples each time, and no deadline: a busy machine is no fault.
STEADY = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
LABELS = (NONE, "/per/per/partner", "/per/org/member_of", "/org/loc/locate_at")


def pair(number: int, label: str, passed: int, asked: int = 1, document: int | None = None) -> Measured:
    answers = [label] * passed + [None] * (asked - passed)
    name = f"{number // 4 if document is None else document}.png"
    return Measured(document=name, object=f"o{number}", span=(0, 1), label=label, predicted=tuple(answers))


def pools(easy: int, hard: int) -> tuple[list[Measured], list[Measured]]:
    """So many pairs, both kinds in most documents."""
    kinds = [number * easy // (easy + hard) != (number + 1) * easy // (easy + hard) for number in range(easy + hard)]
    return split([pair(number, LABELS[number % 3], int(kind)) for number, kind in enumerate(kinds)], 0.5)


@st.composite
def any_pools(draw: st.DrawFn, asked: int = 1) -> tuple[list[Measured], list[Measured]]:
    facts = st.tuples(st.sampled_from(LABELS), st.integers(0, asked), st.integers(0, 9))
    measured = [pair(n, label, passed, asked, document) for n, (label, passed, document) in enumerate(draw(st.lists(facts)))]
    return split(measured, 0.5)


def counts(easy: Sequence[Measured], order: Sequence[Measured]) -> tuple[int, int]:
    keys = {one.key for one in easy}
    right = sum(one.key in keys for one in order)
    return right, len(order) - right


def mix(**given: Any) -> Mixing:
    return Mixing.model_validate(given)


ANY = st.builds(
    lambda preset, alpha, stratified, weighting: mix(
        preset=preset,
        alpha=alpha if preset == "progressive" else 0.5,
        stratified=stratified and preset in ("fixed", "progressive"),
        weighting=weighting,
    ),
    st.sampled_from(["raw", "hard_only", "fixed", "progressive"]),
    st.floats(0.01, 1),
    st.booleans(),
    st.sampled_from(["none", "pass_rate"]),
)


def test_the_counts_of_the_paper() -> None:
    easy, hard = pools(8853, 2370)
    assert [counts(easy, order(easy, hard, t, mix(), 0)) for t in (1, 2, 3, 4)] == [
        (2370, 2370), (1185, 2370), (593, 2370), (296, 2370),
    ]  # fmt: skip
    assert counts(easy, order(easy, hard, 3, mix(preset="raw"), 0)) == (8853, 2370)
    assert counts(easy, order(easy, hard, 3, mix(preset="hard_only"), 0)) == (0, 2370)
    assert counts(easy, order(easy, hard, 3, mix(preset="fixed"), 0)) == (2370, 2370)


@STEADY
@given(any_pools(), st.floats(0.01, 1), st.booleans(), st.integers(1, 6), st.integers(0, 5))
def test_all_hard_and_easy_in_the_ratio(
    pools: tuple[list[Measured], list[Measured]], alpha: float, stratified: bool, epoch: int, seed: int
) -> None:
    easy, hard = pools
    found = order(easy, hard, epoch, mix(alpha=alpha, stratified=stratified), seed)
    wanted = alpha ** (epoch - 1) * len(hard)
    right, wrong = counts(easy, found)
    assert wrong == len(hard)
    assert right == len(easy) or abs(right - wanted) <= 0.5
    assert right <= wanted + 0.5


@STEADY
@given(any_pools(asked=4), ANY, st.integers(1, 5), st.integers(0, 5), st.randoms())
def test_pure_without_doubles_and_documents_together(
    pools: tuple[list[Measured], list[Measured]], mixing: Mixing, epoch: int, seed: int, shuffler: Any
) -> None:
    easy, hard = pools
    found = order(easy, hard, epoch, mixing, seed)
    assert len({one.key for one in found}) == len(found)
    assert {one.key for one in found} <= {one.key for one in easy + hard}
    documents = [name for name, _ in groupby(found, lambda one: one.document)]
    assert len(set(documents)) == len(documents)
    # The same pools in another order are the same pools, and what was asked for before does not matter.
    order(easy, hard, epoch + 1, mixing, seed)
    assert order(shuffler.sample(easy, len(easy)), shuffler.sample(hard, len(hard)), epoch, mixing, seed) == found


@STEADY
@given(any_pools(), st.booleans(), st.floats(0.2, 1), st.integers(0, 5), st.integers(2, 6))
def test_no_easy_pair_comes_again_before_all_have_come(
    pools: tuple[list[Measured], list[Measured]], stratified: bool, alpha: float, seed: int, epochs: int
) -> None:
    easy, hard = pools
    classes = {one.key: one.label if stratified else "" for one in easy}
    drawn: Counter[object] = Counter(dict.fromkeys(classes, 0))
    for epoch in range(1, epochs + 1):
        drawn.update(one.key for one in order(easy, hard, epoch, mix(stratified=stratified, alpha=alpha), seed) if one in easy)
        for name in set(classes.values()):
            times = [drawn[key] for key in classes if classes[key] == name]
            assert max(times) - min(times) <= 1


def test_a_pool_that_is_used_up_begins_anew_in_another_order() -> None:
    easy, hard = pools(50, 30)
    epochs = [[one.key for one in order(easy, hard, t, mix(preset="fixed"), 0) if one in easy] for t in range(1, 11)]
    assert all(len(set(keys)) == len(keys) == 30 for keys in epochs)  # an epoch that runs over the end has no pair twice
    # Five epochs are three rounds; the sixth begins a round as the first did.
    assert len(set(epochs[0]) & set(epochs[5])) < 25


def test_another_epoch_and_another_seed_are_other_draws_in_another_order() -> None:
    easy, hard = pools(300, 100)
    first, second, other = (order(easy, hard, t, mix(preset="fixed"), seed) for t, seed in ((1, 0), (2, 0), (1, 1)))
    keys = [{one.key for one in found if one in easy} for found in (first, second, other)]
    assert not keys[0] & keys[1]
    assert 10 < len(keys[0] & keys[2]) < 60  # a third by chance
    documents = [[name for name, _ in groupby(found, lambda one: one.document)] for found in (first, second, other)]
    shared = [name for name in documents[0] if name in documents[1] and name in documents[2]]
    assert len({tuple(sorted(shared, key=names.index)) for names in documents}) == 3


@STEADY
@given(any_pools(), st.integers(1, 5), st.integers(0, 5))
def test_presets_are_their_alphas(pools: tuple[list[Measured], list[Measured]], epoch: int, seed: int) -> None:
    easy, hard = pools
    assert order(easy, hard, epoch, mix(preset="fixed"), seed) == order(easy, hard, epoch, mix(alpha=1), seed)
    assert order(easy, hard, epoch + 1, mix(preset="hard_only"), seed) == order(easy, hard, epoch + 1, mix(alpha=1e-9), seed)
    raw = order(easy, hard, epoch, mix(preset="raw"), seed)
    assert {one.key for one in raw} == {one.key for one in easy + hard}


@STEADY
@given(any_pools(), st.floats(0.01, 1), st.integers(1, 4), st.integers(0, 5))
def test_stratified_draws_are_even_as_far_as_a_label_lasts(
    pools: tuple[list[Measured], list[Measured]], alpha: float, epoch: int, seed: int
) -> None:
    easy, hard = pools
    found = order(easy, hard, epoch, mix(alpha=alpha, stratified=True), seed)
    drawn = Counter(one.label for one in found if one in easy)
    sizes = Counter(one.label for one in easy)
    most = max((drawn[label] for label in sizes), default=0)
    assert all(drawn[label] == sizes[label] or drawn[label] >= most - 1 for label in sizes)


@STEADY
@given(any_pools(), st.integers(1, 4), st.integers(0, 5))
def test_stratified_keeps_none_from_paying_where_that_can_be(
    pools: tuple[list[Measured], list[Measured]], epoch: int, seed: int
) -> None:
    """Always `none` earns no more than stage 1, but for rounding, where relations are enough for an even draw."""
    easy, hard = pools
    found = order(easy, hard, epoch, mix(stratified=True), seed)
    right, _ = counts(easy, found)
    relations, nones = sum(one.label != NONE for one in easy), sum(one.label == NONE for one in hard)
    if min(relations, right - -(-right // len({one.label for one in easy} or {""}))) >= nones:
        assert sum(one.label == NONE for one in found) <= right


def test_stratified_on_pools_like_the_benchmark() -> None:
    """As many as stage 1 left: plain draws let `none` win in epoch 1, stratified ones do not."""
    labels = [NONE, *(f"/per/per/l{number}" for number in range(20))]
    facts = [(NONE, 1)] * 1890 + [(NONE, 0)] * 405 + [(labels[1 + n % 20], 1) for n in range(428)]
    facts += [(labels[1 + n % 20], 0) for n in range(272)]
    easy, hard = split([pair(number, *fact) for number, fact in enumerate(facts)], 0.5)
    shares = []
    for setting in (mix(), mix(stratified=True)):
        found = order(easy, hard, 1, setting, 0)
        shares.append(sum(one.label == NONE for one in found) / len(found))
    assert shares[0] > 0.65 and shares[1] < 0.5


def test_pass_rates_decide_who_comes_first() -> None:
    measured = [pair(number, NONE, number % 9, 8) for number in range(900)]
    easy, hard = split(measured, 0.5)
    mixing = mix(weighting="pass_rate")
    used = Counter(one.passed for one in order(easy, hard, 1, mixing, 0))
    # Of the hard ones: (0 x 8 + 1 x 7 + 2 x 6 + 3 x 5) / (3 x 5) = 34 / 15 hundreds; as many weigh as much as the hardest.
    assert sum(used[passed] for passed in range(4)) == sum(used[passed] for passed in range(4, 9)) == 227
    assert used[0] == used[8] == 0 and used[1] < used[3] - 5 and used[7] < used[4] - 5
    # Summed over seeds, who is drawn first follows the weights.
    first = Counter(one.passed for seed in range(40) for one in order(easy, hard[:30], 1, mixing, seed) if one.passed in (4, 7))
    assert 1.6 < first[4] / first[7] < 3.2  # the weights are 16 and 7
    # What always passes is drawn when nothing else is left, what always fails is not.
    assert {one.passed for one in order([pair(1, NONE, 8, 8)], [pair(2, NONE, 0, 8), pair(3, NONE, 1, 8)], 1, mixing, 0)} == {
        1,
        8,
    }


def test_the_order_of_a_pool_does_not_decide_how_many_weighted_pairs_are_used() -> None:
    """Two pairs of weight 3 and some of weight 4 are a half more than a whole number of the highest: where a plain sum of
    floats falls beside that depends on its order."""
    for solved in range(3, 20):
        hard = [pair(number, NONE, 1 + int(number >= 2), 4) for number in range(2 + solved)]
        assert order([], hard, 1, mix(weighting="pass_rate"), 0) == order([], hard[::-1], 1, mix(weighting="pass_rate"), 0)


@STEADY
@given(any_pools(), st.integers(1, 3), st.integers(0, 5), st.sampled_from(["raw", "fixed", "progressive"]))
def test_one_answer_tells_no_two_apart(
    pools: tuple[list[Measured], list[Measured]], epoch: int, seed: int, preset: str
) -> None:
    easy, hard = pools
    plain, weighted = mix(preset=preset), mix(preset=preset, weighting="pass_rate")
    assert order(easy, hard, epoch, weighted, seed) == order(easy, hard, epoch, plain, seed)


def test_pools_may_change_between_epochs() -> None:
    """What stays easy is drawn in nearly the same order, so it seldom comes again."""
    easy, hard = pools(400, 100)
    first = {one.key for one in order(easy, hard, 1, mix(preset="fixed"), 0)}
    second = order(easy[5:], [*hard, pair(9000, NONE, 0)], 2, mix(preset="fixed"), 0)
    assert counts(easy, second) == (101, 101)
    assert sum(one.key in first for one in second if one in easy) <= 5


def test_no_easy_or_no_hard_pairs() -> None:
    easy, hard = pools(5, 3)
    for preset in ("hard_only", "fixed", "progressive"):
        assert order(easy, [], 1, mix(preset=preset), 0) == []
        assert {one.key for one in order([], hard, 1, mix(preset=preset), 0)} == {one.key for one in hard}
    assert len(order(easy, [], 2, mix(preset="raw"), 0)) == 5
    assert order([], [], 1, mix(preset="raw", weighting="pass_rate"), 0) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "fixed", "alpha": 0.7}, "alpha=0.7 is of preset progressive"),
        ({"preset": "raw", "stratified": True}, "raw draws none"),
        ({"preset": "hard_only", "stratified": True}, "hard_only draws none"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"alpa": 1}, "alpa"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        mix(**given)


def test_epochs_count_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        order([], [], 0, mix(), 0)


def test_without_torch() -> None:
    code = "import sys, more_r1.training.mixing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
