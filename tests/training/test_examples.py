"""Draw and pack: exact counts, nothing lost, nothing twice, the same each time."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from more_r1.reasoning.prompt import Prompt
from more_r1.training.examples import Epochs, Example, draw, pack, share

LABELS = st.lists(st.sampled_from(["none", "/per/per/partner", "/per/org/member_of", "/loc/loc/contain"]), max_size=200)
SIZES = st.lists(st.integers(0, 12), max_size=30)


@given(labels=LABELS, quarters=st.integers(1, 4), seed=st.integers())
def test_draw_takes_its_share_of_every_class(labels: list[str], quarters: int, seed: int) -> None:
    taken = draw(labels, quarters / 4, seed)
    assert taken == sorted(set(taken)) and taken == draw(labels, quarters / 4, seed)
    got = Counter(labels[index] for index in taken)
    # round half up of n * quarters / 4, in whole numbers
    assert got == {label: max(1, (2 * n * quarters + 4) // 8) for label, n in Counter(labels).items()}
    rest = Counter(labels[index] for index in set(range(len(labels))) - set(taken))
    assert got + rest == Counter(labels)


@given(labels=LABELS, seed=st.integers())
def test_draw_of_a_class_ignores_the_other_classes(labels: list[str], seed: int) -> None:
    places = [index for index, label in enumerate(labels) if label == "none"]
    alone = draw(["none"] * len(places), 0.25, seed)
    assert [i for i in draw(labels, 0.25, seed) if labels[i] == "none"] == [places[i] for i in alone]


def test_draws_differ_by_seed() -> None:
    assert draw(["none"] * 100, 0.25, 0) != draw(["none"] * 100, 0.25, 1)


@pytest.mark.parametrize("share", [0, -0.1, 1.01])
def test_draw_refuses_a_share_that_is_none(share: float) -> None:
    with pytest.raises(ValueError, match="share="):
        draw(["none"], share, 0)


@given(sizes=SIZES, most=st.integers(1, 10), seed=st.integers(), epoch=st.integers(0, 3))
def test_pack_holds_every_pair_once_and_keeps_documents_together(sizes: list[int], most: int, seed: int, epoch: int) -> None:
    batches = pack(sizes, most, seed, epoch)
    assert batches == pack(sizes, most, seed, epoch)
    assert all(1 <= len(batch) <= most for batch in batches)
    everything = [pair for batch in batches for pair in batch]
    assert sorted(everything) == [(document, pair) for document, size in enumerate(sizes) for pair in range(size)]
    for document, size in enumerate(sizes):
        places = {index for index, batch in enumerate(batches) if any(d == document for d, _ in batch)}
        assert len(places) == -(-size // most)


def test_epochs_differ_in_order_and_count_steps() -> None:
    documents = [[Example(Prompt((("a",),)), f"{d} {p}") for p in range(2)] for d in range(20)]
    batches = Epochs(documents, 3, 4, seed=7)
    assert len(batches) == 30
    first, second = ([e.completion for i in range(start, start + 10) for e in batches[i].examples] for start in (0, 10))
    assert first != second and sorted(first) == sorted(second)
    assert [batches[i].epoch for i in (0, 9, 29)] == [pytest.approx(0.1), 1.0, 3.0]


@given(size=st.integers(0, 40), count=st.integers(1, 9))
def test_shares_are_all_of_it_in_equal_numbers(size: int, count: int) -> None:
    processes = [SimpleNamespace(process_index=rank, num_processes=count) for rank in range(count)]
    parts = [share(range(size), process) for process in processes]  # type: ignore[arg-type]
    assert [place for part in parts for place in part] == list(range(size))
    assert {len(part) for part in parts} <= {size // count, -(-size // count)}
