"""The filter of traces: hand-made ones with the verdict of each, then the oracle's, as they are and with one thing changed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from more_r1.experts.betrayal import betrayal
from more_r1.experts.filter import Bounds, judge_trace
from more_r1.reasoning.trace import Trace, parse_trace
from more_r1.schema import NONE, TYPES, Schema
from more_r1.synthetic.drafts import make_split
from more_r1.synthetic.oracle import explain
from more_r1.synthetic.world import EVERYONE

SCHEMA, BOUNDS = Schema.more(), Bounds()
MEMBER, LEADER, PARTNER = "/per/org/member_of", "/per/org/leader_of", "/per/per/partner"
STEPS = (
    "The picture shows three people on a pitch under floodlights; the crop is the man on the left, large, in a teal shirt.",
    "The headline reports that Gulls won the final, and the players celebrate in teal, so the picture illustrates it.",
    "The man wears the kit of Gulls with the number seven, so he belongs to the club that the headline names.",
    "The man in the crop is a person (per), and Gulls is a club, an organisation (org).",
    "A person and an organisation leave /per/org/opposed_to, /per/org/leader_of, /per/org/member_of and none.",
    "He plays for Gulls; nothing marks him as its head, nor as an opponent. So he is a member of it.",
)
GOOD = Trace(STEPS, MEMBER).render()
SHORT = Trace(("A man.", "Yes.", "Gulls.", "(per) and (org).", STEPS[4], "So."), MEMBER).render()
UNRELATED = Trace(
    (
        "The whole picture is a harbour at dusk; the crop is a lighthouse far behind the boats, small but sharp.",
        "The headline is about the Harbour Prize, which is handed over on the quay, so the picture fits it loosely.",
        "The lighthouse is not named in the headline, and it has no part in the ceremony.",
        "A lighthouse is a place (loc), while Harbour Prize is an award (misc).",
        "No label joins these types but none.",
        "Hence nothing ties the building to the award.",
    ),
    NONE,
).render()


def step(number: int, text: str, completion: str = GOOD) -> str:
    """The trace with another text in one step."""
    trace = parse_trace(completion, SCHEMA)
    return replace(trace, steps=(*trace.steps[: number - 1], text, *trace.steps[number:])).render()


def add(number: int, text: str) -> str:
    """The trace with more text at the end of one step."""
    return step(number, f"{STEPS[number - 1]} {text}")


def numbered(*numbers: int | str) -> str:
    """The steps under other numbers."""
    named = " ".join(f"Step {number}: {text}" for number, text in zip(numbers, STEPS, strict=False))
    return f"<think> {named} </think><answer>{MEMBER}</answer>"


HAND_MADE = [
    # accepted
    ("as it should be", GOOD, "accepted"),
    ("line ends between the steps", GOOD.replace(" Step", "\nStep"), "accepted"),
    ("space around", f"\n  {GOOD}\n", "accepted"),
    ("candidates in another order", step(5, f"This leaves none, {MEMBER}, {LEADER} and /per/org/opposed_to."), "accepted"),
    ("a bare label decides", step(6, f"{MEMBER}."), "accepted"),
    ("given the headline", step(2, f"Given the headline, it is relevant. {STEPS[1]}"), "accepted"),
    ("as given in the headline", add(3, "That is the name as given in the headline."), "accepted"),
    ("a prize that was given", add(2, "He has given a speech and was given the award."), "accepted"),
    ("among the given labels", add(5, "These are all of the given labels that fit."), "accepted"),
    ("no relation is given", add(3, "No other relation is given between them."), "accepted"),
    ("a label on a bottle", add(1, "According to the label on the bottle it is water."), "accepted"),
    ("gold is a colour", add(1, "He holds a gold trophy, and a gold medal hangs on the ground."), "accepted"),
    ("the correct relation, found", add(6, f"The correct relation is {MEMBER}."), "accepted"),
    ("what is known from the kit", add(4, "The object type is known from the kit."), "accepted"),
    ("a conclusion from step 3", step(6, "The man belongs to the club that the headline names, and as a member."), "accepted"),
    ("as told to reporters", add(2, "He is happy, as told to reporters."), "accepted"),
    ("none in prose", step(6, "None of the others fits, so he is a member."), "accepted"),
    ("a label that is weighed", step(6, f"{LEADER} asks for an armband, so it is {MEMBER}."), "accepted"),
    ("the same types once more", add(4, "So they are (per) and (org)."), "accepted"),
    ("labels in bold type", step(5, STEPS[4].replace(MEMBER, f"**{MEMBER}**")), "accepted"),
    # form
    ("nothing", "", "form"),
    ("the answer alone", f"<answer>{MEMBER}</answer>", "form"),
    ("no end", GOOD.removesuffix("</answer>"), "form"),
    ("text before", "Sure! " + GOOD, "form"),
    ("text after", GOOD + " I hope this helps.", "form"),
    ("in a fence", f"```\n{GOOD}\n```", "form"),
    ("two answers", f"{GOOD}<answer>none</answer>", "form"),
    ("an answer that is no label", GOOD.replace(f"<answer>{MEMBER}", "<answer>/per/org/plays_for"), "form"),
    ("an answer in look-alikes", GOOD.replace(f"<answer>{MEMBER}", f"<answer>{MEMBER.replace('o', 'о')}"), "form"),
    ("an empty step", numbered(1, 2, 3, 4, 5, 6).replace(STEPS[2], ""), "form"),
    ("text before step 1", GOOD.replace("<think>", "<think> Let me see."), "form"),
    ("steps under other names", GOOD.replace("Step ", "Part "), "form"),
    ("out of order and no answer", numbered(2, 1, 3, 4, 5, 6).replace(MEMBER, "yes"), "form"),
    # order
    ("two steps swapped", numbered(1, 3, 2, 4, 5, 6), "order"),
    ("the last step missing", numbered(1, 2, 3, 4, 5), "order"),
    ("the first step missing", numbered(2, 3, 4, 5, 6), "order"),
    ("a number twice", numbered(1, 2, 2, 4, 5, 6), "order"),
    ("a seventh step", GOOD.replace(" </think>", " Step 7: Done. </think>"), "order"),
    ("numbered from nought", numbered(0, 1, 2, 3, 4, 5), "order"),
    ("a number of 5000 digits", numbered(1, 2, 3, 4, 5, "6" * 5000), "order"),
    # answer
    ("another label", GOOD.replace(f"<answer>{MEMBER}", f"<answer>{LEADER}"), "answer"),
    ("none", GOOD.replace(f"<answer>{MEMBER}", "<answer>none"), "answer"),
    # types
    ("types without brackets", step(4, "The man is a person and Gulls is an organisation."), "types"),
    ("one type", step(4, "The man is a person (per), Gulls is an organisation."), "types"),
    ("a third type", add(4, "Or is Gulls a place (loc)?"), "types"),
    ("types exchanged", step(4, "Gulls is an organisation (org), and the man is a person (per)."), "types"),
    ("the object's type wrong", step(4, "The man is a mascot (misc), and Gulls is an organisation (org)."), "types"),
    ("the entity's type wrong", step(4, "The man is a person (per), and Gulls is a place (loc)."), "types"),
    ("a type in wide letters", step(4, "The man is a person (ｐｅｒ), and Gulls is an organisation (org)."), "types"),
    # candidates
    ("the gold label dropped", step(5, "This leaves /per/org/opposed_to, /per/org/leader_of and none."), "candidates"),
    ("another label dropped", step(5, "This leaves /per/org/leader_of, /per/org/member_of and none."), "candidates"),
    ("none dropped", step(5, "This leaves /per/org/opposed_to, /per/org/leader_of, /per/org/member_of."), "candidates"),
    ("a label of other types", step(5, f"{STEPS[4]} Perhaps {PARTNER}, too."), "candidates"),
    ("a label that does not exist", step(5, f"{STEPS[4]} Perhaps /per/org/plays_for, too."), "candidates"),
    ("no list", step(5, "A person and an organisation leave only a few labels."), "candidates"),
    ("a label that goes on", step(5, STEPS[4].replace("opposed_to", "opposed_toX")), "candidates"),
    ("a label with a tail", step(5, STEPS[4].replace("opposed_to", "opposed_to-ish")), "candidates"),
    ("a label in a path", step(5, STEPS[4].replace(MEMBER, f"x{MEMBER}")), "candidates"),
    ("a label below another", step(5, STEPS[4].replace(MEMBER, f"{MEMBER}/of")), "candidates"),
    # conclusion
    ("another label decides", step(6, f"He leads it: {LEADER}."), "conclusion"),
    ("a label that was excluded decides", step(6, f"He is {MEMBER}, or {PARTNER}."), "conclusion"),
    ("no label decides", step(6, "Nothing speaks for it, so the answer is none."), "conclusion"),
    ("an unknown label decides", step(6, "He plays there: /per/org/plays_for."), "conclusion"),
    # betrayal
    ("as given", add(6, "As given, the relation holds."), "betrayal"),
    ("the gold answer", add(6, "This is the gold answer."), "betrayal"),
    ("as instructed", step(6, f"As instructed, I take the second. {STEPS[5]}"), "betrayal"),
    ("the provided label", add(3, "The provided label points to a player."), "betrayal"),
    ("capitals", add(6, "THIS MATCHES THE GOLD LABEL."), "betrayal"),
    ("over two lines", add(6, "It is the ground\ntruth."), "betrayal"),
    ("letter by letter", add(6, "It is the g o l d  a n s w e r."), "betrayal"),
    ("in look-alikes", add(6, "It is the gоld аnswеr."), "betrayal"),
    ("in wide letters", add(6, "It is the ｇｏｌｄ ａｎｓｗｅｒ."), "betrayal"),
    ("with invisible letters", add(6, "It is the g\u200bold ans\u00adwer."), "betrayal"),
    ("with accents", add(6, "It is the gόld ánswér."), "betrayal"),
    ("before a new sentence", add(3, "The relation is provided. In the headline he is at the club."), "betrayal"),
    ("told so", add(3, "We are told that the relation is one of membership."), "betrayal"),
    ("as if it did not know", add(1, "I write as if I did not know it."), "betrayal"),
    ("asked to conclude", add(6, "I was asked to conclude with that."), "betrayal"),
    ("the given types", step(4, "By the given types he is a person (per), and Gulls is an organisation (org)."), "betrayal"),
    # length
    ("too short", SHORT, "length"),
    ("padded with one word", step(1, "well " * 100, SHORT), "length"),
    ("too long", add(1, " ".join(f"There are {number} people." for number in range(300))), "length"),
    # repetition
    ("a step twice", step(3, STEPS[1]), "repetition"),
    ("a step twice, in capitals", step(3, STEPS[1].upper()), "repetition"),
    ("a step twice, one word changed", step(3, STEPS[1].replace("celebrate", "rejoice")), "repetition"),
    ("a step twice, other marks", step(3, STEPS[1].replace(",", " -").replace(" ", "  ")), "repetition"),
    ("a step twice over", step(3, f"{STEPS[1]} {STEPS[1]}"), "repetition"),
    ("a part of an earlier step", step(3, "The players celebrate in teal, so the picture illustrates it."), "repetition"),
    ("one word twice", step(3, "Gulls.", step(2, "Gulls!")), "repetition"),
]  # fmt: skip


@pytest.mark.parametrize(("completion", "verdict"), [case[1:] for case in HAND_MADE], ids=[case[0] for case in HAND_MADE])
def test_hand_made(completion: str, verdict: str) -> None:
    found = judge_trace(completion, MEMBER, ("per", "org"), SCHEMA, BOUNDS)
    assert found.name == verdict, found.reason
    assert found.accepted == (verdict == "accepted") == (found.reason == "")
    assert len(found.reason) < 200 and "\n" not in found.reason


@pytest.mark.parametrize(
    ("types", "verdict"),
    [
        ((None, None), "accepted"),
        (("loc", None), "accepted"),
        (("loc", "misc"), "accepted"),
        (("misc", None), "types"),
        (("loc", "per"), "types"),
    ],
)
def test_types_of_a_pair_without_relation_are_judged_as_far_as_they_are_known(
    types: tuple[str | None, str | None], verdict: str
) -> None:
    assert judge_trace(UNRELATED, NONE, types, SCHEMA, BOUNDS).name == verdict


def test_the_label_knows_the_types_better() -> None:
    assert judge_trace(GOOD, MEMBER, (None, "loc"), SCHEMA, BOUNDS).accepted


def test_a_label_that_the_types_exclude_is_not_accepted_where_they_leave_none() -> None:
    listed = step(5, "No label joins these types but none; /loc/loc/contain is not for them.", UNRELATED)
    assert judge_trace(listed, NONE, (None, None), SCHEMA, BOUNDS).name == "candidates"


def test_an_answer_of_none_may_dismiss_labels() -> None:
    typed = step(5, STEPS[4], step(4, "A man (per) and a club (org).", UNRELATED))
    listed = step(6, f"{MEMBER} is not shown: the relation is none.", typed)
    assert judge_trace(listed, NONE, (None, None), SCHEMA, BOUNDS).name == "accepted"
    other = step(6, f"{PARTNER} is not shown.", listed)
    assert judge_trace(other, NONE, (None, None), SCHEMA, BOUNDS).name == "conclusion"


def test_a_reason_does_not_tell_what_is_right() -> None:
    """It is told to the expert, and to a model that is not to be shown the gold."""
    wrong = (
        judge_trace(GOOD, LEADER, ("per", "org"), SCHEMA, BOUNDS),
        judge_trace(GOOD, "/loc/loc/contain", (None, None), SCHEMA, BOUNDS),
    )
    assert [verdict.name for verdict in wrong] == ["answer", "answer"]
    assert LEADER not in wrong[0].reason and "contain" not in wrong[1].reason


def test_bounds() -> None:
    assert judge_trace(GOOD, MEMBER, (None, None), SCHEMA, Bounds(least=0, most=len(GOOD))).accepted
    assert judge_trace(GOOD, MEMBER, (None, None), SCHEMA, Bounds(least=0, most=len(GOOD) - 1)).name == "length"
    assert judge_trace(GOOD, MEMBER, (None, None), SCHEMA, Bounds(least=len(GOOD))).name == "length"
    with pytest.raises(ValidationError, match="least=9 is more than most=5"):
        Bounds(least=9, most=5)


BETRAYALS = """
the answer is given as none; the relation is already provided; given the label, it follows; based on the provided answer;
consistent with the correct label; to explain the correct relation; as I was told; the expected answer; a reference answer;
the hidden label; the annotation says so; the annotators chose it; the pair is labelled as that; the dataset says so;
according to the dataset; as required, it is none; as told, it is none; the prompt tells us; per the instructions;
I pretend not to know; as though I didn't know; without revealing the answer; rationalising it; working backwards from it;
I must conclude with none; the specified label; the object type is given as person; the answer key;
the label that I was given; we already know the answer; the pre-given label; a pre-defined answer; I was told the answer;
according to the label, he leads; the known answer
"""  # fmt: skip
INNOCENT = """
Given this, none is right; given that he wears the kit; the given label set; the provided label list; the given entity is Gulls;
the answer must be none; this fits the label; the label requires a person; there is no known relationship between the two;
the film as directed by Nolan; the relation is stated in the headline; matches the right side of the picture;
children pretend to be soldiers; he poses without revealing his face; the game must end in a draw; the instructions on the box;
the ground is green; an annotated map; the target entity; a goldsmith; expected to win; a reference to the club; he won gold;
the relation is given in the headline; signed by the label; the label says Cola; for the given type pair; as given in step 3;
the headline tells us that; the true owner; has given names to all; this leads to the correct label; so the answer is none
"""


@pytest.mark.parametrize("phrase", [" ".join(phrase.split()) for phrase in BETRAYALS.strip().split(";")])
def test_paraphrases_are_found(phrase: str) -> None:
    assert betrayal(f"So it is said: {phrase}.")


@pytest.mark.parametrize("phrase", [" ".join(phrase.split()) for phrase in INNOCENT.strip().split(";")])
def test_innocent_words_are_let_be(phrase: str) -> None:
    assert betrayal(f"He stands there. {phrase}.") is None


@pytest.mark.parametrize(
    "text", ["the " * 200_000, "a " * 400_000, "/per" * 200_000, "Step 1:" * 100_000, "as given in the " * 50_000]
)
def test_a_long_answer_takes_no_long_time(text: str) -> None:
    """Of a stranger's endpoint may come ten megabytes; a judgement that took the square of that would never end."""
    assert judge_trace(step(1, "so", GOOD).replace("so", text, 1), MEMBER, (None, None), SCHEMA, BOUNDS).name != "accepted"


@cache
def oracle() -> list[tuple[Trace, tuple[str, str]]]:
    """Traces of some hundred pairs of a synthetic split, with the types of each."""
    random = Random(3)
    return [
        (explain(draft.things, thing, mention, draft.story, random), (thing.type, EVERYONE[mention.name].type))
        for draft in make_split(60, 21)
        for thing in draft.things
        for mention in draft.asked
    ]


def judged(trace: Trace, label: str, types: tuple[str | None, str | None]) -> str:
    return judge_trace(trace.render(), label, types, SCHEMA, BOUNDS).name


def test_every_trace_of_the_oracle_passes() -> None:
    assert len(oracle()) > 200 and any(trace.candidates == (NONE,) for trace, _ in oracle())
    for trace, types in oracle():
        assert judged(trace, trace.answer, types) == "accepted", trace.render()
        assert judged(trace, trace.answer, (None, None)) == "accepted"


@given(st.integers(0, 2**32), st.integers(0, 400))
def test_the_oracle_passes_in_any_world(seed: int, place: int) -> None:
    random = Random(seed)
    draft = next(iter(make_split(1, seed)))
    thing, mention = random.choice(draft.things), random.choice(draft.asked)
    trace = explain(draft.things, thing, mention, draft.story, random)
    assert judged(trace, trace.answer, (thing.type, EVERYONE[mention.name].type)) == "accepted"


ORACLE = st.integers(0, 10**6).map(lambda number: oracle()[number % len(oracle())])
PLACES = st.permutations(range(6)).map(lambda order: tuple(sorted(order[:2])))


@given(ORACLE, PLACES)
def test_swapped_steps_are_caught(one: tuple[Trace, tuple[str, str]], places: tuple[int, int]) -> None:
    trace, types = one
    first, second = places
    text = trace.render().replace(f"Step {first + 1}:", "Step x:").replace(f"Step {second + 1}:", f"Step {first + 1}:")
    assert judge_trace(text.replace("Step x:", f"Step {second + 1}:"), trace.answer, types, SCHEMA, BOUNDS).name == "order"
    without = text.replace("Step x:", "")
    assert judge_trace(without, trace.answer, types, SCHEMA, BOUNDS).name == "order"


@given(ORACLE, PLACES)
def test_swapped_texts_are_caught_where_steps_4_and_5_say_what_they_must(
    one: tuple[Trace, tuple[str, str]], places: tuple[int, int]
) -> None:
    trace, types = one
    steps = list(trace.steps)
    first, second = places
    steps[first], steps[second] = steps[second], steps[first]
    verdict = judged(Trace(tuple(steps), trace.answer), trace.answer, types)
    # What steps 1 to 3 and 6 say is in free words, which no pattern can tell apart.
    wanted = "types" if 3 in places else "candidates" if 4 in places else "accepted"
    # Of two types that allow no label, step 5 has only "none" to say, and what is there now may say it, too.
    lucky = wanted == "candidates" and trace.candidates == (NONE,) and "none" in steps[4]
    assert verdict == ("accepted" if lucky else wanted)


@given(ORACLE, st.sampled_from(SCHEMA.labels))
def test_another_answer_is_caught(one: tuple[Trace, tuple[str, str]], label: str) -> None:
    trace, types = one
    if label != trace.answer:
        assert judged(replace(trace, answer=label), trace.answer, types) == "answer"


@given(ORACLE, st.integers(0, 1), st.sampled_from(TYPES))
def test_another_type_is_caught(one: tuple[Trace, tuple[str, str]], which: int, name: str) -> None:
    trace, types = one
    if name == types[which]:
        return
    pieces = trace.steps[3].split(f"({types[which]})")
    place = 0 if which == 0 else len(pieces) - 2
    text = f"({types[which]})".join(pieces[: place + 1]) + f"({name})" + f"({types[which]})".join(pieces[place + 1 :])
    changed = replace(trace, steps=(*trace.steps[:3], text, *trace.steps[4:]))
    assert judged(changed, trace.answer, types) == "types"
    # Where nobody knows the types, step 5 no longer fits; but for two pairs of types that leave the same labels.
    if trace.answer == NONE and changed.types and SCHEMA.candidates(*changed.types) != SCHEMA.candidates(*types):
        assert judged(changed, NONE, (None, None)) == "candidates"


@given(ORACLE, st.integers(0, 20))
def test_a_dropped_or_added_candidate_is_caught(one: tuple[Trace, tuple[str, str]], number: int) -> None:
    trace, types = one
    dropped = trace.candidates[number % len(trace.candidates)]
    step = trace.steps[4].replace(dropped, "")
    assert judged(replace(trace, steps=(*trace.steps[:4], step, trace.steps[5])), trace.answer, types) == "candidates"
    other = [label for label in SCHEMA.labels if label not in trace.candidates][number % 10]
    step = f"{trace.steps[4]} {other}"
    assert judged(replace(trace, steps=(*trace.steps[:4], step, trace.steps[5])), trace.answer, types) == "candidates"


@given(ORACLE, st.integers(0, 5), st.sampled_from(BETRAYALS.strip().split(";")), st.integers(0, 200))
def test_an_inserted_betrayal_is_caught(one: tuple[Trace, tuple[str, str]], number: int, phrase: str, place: int) -> None:
    trace, types = one
    words = trace.steps[number].split()
    place %= len(words) + 1
    step = " ".join([*words[:place], ".", *phrase.split(), ".", *words[place:]])
    changed = replace(trace, steps=(*trace.steps[:number], step, *trace.steps[number + 1 :]))
    assert judged(changed, trace.answer, types) == "betrayal"


@given(ORACLE, st.integers(1, 5), st.integers(0, 4))
def test_a_repeated_step_is_caught(one: tuple[Trace, tuple[str, str]], later: int, earlier: int) -> None:
    trace, types = one
    earlier %= later
    steps = list(trace.steps)
    steps[later] = steps[earlier]
    verdict = judged(Trace(tuple(steps), trace.answer), trace.answer, types)
    # Of two types that allow no label, step 5 has only "none" to say, and other steps may say it, too.
    assert verdict in {3: ("types",), 4: ("candidates", "repetition")}.get(later, ("repetition",))
