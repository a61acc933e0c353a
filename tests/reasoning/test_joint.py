"""Reading the pairs of a document together: exact, whatever the scores and the rules."""

from __future__ import annotations

import itertools
import math
import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from more_r1.reasoning import joint
from more_r1.reasoning.joint import Asked, read_jointly
from more_r1.schema import NONE, Schema

IS, KNOWS, PARENT, CHILD, HEADS = (f"/per/per/{name}" for name in ("alternate_names", "knows", "parent", "child", "heads"))
SCHEMA = Schema.parse(
    f"""
relations:
  {IS}: {{meaning: is, at_most_one: true}}
  {KNOWS}: {{meaning: knows, symmetric: true}}
  {PARENT}: {{meaning: is a parent of, inverse: {CHILD}}}
  {CHILD}: is a child of
  {HEADS}: {{meaning: heads, at_most_one: true}}
"""
)


def asked(object: str, name: str, **best: float) -> Asked:
    """A pair whose labels have these scores, -20 those that are not given."""
    scores = {label: best.get(label.rsplit("/", 1)[-1].replace("alternate_names", "same"), -20.0) for label in SCHEMA.labels}
    return Asked(object, name, scores)


def breaks(pairs: list[Asked], labels: list[str]) -> bool:
    """The rules as the documentation says them, pair by pair, apart from the code under test."""
    facts = [(pair.object, pair.name.lower(), label) for pair, label in zip(pairs, labels, strict=True)]
    mirrors = {KNOWS: KNOWS, PARENT: CHILD, CHILD: PARENT}
    for (a, b, one), (c, d, two) in itertools.combinations(facts, 2):
        if one == two and one in (IS, HEADS) and (a == c) != (b == d):
            return True
        if (a, b) == (c, d) and {one, two} == {PARENT, CHILD}:
            return True
    names = [(object, name) for object, name, label in facts if label == IS]
    for (a, b), (c, d) in itertools.permutations(names, 2):
        if a == c or b == d:
            continue
        for there in [label for object, name, label in facts if (object, name) == (a, d)]:
            for back in [label for object, name, label in facts if (object, name) == (c, b)]:
                if there in mirrors and back != mirrors[there]:
                    return True
    return False


def total(pairs: list[Asked], labels: list[str]) -> float:
    return sum(pair.scores[label] for pair, label in zip(pairs, labels, strict=True))


def brute(pairs: list[Asked], labels: tuple[str, ...]) -> float:
    return max(
        total(pairs, list(tried)) for tried in itertools.product(labels, repeat=len(pairs)) if not breaks(pairs, list(tried))
    )


@st.composite
def documents(draw: st.DrawFn) -> list[Asked]:
    """Up to six pairs of two or three objects and names; some labels far likelier than others, ties among them."""
    score = st.sampled_from([-0.1, -0.5, -1.0, -1.7, -3.0, -6.0])
    spots = st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["Ann", "ANN", "Bob", "Cy"]))
    pairs = []
    for object, name in draw(st.lists(spots, min_size=1, max_size=5)):
        pairs.append(Asked(object, name, {label: draw(score) for label in SCHEMA.labels}))
    return pairs


@given(documents())
@settings(max_examples=60, deadline=None)
def test_no_labelling_that_keeps_the_rules_is_likelier(pairs: list[Asked]) -> None:
    found = read_jointly(pairs, SCHEMA)
    assert not breaks(pairs, found)
    assert total(pairs, found) == pytest.approx(brute(pairs, SCHEMA.labels))


def test_mirrors_are_exact_too() -> None:
    """Two persons, each with its name, and what they are to each other: every combination of leanings."""
    kinds = [{"knows": -0.1}, {"none": -0.1}, {"parent": -0.1}, {"child": -0.1}]
    random = Random(0)
    for there, back in itertools.product(kinds, repeat=2):
        pairs = [asked("a", "Ann", same=-0.1, none=-1.0), asked("b", "Bob", same=-0.1, none=-random.random() * 5)]
        for object, name, kind in (("a", "Bob", there), ("b", "Ann", back)):
            noise = {key: -0.5 - 4 * random.random() for key in ("knows", "none", "parent", "child")}
            pairs.append(asked(object, name, **(noise | kind)))
        found = read_jointly(pairs, SCHEMA)
        assert not breaks(pairs, found)
        assert total(pairs, found) == pytest.approx(brute(pairs, SCHEMA.labels))


def test_a_person_is_one_name_and_the_likelier_one() -> None:
    pairs = [asked("a", "Ann", same=-0.3, none=-1.4), asked("a", "Bob", same=-0.1, none=-2.4)]
    assert read_jointly(pairs, SCHEMA) == [NONE, IS]
    assert read_jointly([asked("a", "Ann", same=-0.3), asked("a", "ann", same=-0.1)], SCHEMA) == [IS, IS]  # one name, twice
    assert read_jointly([asked("a", "Ann", knows=-0.3), asked("a", "Bob", knows=-0.1)], SCHEMA) == [KNOWS, KNOWS]


def test_a_relation_and_its_inverse_do_not_hold_at_once() -> None:
    """The text mentions Ann twice; the same person is not her parent and her child."""
    pairs = [asked("a", "Ann", parent=-0.1, none=-3.0), asked("a", "ANN", child=-0.2, none=-2.0, parent=-2.5)]
    assert read_jointly(pairs, SCHEMA) == [PARENT, NONE]
    assert read_jointly([pairs[0], asked("a", "Bob", child=-0.2)], SCHEMA) == [PARENT, CHILD]


def test_what_does_not_contradict_is_left_alone() -> None:
    pairs = [asked("a", "Ann", parent=-0.1), asked("b", "Bob", heads=-0.3), asked("c", "Cy", none=-0.2)]
    assert read_jointly(pairs, SCHEMA) == [PARENT, HEADS, NONE]
    assert read_jointly([], SCHEMA) == []


def crowd(seed: int) -> list[Asked]:
    """Ten persons and ten names: everybody seems to be everybody."""
    random = Random(seed)
    return [
        asked(f"o{i}", f"n{j}", same=-0.1 - random.random(), none=-2 - random.random() - (i == j))
        for i in range(10)
        for j in range(10)
    ]


def test_a_crowd_of_doubtful_pairs_is_the_assignment_problem() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    pairs = crowd(1)
    gains = [[pairs[10 * i + j].scores[IS] - pairs[10 * i + j].scores[NONE] for j in range(10)] for i in range(10)]
    rows, columns = optimize.linear_sum_assignment(gains, maximize=True)
    wanted = sum(pair.scores[NONE] for pair in pairs) + sum(gains[i][j] for i, j in zip(rows, columns, strict=True))
    assert total(pairs, read_jointly(pairs, SCHEMA)) == pytest.approx(wanted)


def test_a_search_that_is_given_up_keeps_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = crowd(2)
    best = total(pairs, read_jointly(pairs, SCHEMA))
    monkeypatch.setattr(joint, "MOST_NODES", 3)
    found = read_jointly(pairs, SCHEMA)
    assert not breaks(pairs, found)
    assert -math.inf < total(pairs, found) <= best and found.count(IS) == 10


def test_no_document_stops_the_program() -> None:
    """All scores equal: any labelling that keeps the rules is as good, and must be found soon."""
    pairs = [Asked(f"o{i}", f"n{j}", dict.fromkeys(SCHEMA.labels, -1.0)) for i in range(8) for j in range(5)]
    hostile = [Asked(pair.object, pair.name, {**pair.scores, IS: -0.5, KNOWS: -0.7}) for pair in pairs]
    begun = time.process_time()
    for each in (pairs, hostile):
        assert not breaks(each, read_jointly(each, SCHEMA))
    assert time.process_time() - begun < 10
