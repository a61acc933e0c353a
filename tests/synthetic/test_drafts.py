"""The embedded benchmark's proportions at its default size, from drafts alone: drawing would not change them."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest

from more_r1.schema import Schema
from more_r1.synthetic.benchmark import DEFAULT_DOCUMENTS, drafts_of, sizes
from more_r1.synthetic.drafts import NONE_SHARE, Draft
from more_r1.synthetic.story import Mention, Story, Verdict, judge
from more_r1.synthetic.world import EVERYONE, Thing, held_out

Judged = tuple[Thing, Mention, Verdict]
Split = list[Draft]


@pytest.fixture(scope="module")
def splits() -> dict[str, Split]:
    return {split: list(drafts_of(split)) for split in sizes(DEFAULT_DOCUMENTS)}


def _judged(draft: Draft) -> list[Judged]:
    return [(thing, mention, judge(thing, mention, draft.story)) for thing in draft.things for mention in draft.asked]


def _positives(drafts: Split) -> list[Verdict]:
    return [verdict for draft in drafts for _, _, verdict in _judged(draft) if verdict.hops is not None]


def test_sizes_are_those_of_more(splits: dict[str, Split]) -> None:
    assert {split: len(drafts) for split, drafts in splits.items()} == sizes(DEFAULT_DOCUMENTS)
    pairs = {split: sum(len(_judged(draft)) for draft in drafts) for split, drafts in splits.items()}
    for split, of_more in (("train", 15_486), ("valid", 1_742), ("test", 3_036)):
        assert pairs[split] == pytest.approx(of_more, rel=0.05)


@pytest.mark.parametrize("split", ["train", "test"])
def test_objects_and_pairs_a_document(splits: dict[str, Split], split: str) -> None:
    drafts = splits[split]
    assert sum(len(draft.things) for draft in drafts) / len(drafts) == pytest.approx(3.8, abs=0.1)
    assert sum(len(_judged(draft)) for draft in drafts) / len(drafts) == pytest.approx(5.7, abs=0.15)
    assert {len(draft.things) for draft in drafts} == set(range(1, 9))


@pytest.mark.parametrize("split", ["train", "test"])
def test_none_in_the_buckets(splits: dict[str, Split], split: str) -> None:
    pairs: Counter[tuple[bool, bool]] = Counter()
    none: Counter[tuple[bool, bool]] = Counter()
    for draft in splits[split]:
        bucket = (len(draft.asked) > 1, len(draft.things) > 1)
        for _, _, verdict in _judged(draft):
            pairs[bucket] += 1
            none[bucket] += verdict.hops is None
    # METHOD.md: the shares of MORE.
    assert NONE_SHARE == {(False, False): 0.05, (False, True): 0.74, (True, False): 0.33, (True, True): 0.81}
    for bucket, share in NONE_SHARE.items():
        assert none[bucket] / pairs[bucket] == pytest.approx(share, abs=0.03)


def test_every_label_is_often_enough(splits: dict[str, Split]) -> None:
    labels = set(Schema.more().labels)
    for drafts in splits.values():
        found = Counter(verdict.label for draft in drafts for _, _, verdict in _judged(draft))
        assert set(found) == labels
    assert min(Counter(verdict.label for verdict in _positives(splits["test"])).values()) >= 25


def test_a_third_of_the_positives_takes_three_or_four_hops(splits: dict[str, Split]) -> None:
    for drafts in splits.values():
        hops = Counter(verdict.hops for verdict in _positives(drafts))
        assert set(hops) == {1, 2, 3, 4}
        assert (hops[3] + hops[4]) / hops.total() >= 1 / 3


def _rests_on(thing: Thing, mention: Mention, verdict: Verdict, story: Story) -> tuple[str, str] | None:
    """The two names whose combination a positive rests on; None where it is one name, or a place in its country."""
    if verdict.how in ("said", "scene", "badge", "ring"):
        return thing.who, mention.name
    if verdict.how in ("kit", "club"):
        player_of = dict(story.plays)
        return thing.who, player_of[thing.who] if verdict.link == thing.who else thing.kit
    return None


def _combinations(draft: Draft) -> list[tuple[str, str]]:
    rests = (_rests_on(*judged, draft.story) for judged in _judged(draft) if judged[2].hops is not None)
    return [pair for pair in rests if pair is not None]


def test_unseen_combinations_are_unseen(splits: dict[str, Split]) -> None:
    known = list(chain(splits["train"], splits["valid"], splits["test"]))
    for draft in known:
        story = draft.story
        said = {(fact.a, fact.b) for fact in story.facts if fact.how == "said"}
        # A club may be named with any event; all else that is said, set side by side or worn keeps away.
        told = (said - set(story.attends)) | set(story.beside)
        worn = {(thing.who, name) for thing in draft.things for name in thing.worn}
        assert not any(held_out(*pair) for pair in told | worn)
    seen = {frozenset(pair) for draft in known for pair in _combinations(draft)}
    fresh = [{frozenset(pair) for pair in _combinations(draft) if held_out(*pair)} for draft in splits["test_new"]]
    asked = [draft for draft in splits["test_new"] if draft.positives]
    assert sum(bool(found) for found in fresh) >= 0.95 * len(asked)
    overlap = set(chain.from_iterable(fresh)) & seen
    assert all({EVERYONE[name].kind for name in pair} == {"club", "event"} for pair in overlap)
    assert len(overlap) <= 8


def test_the_same_numbers_give_the_same_drafts() -> None:
    assert list(drafts_of("valid", 100, 7)) == list(drafts_of("valid", 100, 7))
    assert list(drafts_of("valid", 100, 7)) != list(drafts_of("valid", 100, 8))
