"""What decoders that keep the form by a regular expression can write, against the reader of traces."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from more_r1.reasoning.pattern import ANSWER, TRACE, WORDS, beginning, steps_so_far
from more_r1.reasoning.trace import STEPS, Trace, parse_trace
from more_r1.schema import Schema

MORE = Schema.more()
# Pieces that come near to marks, blanks of every kind, and anything else.
PIECES = st.one_of(
    st.sampled_from(["S", "t", "e", "p", "Step", "Ste", "StStep", " ", "<", ">", "<think>", "</answer>", "Step 2:", "\u3000"]),
    st.sampled_from([" Step 3:", "\n", "\t", "\x1c", "\x85", "\xa0", "\ufffd", "2:", "a", "word", "(per)", "(org)"]),
    st.characters(exclude_categories=["Cs"]),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)


@given(TEXTS)
@example(" SStep")
@example(" SteStep")
@example(" Ste")
@example("\u3000")
def test_words_are_all_that_are_neither_blank_nor_marks(text: str) -> None:
    good = not re.search("[<>\ufffd]|Step", text)
    body = text[1:] if text.startswith(" ") else text
    begins = bool(body) and not body[0].isspace()
    assert bool(re.fullmatch(WORDS, text)) == (good and begins)


@given(st.lists(TEXTS, min_size=STEPS, max_size=STEPS), st.sampled_from(MORE.labels))
def test_what_matches_is_read_back(texts: list[str], label: str) -> None:
    trace = beginning(texts) + ANSWER
    allowed = all(re.fullmatch(WORDS, text) for text in texts)
    assert bool(re.fullmatch(TRACE, trace)) >= allowed
    if re.fullmatch(TRACE, trace):
        assert parse_trace(f"{trace}{label}</answer>", MORE).answer == label
    if allowed:
        assert parse_trace(f"{trace}{label}</answer>", MORE) == Trace(tuple(text.strip() for text in texts), label)


@given(st.lists(st.from_regex(rf"\A {WORDS[2:]}\Z", alphabet="aS tep.\u00e9"), min_size=STEPS, max_size=STEPS), st.data())
def test_a_trace_cut_off_anywhere_goes_on_to_one_that_is_read(texts: list[str], data: st.DataObject) -> None:
    whole = beginning(texts) + ANSWER
    at = data.draw(st.integers(0, len(whole)))
    steps = steps_so_far(whole[:at] + data.draw(st.sampled_from(["", "\ufffd"])))
    assert len(steps) <= STEPS
    # All but the last is as it was; of the last what was said before the cut.
    assert steps[:-1] == texts[: max(len(steps) - 1, 0)]
    if steps:
        assert texts[len(steps) - 1].startswith(steps[-1]) or steps[-1].startswith(texts[len(steps) - 1])
    filled = beginning([*steps, *[" more"] * (STEPS - len(steps))]) + ANSWER
    assert parse_trace(f"{filled}none</answer>", MORE).answer == "none"


@pytest.mark.parametrize(
    "text", ["", "<thi", "<think>", "<think> Step", "<think> Step 1:", "<think> Step 1: ", "<think> Step 1: <"]
)
def test_a_step_without_words_is_not_counted(text: str) -> None:
    assert steps_so_far(text) == []
