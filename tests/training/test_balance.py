"""Parts of a step: all of it, the largest as small as can be, by the tokens that a forest of each has."""

from __future__ import annotations

from itertools import combinations, pairwise
from random import Random
from statistics import mean

import pytest
from halves import FORM, document
from hypothesis import given
from hypothesis import strategies as st

from more_r1.models.forest import Forest
from more_r1.models.load import Backbone
from more_r1.reasoning.prompt import build_prompt
from more_r1.schema import Schema
from more_r1.training.balance import costs, cut


@st.composite
def some_costs(draw: st.DrawFn) -> list[tuple[int, int]]:
    """An item shares with its neighbour no more than either has."""
    found: list[tuple[int, int]] = []
    for first in draw(st.lists(st.integers(1, 40), max_size=7)):
        found.append((first, first - draw(st.integers(0, min(first, found[-1][0]) if found else 0))))
    return found


def largest(items: list[tuple[int, int]], starts: list[int]) -> int:
    bounds = [*starts, len(items)]
    return max(items[a][0] + sum(behind for _, behind in items[a + 1 : z]) for a, z in pairwise(bounds))


@given(items=some_costs(), count=st.integers(1, 4))
def test_no_other_cut_has_a_smaller_largest_part(items: list[tuple[int, int]], count: int) -> None:
    starts = cut(items, count)
    assert len(starts) <= count and starts == sorted(set(starts)) and starts[:1] == [0][: len(items)]
    others = ([0, *more] for parts in range(min(count, len(items))) for more in combinations(range(1, len(items)), parts))
    assert not items or largest(items, starts) == min(largest(items, other) for other in others)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_part_costs_what_its_forest_has(random_tiny: Backbone, count: int) -> None:
    encoder, schema = random_tiny.encoder, Schema.more()
    documents = [document(number) for number in range(5)]
    prompts = [build_prompt(one, pair, schema, FORM) for one in documents for pair in one.pairs]
    completions = [encoder.completion("Ann sings " * (number + 1)) for number in range(len(prompts))]
    segments = [[len(segment.ids) for segment in encoder.prompt(prompt)] for prompt in prompts]
    found = costs(prompts, segments, [len(completion) - 1 for completion in completions])  # the last token is never read
    starts = cut(found, count)
    for first, last in pairwise([*starts, len(prompts)]):
        rows = [(encoder.prompt(prompt), ids) for prompt, ids in zip(prompts, completions, strict=True)][first:last]
        assert Forest.build(rows, encoder).tokens == found[first][0] + sum(behind for _, behind in found[first + 1 : last])


def step(rng: Random) -> list[tuple[int, int, int, int]]:
    """At most 16 pairs in real sizes: of each its document, the tokens of that, of its own crop and question, and of its trace.

    Documents have some six pairs, as MORE's have; pictures have up to 1,024 tokens, crops up to 256.
    """
    found: list[tuple[int, int, int, int]] = []
    while True:
        number, shared, size = len(found), rng.randint(600, 1100), min(int(rng.expovariate(1 / 5.2)) + 1, 16)
        if number + size > 16:
            return found
        found += [(number, shared, rng.randint(76, 316), int(rng.gauss(250, 60))) for _ in range(size)]


def test_the_figures_of_the_docs() -> None:
    """The largest of four parts, in shares of their mean, under a root of 600 tokens; cut by completions alone beside it."""
    rng, root, count = Random(0), 600, 4
    figures: dict[str, list[float]] = {"tokens": [], "completions": []}
    for pairs in (found for found in (step(rng) for _ in range(300)) if len(found) >= 8):
        tokens = []
        for number, (place, shared, own, trace) in enumerate(pairs):
            again = number > 0 and pairs[number - 1][0] == place
            tokens.append((root + shared + own + trace, own + trace + (0 if again else shared)))
        for name, known in (("tokens", tokens), ("completions", [(trace, trace) for *_, trace in pairs])):
            bounds = [*cut(known, count), len(pairs)]
            parts = [tokens[a][0] + sum(behind for _, behind in tokens[a + 1 : z]) for a, z in pairwise(bounds)]
            figures[name].append(max(parts) * count / sum(parts))
    told = {name: (round(mean(all), 2), round(max(all), 2)) for name, all in figures.items()}
    assert told == {"tokens": (1.1, 1.27), "completions": (1.19, 1.47)}
