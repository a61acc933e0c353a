"""Reading and writing completions: what is written reads back, what breaks the form is named."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from more_r1.reasoning.trace import Trace, TraceError, parse_trace, read_answer
from more_r1.schema import Schema

SCHEMA = Schema.more()
LABEL = "/per/org/member_of"
STEPS = ("one", "two", "three", "a person (per) and a club (org)", f"{LABEL}, /per/org/leader_of, {LABEL} or none", "six")
GOOD = Trace(STEPS, LABEL).render()

answers = st.sampled_from(SCHEMA.labels)
texts = st.text(max_size=40).map(str.strip).filter(lambda text: text and not re.search(r"</?(think|answer)>|\bStep \d+:", text))


@given(st.tuples(*[texts] * 6), answers)
def test_six_steps_read_back(steps: tuple[str, ...], answer: str) -> None:
    trace = Trace(steps, answer)
    completion = trace.render()
    # Two texts may make a heading where they meet; that is a mutation, and tested below.
    assume(len(re.findall(r"\bStep \d+:", completion)) == 6)
    assert parse_trace(completion, SCHEMA) == trace
    assert read_answer(f"  {completion}\n", SCHEMA) == answer


@given(answers)
def test_an_answer_alone_reads_back(answer: str) -> None:
    trace = Trace((), answer)
    assert parse_trace(trace.render(), SCHEMA, "none") == trace
    assert trace.types is None and trace.candidates == ()


def test_types_and_candidates_are_read_from_steps_four_and_five() -> None:
    trace = parse_trace(GOOD, SCHEMA)
    assert trace.types == ("per", "org")
    assert trace.candidates == (LABEL, "/per/org/leader_of", "none")
    assert Trace((*STEPS[:3], "a (per), no more", *STEPS[4:]), LABEL).types is None
    assert Trace((*STEPS[:3], "a (person) and (ORG)", "nonesuch", "x"), LABEL).types is None
    assert Trace((*STEPS[:4], "nonesuch", "x"), LABEL).candidates == ()


@pytest.mark.parametrize(
    ("mutated", "reason"),
    [
        ("", "<think> is there 0 times, not 1"),
        ("none", "<think> is there 0 times"),
        (GOOD.replace("<think>", ""), "<think> is there 0 times"),
        (GOOD.replace("</think>", ""), "</think> is there 0 times"),
        (GOOD.replace("</answer>", ""), "</answer> is there 0 times"),
        (GOOD.replace("<answer>", "<Answer>"), "<answer> is there 0 times"),
        (GOOD + GOOD, "<think> is there 2 times"),
        (GOOD.replace("two", "two <answer>none</answer>"), "<answer> is there 2 times"),
        (GOOD + "<answer>none</answer>", "<answer> is there 2 times"),
        (f"<answer>{LABEL}</answer>" + GOOD.split("<answer>")[0], "out of order"),
        (GOOD.replace("<think>", "</think>", 1).replace(" </think>", " <think>"), "out of order"),
        ("Well: " + GOOD, "text before <think>"),
        (GOOD + " So it is.", "text after </answer>"),
        (GOOD.replace("</think>", "</think> so "), "text between </think> and <answer>"),
        (GOOD.replace("Step 1", "Look. Step 1"), "text before step 1"),
        (GOOD.replace("Step 3:", "Step three:"), "the steps are 1, 2, 4, 5, 6, not 1 to 6"),
        (GOOD.replace("Step 3:", "step 3:"), "the steps are 1, 2, 4, 5, 6, not 1 to 6"),
        (GOOD.replace("three", "Step 2: again"), "the steps are 1, 2, 3, 2, 4, 5, 6, not 1 to 6"),
        (GOOD.replace("Step 2:", "Step 9:").replace("Step 3:", "Step 2:"), "the steps are 1, 9, 2, 4, 5, 6"),
        (GOOD.replace(" </think>", " Step 7: more </think>"), "the steps are 1, 2, 3, 4, 5, 6, 7, not"),
        (GOOD.replace("Step 2:", "Step 02:"), "the steps are 1, 02,"),
        (GOOD.replace("Step 2:", "Step ٢:"), "the steps are 1, ٢,"),
        (f"<think> </think><answer>{LABEL}</answer>", "the steps are missing, not 1 to 6"),
        (GOOD.replace("four", "").replace("three", "  "), "step 3 is empty"),
        (GOOD.replace("Step 6: six", "Step 6:"), "step 6 is empty"),
        (GOOD.replace(f"<answer>{LABEL}", "<answer>"), "the answer '' is no label"),
        (GOOD.replace(f"<answer>{LABEL}", "<answer>/per/org/friend_of"), "'/per/org/friend_of' is no label of the schema"),
        (GOOD.replace(f"<answer>{LABEL}", "<answer>None"), "'None' is no label"),
        (GOOD.replace(f"<answer>{LABEL}", f"<answer>{LABEL} or none"), "is no label"),
    ],
)
def test_a_broken_form_is_rejected_with_its_reason(mutated: str, reason: str) -> None:
    with pytest.raises(TraceError, match=re.escape(reason)):
        parse_trace(mutated, SCHEMA)
    assert read_answer(mutated, SCHEMA) is None


def test_a_step_number_of_thousands_of_digits_is_a_broken_form_like_any_other() -> None:
    with pytest.raises(TraceError, match="the steps are 1, 999") as caught:
        parse_trace(GOOD.replace("Step 2:", f"Step {'9' * 5000}:"), SCHEMA)
    assert len(str(caught.value)) < 200


def test_each_form_refuses_the_other() -> None:
    assert read_answer(GOOD, SCHEMA, "none") is None
    assert read_answer(f"<answer>{LABEL}</answer>", SCHEMA, "steps") is None
    assert read_answer(f"so <answer>{LABEL}</answer>", SCHEMA, "none") is None


def test_labels_are_those_of_the_schema() -> None:
    own = Schema.parse("relations:\n  /org/org/rival: competes\n")
    assert read_answer("<answer>/org/org/rival</answer>", own, "none") == "/org/org/rival"
    assert read_answer("<answer>none</answer>", own, "none") == "none"
    assert read_answer(GOOD, own) is None


@given(st.text(max_size=300))
def test_any_text_at_all_is_read_or_rejected(completion: str) -> None:
    assert read_answer(completion, SCHEMA) in (None, *SCHEMA.labels)


@given(st.integers(0, len(GOOD)), st.integers(0, 12), st.text("<>/: 16Steponaswrthik", max_size=8))
def test_a_damaged_completion_is_read_or_rejected(start: int, length: int, put: str) -> None:
    damaged = GOOD[:start] + put + GOOD[start + length :]
    try:
        trace = parse_trace(damaged, SCHEMA)
    except TraceError as error:
        assert str(error)
    else:
        assert trace.answer in SCHEMA.labels and len(trace.steps) == 6 and all(trace.steps)
