from __future__ import annotations

from random import Random

import pytest

from more_r1.reasoning.trace import Trace, parse_trace
from more_r1.schema import NONE, Schema
from more_r1.synthetic.benchmark import drafts_of
from more_r1.synthetic.drafts import Draft, make_split
from more_r1.synthetic.oracle import explain
from more_r1.synthetic.story import Mention, judge
from more_r1.synthetic.world import EVERYONE, Thing

SCHEMA = Schema.more()
Explained = tuple[Draft, Thing, Mention, str]


@pytest.fixture(scope="module")
def explained() -> list[Explained]:
    """Every pair of a few hundred documents with its completion."""
    random = Random(5)
    drafts = [draft for split in ("test", "test_new") for draft in drafts_of(split, 1200, 5)]
    return [
        (draft, thing, mention, explain(draft.things, thing, mention, draft.story, random).render())
        for draft in drafts
        for thing in draft.things
        for mention in draft.asked
    ]


def test_a_trace_ends_in_the_label_and_names_types_and_candidates(explained: list[Explained]) -> None:
    for draft, thing, mention, completion in explained:
        trace = parse_trace(completion, SCHEMA)
        types = thing.type, EVERYONE[mention.name].type
        assert trace.answer == judge(thing, mention, draft.story).label
        assert trace.types == types
        assert trace.candidates == SCHEMA.candidates(*types)
        assert trace.answer in trace.candidates


def test_a_trace_has_70_to_140_words(explained: list[Explained]) -> None:
    lengths = [len(completion.split()) for *_, completion in explained]
    assert 70 <= min(lengths) <= max(lengths) <= 140


def test_the_steps_say_what_is_seen_and_said(explained: list[Explained]) -> None:
    for draft, thing, mention, completion in explained:
        steps = parse_trace(completion, SCHEMA).steps
        assert thing.describe() in steps[0]
        assert draft.story.scene in steps[0]
        assert all(f" {' '.join(named.words)} " in steps[1] for named in draft.story.mentions)
        assert f" {' '.join(mention.words)} " in steps[5]


def test_no_label_before_step_5(explained: list[Explained]) -> None:
    """What is decided at the end is not given away at the beginning."""
    for *_, completion in explained:
        early = " ".join(parse_trace(completion, SCHEMA).steps[:4])
        assert not any(label in early for label in SCHEMA.labels if label != NONE)


def test_the_wording_varies(explained: list[Explained]) -> None:
    draft, thing, mention, _ = explained[0]
    random = Random(0)
    traces: set[Trace] = {explain(draft.things, thing, mention, draft.story, random) for _ in range(200)}
    assert len(traces) > 50
    assert len({trace.answer for trace in traces}) == 1


@pytest.mark.parametrize("seed", [7000, 7001, 11])
def test_no_pair_of_any_seed_is_too_long_to_tell(seed: int) -> None:
    random = Random(seed)
    for draft in make_split(300, seed):
        for thing in draft.things:
            for mention in draft.asked:
                words = explain(draft.things, thing, mention, draft.story, random).render().split()
                assert 70 <= len(words) <= 140
