"""Rewards: gold traces earn all of them, nothing that only looks like reasoning earns more than an honest mistake."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from more_r1.formats.oracle import OracleFact, read_oracle
from more_r1.reasoning.trace import Trace, parse_trace
from more_r1.schema import Schema
from more_r1.training.recipe import Recipe, RecipeError, load_recipe
from more_r1.training.rewards import NAMES, Reward, RewardWeights, is_consistent, own_length, rewards, total

SCHEMA = Schema.more()
LABEL = "/per/org/member_of"
# The shortest gold trace of the embedded benchmark has 351 characters of its own (21,713 traces).
LONG_ENOUGH = 340
PAPER = RewardWeights(length_characters=LONG_ENOUGH)
ALL = RewardWeights(consistency=1, length_characters=LONG_ENOUGH)
SHORT = Trace(("A man.", "It is.", "None.", "A (per) and a (org).", f"{LABEL} or none.", "So."), LABEL)


def values(completions: list[str], labels: list[str], weights: RewardWeights = ALL) -> dict[str, list[float]]:
    return {name: f(completions, label=labels) for name, f in rewards(SCHEMA, "steps", weights).items()}


def earned(completion: str, label: str, weights: RewardWeights = PAPER) -> float:
    return total(values([completion], [label], weights), weights)[0]


@pytest.fixture(scope="module")
def facts(benchmark_dir: Path) -> list[OracleFact]:
    return [fact for split in ("train", "valid", "test") for fact in read_oracle(benchmark_dir / "oracle" / f"{split}.jsonl")]


@dataclass(frozen=True)
class Case:
    """A pair's gold label and trace, and the gold trace of another label of the same document: an honest mistake."""

    label: str
    right: str
    wrong: str


@pytest.fixture(scope="module")
def cases(facts: list[OracleFact]) -> list[Case]:
    found = [
        Case(a.label, a.completion, b.completion)
        for a, b in pairwise(facts)
        if a.img_id == b.img_id and a.label != b.label and a.label and a.completion and b.completion
    ]
    assert len(found) > 20
    return found


def test_every_gold_trace_earns_every_reward(facts: list[OracleFact]) -> None:
    completions = [fact.completion or "" for fact in facts]
    labels = [fact.label or "" for fact in facts]
    assert len(facts) > 80 and len(set(labels)) > 5
    assert values(completions, labels) == {name: [1.0] * len(facts) for name in NAMES}


def test_an_honest_mistake_earns_all_but_the_answer(cases: list[Case]) -> None:
    found = values([case.wrong for case in cases], [case.label for case in cases])
    assert found == {name: [float(name != "answer")] * len(cases) for name in NAMES}


# A trace of plain English as a large model writes it: 1,338 characters, entities and phrases named again and again.
ENGLISH = (
    "<think> Step 1: The whole image shows a basketball game in a crowded arena, with several players near the basket and a "
    "referee in the background. The cropped image shows one of the players, a tall man in a green jersey with the number 0, "
    "who is driving toward the basket. The object is clear and is the focus of the whole image. Step 2: The headline is about "
    "the Boston Celtics beating the Miami Heat in Game 7. The image shows a basketball game between a team in green and a team "
    "in black, so the image is relevant to the headline. Step 3: The object is a player in a Celtics jersey, so the object "
    'corresponds to the entity "Boston Celtics" as one of its players. The marked entity is "Miami Heat", which is the '
    "opponent of the Boston Celtics in the headline. Therefore, the object stands against the marked entity. Step 4: The "
    'object is a person (per), and the marked entity "Miami Heat" is an organisation (org), since it is a basketball team. '
    "Step 5: For the types per and org, the possible labels are /per/org/opposed_to, /per/org/leader_of, /per/org/member_of, "
    "and none. Step 6: The object is a player of the Boston Celtics, who play against the Miami Heat, so the object is not a "
    "member or a leader "
    "of the Miami Heat but is opposed to it. Therefore, the relation is /per/org/opposed_to. </think>"
    "<answer>/per/org/opposed_to</answer>"
)


def test_plain_english_keeps_most_of_its_length_and_earns_at_the_default() -> None:
    assert 0.8 * len(ENGLISH) < own_length(ENGLISH, SCHEMA) < len(ENGLISH)
    weights = RewardWeights(consistency=1)
    assert earned(ENGLISH, "/per/org/opposed_to", weights) == 4 and earned(ENGLISH, "none", weights) == 3


def fancy(text: str, first: str) -> str:
    """The letters of a text in another alphabet of Unicode, by that alphabet's letter for `a`."""
    return "".join(chr(ord(first) + ord(c) - ord("a")) if "a" <= c <= "z" else c for c in text)


def sprinkled(text: str, what: str, copies: int) -> str:
    """Copies of a text with something put in at random places, other ones each time."""
    random = Random(0)
    return " ".join("".join(c + (what if random.random() < 0.3 else "") for c in text) for _ in range(copies))


SENTENCE = "the object in the crop is a person and the marked entity is a club. "
SHUFFLED = " ".join(" ".join(Random(i).sample(SCHEMA.labels, len(SCHEMA.labels))) for i in range(8))
PADDING = {
    "a sentence again and again": SENTENCE * 40,
    "a sentence numbered": " ".join(f"I look at it for the {i}th time." for i in range(80)),
    "a word again and again": "very " * 500,
    "one long word": "a" * 3000,
    "two words in turn": "yes no " * 400,
    "junk words in turn": "lorem ipsum dolor sit amet consectetur " * 60,
    "the thoughts again": " ".join(SHORT.steps) * 50,
    "the label list again and again": " ".join(SCHEMA.labels) * 8,
    "the label list shuffled": SHUFFLED,
    "the label list in capitals": SHUFFLED.upper(),
    "numbers": " ".join(map(str, range(800))),
    "punctuation": "... !!! ??? --- " * 200,
    "spaces": " " * 3000,
    "line ends": "\n" * 3000,
    "spaces of all kinds": " \t\n\xa0\u2003\u3000" * 500,
    "characters of no width": "\u200b\u200c\u200d\ufeff\u2060" * 600,
    "a letter and accents": "a" + "\u0301\u0316" * 1500,
    "a sentence, capitals changing": " ".join(
        "".join(Random(f"{i} {j}").choice((c, c.upper())) for j, c in enumerate(SENTENCE)) for i in range(40)
    ),
    "a sentence, spaces put in": sprinkled(SENTENCE, " ", 40),
    "a sentence, stops put in": sprinkled(SENTENCE, ".", 40),
    "a sentence, underscores put in": sprinkled(SENTENCE, "_", 40),
    "a sentence, no-width characters put in": sprinkled(SENTENCE, "\u200b", 40),
    "a sentence, control codes put in": sprinkled(SENTENCE, "\x00", 40),
    "a sentence, accents put in": sprinkled(SENTENCE, "\u0301", 40),
    "a sentence, letters with accents": unicodedata.normalize("NFC", sprinkled(SENTENCE, "\u0301", 40)),
    "a sentence in fancy letters": "".join(
        fancy(SENTENCE, c) for c in "aA\uff41\uff21\U0001d41a\U0001d4ea\U0001d51e\u24d0" * 5
    ),
}


@pytest.mark.parametrize("padding", PADDING.values(), ids=PADDING)
def test_padding_with_the_right_answer_earns_no_more_than_an_honest_mistake(padding: str, cases: list[Case]) -> None:
    steps = list(SHORT.steps)
    steps[2] += " " + padding
    padded = Trace(tuple(steps), LABEL).render()
    case = next(case for case in cases if own_length(case.wrong, SCHEMA) > LONG_ENOUGH)
    assert len(padded) > 1500
    assert values([padded], [LABEL]) == {"format": [1], "length": [0], "answer": [1], "consistency": [1]}
    assert earned(padded, LABEL) <= earned(case.wrong, case.label) == 2
    # Without the check it would pay: more, with a guess, than the honest mistake.
    if padding.strip():
        assert earned(padded, LABEL, PAPER.model_copy(update={"plain_length": True})) == 3


def thoughts(completion: str) -> str:
    return completion.split("<answer>")[0]


def answer(label: str) -> str:
    return f"<answer>{label}</answer>"


EVERY_ANSWER = "".join(map(answer, SCHEMA.labels))
LISTED = Trace(tuple([" ".join(SCHEMA.labels)] * 6), "none").render()
NONSENSE = " ".join("".join(Random(i).choices("abcdefghijklmnopqrstuvwxyz", k=6)) for i in range(400))
# What each makes of a case; all but the last two know the right label.
FORMS: dict[str, Callable[[Case], str]] = {
    "the label list instead of thoughts": lambda case: thoughts(LISTED) + answer(case.label),
    "the label list instead of everything": lambda case: " ".join(SCHEMA.labels) * 5,
    "the answer before the thoughts": lambda case: answer(case.label) + thoughts(case.right),
    "the answer before and after": lambda case: answer(case.label) + case.right,
    "the answer within the thoughts": lambda case: case.right.replace("Step 6:", f"Step 6: {answer(case.label)}"),
    "every label answered": lambda case: thoughts(case.right) + EVERY_ANSWER,
    "every label in one answer": lambda case: thoughts(case.right) + answer(" ".join(SCHEMA.labels)),
    "two answers in one": lambda case: thoughts(case.right) + answer(f"{case.label} none"),
    "an answer within the answer": lambda case: thoughts(case.right) + answer(answer(case.label)),
    "no thoughts": lambda case: answer(case.label),
    "no steps": lambda case: f"<think>{SENTENCE * 20}</think>{answer(case.label)}",
    "empty steps": lambda case: re.sub(r"Step (\d): .*?(?= Step|</think>)", r"Step \1: ", case.right),
    "steps of a character of no width": lambda case: Trace(("\u200b",) * 6, case.label).render(),
    "thoughts within thoughts": lambda case: f"<think>{case.right.replace('</think>', '</think></think>')}",
    "the whole twice": lambda case: case.right * 2,
    "tags in capitals": lambda case: re.sub(r"</?\w+>", lambda tag: tag.group().upper(), case.right),
    "text before": lambda case: "Let me see. " + case.right,
    "text after the end": lambda case: case.right + " " + NONSENSE,
    "short thoughts and text after the end": lambda case: Trace(SHORT.steps, case.label).render() + NONSENSE,
    "a label that is none": lambda case: thoughts(case.right) + answer("/per/org/friend_of"),
    "long nonsense in the answer": lambda case: thoughts(case.right) + answer(NONSENSE),
    "nonsense and a wrong answer": lambda case: f"<think> Step 1: {NONSENSE} {case.wrong.split('Step 1:')[1]}",
    "a mistake padded": lambda case: case.wrong.replace("Step 2:", f"{SENTENCE * 40} Step 2:"),
}


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_no_form_earns_more_than_an_honest_mistake(make: Callable[[Case], str], cases: list[Case]) -> None:
    for case in cases:
        assert earned(make(case), case.label) <= earned(case.wrong, case.label) == 2


@pytest.mark.parametrize("name", [name for name in FORMS if "mistake" not in name and "wrong" not in name])
def test_a_broken_form_has_no_format_and_no_answer(name: str, cases: list[Case]) -> None:
    kept = {"the label list instead of thoughts", "steps of a character of no width"}
    found = values([FORMS[name](case) for case in cases], [case.label for case in cases])
    # These two keep the form in letter: a right answer without reasoning, which the length reward does not crown.
    assert set(found["format"]) == set(found["answer"]) == {float(name in kept)}
    if name in kept or name.startswith("short"):
        assert set(found["length"]) == {0.0}


def test_length_counts_up_to_the_answer_and_is_for_more_than_the_setting() -> None:
    own, plain = own_length(ENGLISH, SCHEMA), len(ENGLISH)
    for text in (ENGLISH, f"\n {ENGLISH}  \n", ENGLISH + NONSENSE):
        for length, is_plain in ((own, False), (plain, True)):
            for most, expected in ((length - 1, 1.0), (length, 0.0)):
                weights = RewardWeights(length_characters=most, plain_length=is_plain)
                assert rewards(SCHEMA, "steps", weights)["length"]([text]) == [expected]
    cut_off = thoughts(ENGLISH)[:-20]
    assert values([cut_off], ["none"]) == {"format": [0], "length": [1], "answer": [0], "consistency": [0]}


@pytest.mark.parametrize(
    ("step4", "step5", "answer", "consistent"),
    [
        ("A (per) and a (org).", f"{LABEL}, none", LABEL, True),
        ("A (per) and a (org).", f"{LABEL}, /per/org/leader_of, none", "none", True),
        ("A (per) and a (org).", LABEL, LABEL, True),
        ("A (loc) and a (org).", "only none", "none", True),
        ("A (org) and a (per).", f"{LABEL}, none", LABEL, False),
        ("A (loc) and a (org).", f"{LABEL}, none", "none", False),
        ("A (per) and a club.", f"{LABEL}, none", LABEL, False),
        ("A (per) and a (org).", "/per/org/leader_of, none", LABEL, False),
        ("A (per) and a (org).", f"{LABEL}, /per/per/partner, none", LABEL, False),
        ("A (per) and a (org).", f"{LABEL}, /per/org/friend_of, none", LABEL, False),
        ("A (per) and a (org).", LABEL, "none", False),
        ("A (per) and a (org).", "all of them", "none", False),
        ("A (per) and a (org).", " ".join(SCHEMA.labels), LABEL, False),
    ],
)
def test_consistency_holds_types_candidates_and_answer_together(step4: str, step5: str, answer: str, consistent: bool) -> None:
    trace = Trace((*SHORT.steps[:3], step4, step5, "So."), answer)
    assert parse_trace(trace.render(), SCHEMA) == trace
    assert is_consistent(trace, SCHEMA) is consistent
    assert values([trace.render()], ["none"])["consistency"] == [float(consistent)]


def test_they_are_called_as_trl_calls_them(facts: list[OracleFact]) -> None:
    """GRPOTrainer._calculate_rewards of trl 1.16: all by keyword; texts, or messages where prompts are conversations."""
    completions = [fact.completion or "" for fact in facts[:6]] + ["", "none", ENGLISH]
    labels = [fact.label for fact in facts[:5]] + ["none"] * 4
    functions = rewards(SCHEMA, "steps", ALL)
    assert tuple(functions) == tuple(function.__name__ for function in functions.values()) == NAMES
    messages = [[{"role": "assistant", "content": text}] for text in completions]
    columns = {"label": labels, "completion_ids": [[1]] * 9, "image": [None] * 9, "trainer_state": object(), "log_extra": print}
    for function in functions.values():
        as_texts = function(prompts=["?"] * 9, completions=completions, **columns)
        as_messages = function(prompts=[[{"role": "user", "content": "?"}]] * 9, completions=messages, **columns)
        assert as_texts == as_messages and len(as_texts) == 9 and set(as_texts) == {0.0, 1.0}
        assert all(type(value) is float for value in as_texts)
        assert function(prompts=[], completions=[], label=[]) == []


def test_the_answer_needs_its_column_and_as_many_labels_as_completions() -> None:
    reward = rewards(SCHEMA, "steps", PAPER)["answer"]
    with pytest.raises(ValueError, match="2 completions and 1 entries in label"):
        reward([ENGLISH, ENGLISH], label=["none"])
    with pytest.raises(ValueError, match="1 completions and 2 entries in label"):
        reward([ENGLISH], label=["none", "none"])
    with pytest.raises(TypeError, match="label"):
        reward([ENGLISH])


def test_a_pair_without_gold_label_rewards_no_broken_form() -> None:
    assert rewards(SCHEMA, "steps", PAPER)["answer"](["broken", ENGLISH], label=[None, None]) == [0, 0]


def test_labels_are_those_of_the_schema() -> None:
    own = Schema.parse("relations:\n  /org/org/rival: competes\n  /org/org/rivals: compete\n")
    text = Trace(("one", "two", "three", "(org) (org)", "/org/org/rival none", "six"), "/org/org/rival").render()
    functions = rewards(own, "steps", RewardWeights(consistency=1))
    assert [f([text], label=["/org/org/rival"]) for f in functions.values()] == [[1], [0], [1], [1]]
    assert own_length("/org/org/rival /org/org/rivals " * 9, own) == 0 < own_length("/org/org/rival", SCHEMA)
    assert own_length("one two", Schema(relations=())) == 7


def test_answers_without_reasoning_have_a_form_and_an_answer() -> None:
    functions = rewards(SCHEMA, "none", RewardWeights(length=0))
    assert list(functions) == ["format", "answer"]
    completions = ["<answer>none</answer>", f"<answer>{LABEL}</answer>", "none", ENGLISH]
    assert functions["format"](completions) == [1, 1, 0, 0]
    assert functions["answer"](completions, label=["none"] * 4) == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("weights", "mend"), [(RewardWeights(), "set length=0"), (RewardWeights(length=0, consistency=0.5), "set consistency=0")]
)
def test_reasoning_is_not_rewarded_where_there_is_none(weights: RewardWeights, mend: str) -> None:
    with pytest.raises(RecipeError, match=mend):
        rewards(SCHEMA, "none", weights)


class Outer(Recipe):
    rewards: RewardWeights = RewardWeights()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rewards.formt=1"], "unknown key rewards.formt; did you mean rewards.format?"),
        (["rewards.answer=-1"], "rewards.answer: Input should be greater than or equal to 0"),
        (["rewards.answer=.nan"], "rewards.answer: Input should be"),
        (["rewards.answer=.inf"], "rewards.answer: Input should be a finite number"),
        (["rewards.length_characters=0"], "rewards.length_characters: Input should be greater than or equal to 1"),
        (
            ["rewards.format=0", "rewards.length=0", "rewards.answer=0"],
            "rewards: all weights are 0; give one of format, length, answer, consistency a weight above 0",
        ),
    ],
)
def test_mistakes_in_a_recipe_cost_one_clear_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    file = tmp_path / "grpo.yaml"
    file.write_text("rewards: {format: 1}", encoding="utf-8")
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_recipe(file, overrides, Outer)
    assert load_recipe(file, ["rewards.format=0", "rewards.answer=2"], Outer).rewards == RewardWeights(format=0, answer=2)


def test_the_defaults_are_the_papers_reward() -> None:
    weights = RewardWeights()
    assert [getattr(weights, name) for name in NAMES] == [1, 1, 1, 0] and weights.length_characters == 1024
    assert list(rewards(SCHEMA, "steps", weights)) == ["format", "length", "answer"]


portions = st.floats(0, 4)
bits = st.sampled_from((0.0, 1.0))


@given(st.tuples(portions, portions, portions, portions).filter(any), st.lists(st.tuples(bits, bits, bits, bits), max_size=5))
def test_totals_are_weighted_sums_whatever_the_order(portion: tuple[float, ...], rows: list[tuple[float, ...]]) -> None:
    weights = RewardWeights.model_validate(dict(zip(NAMES, portion, strict=True)))
    columns = {name: [row[i] for row in rows] for i, name in enumerate(NAMES) if portion[i]}
    expected = [sum(p * value for p, value in zip(portion, row, strict=True)) for row in rows]
    assert total(columns, weights) == pytest.approx(expected)
    assert total(dict(reversed(columns.items())), weights) == total(columns, weights)


def test_totals_of_what_does_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"different lengths: \{'format': 1, 'length': 2, 'answer': 1\}"):
        total({"format": [1], "length": [1, 0], "answer": [0]}, PAPER)
    with pytest.raises(ValueError, match="rewards format, answer; expected format, length, answer"):
        total({"format": [1], "answer": [0]}, PAPER)
    with pytest.raises(ValueError, match="rewards format, length, answer, style; expected"):
        total({"format": [1], "length": [1], "answer": [0], "style": [1]}, PAPER)


pieces = st.sampled_from(
    ("<think>", "</think>", "<answer>", "</answer>", " Step 1: ", "Step 6:", "(per)", LABEL, "none", "é", "\u200b")
)
texts = st.one_of(st.text(max_size=300), st.lists(st.one_of(pieces, st.text(max_size=9))).map("".join))


@given(texts)
def test_any_text_earns_nought_or_one_and_is_no_longer_than_it_is(text: str) -> None:
    assert all(value in ([0.0], [1.0]) for value in values([text], ["none"]).values())
    assert 0 <= own_length(text, SCHEMA) <= len(text)


@given(texts.filter(lambda text: "</answer>" not in text), st.integers(2, 20))
def test_repeating_any_text_adds_no_more_than_a_passage(text: str, times: int) -> None:
    # Where a copy meets the next, at most 15 letters end a passage that is new, each with a space at most.
    assert own_length(" ".join([text] * times), SCHEMA) <= own_length(text, SCHEMA) + 30


LARGE = {
    "letters": "abcdefghij klmno" * 12_500,
    "one ligature of 18 letters": "\ufdfa" * 200_000,
    "accents of two kinds": "a" + "\u0300\u0316" * 100_000,
    "all kinds of characters": "".join(chr(32 + i % 50_000) for i in range(200_000)),
    "steps": "<think>" + "Step 1: a " * 20_000,
    "a step number": f"<think>Step {'1' * 200_000}:</think><answer>none</answer>",
    "beginnings of labels": "/per/org/" * 22_000,
    "candidates": Trace((*SHORT.steps[:4], "/a" * 100_000, "So."), "none").render(),
    "types": Trace((*SHORT.steps[:3], "(per" * 50_000, *SHORT.steps[4:]), "none").render(),
    "tags": "<think><answer></answer></think>" * 6_000,
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_a_text_of_200_000_characters_is_rewarded_in_half_a_second(text: str) -> None:
    functions: dict[str, Reward] = rewards(SCHEMA, "steps", ALL)

    def seconds() -> float:
        start = time.process_time()
        assert {value for f in functions.values() for value in f([text], label=["none"])} <= {0.0, 1.0}
        return time.process_time() - start

    assert any(seconds() < 0.5 for _ in range(3))  # on a busy machine one try may be slow
