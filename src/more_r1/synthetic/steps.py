"""How far a model's reasoning says what the oracle's says, step by step, however it words it."""

from __future__ import annotations

from more_r1.reasoning.trace import STEPS, Trace

# The words in which the oracle varies its wording, by step: what is left of a step is what it says.
_WORDING = (
    "the crop shows in is one sees behind it stands a whole picture has set before an of object , .",
    "the headline names named are is about picture shows some of it so relevant , . ;",
    "so that , . and",
    "the object is seen and , .",
    "this leaves left are these types leave only no label joins but , .",
    "the it follows that , . object",
)
_VARIED = tuple(frozenset(words.split()) for words in _WORDING)
# Whole sentences that say the same in other words.
_SAME = (
    ("The picture shows none of it", "not"),
    ("Such a thing is no entity of the headline , nor a part of", "trivial"),
    ("Nothing that is named corresponds to such a thing , so it tells nothing of", "trivial"),
    ("No relation to", "nothing"),
    ("is shown", ""),
    ("Nothing ties the object to", "nothing"),
)


def told(number: int, text: str) -> frozenset[str]:
    """What a step, counted from 1, says: its words without those of the wording."""
    for words, meaning in _SAME:
        text = text.replace(words, meaning)
    return frozenset(text.lower().split()) - _VARIED[number - 1]


def agreement(trace: Trace | None, gold: Trace) -> tuple[bool, ...]:
    """Which of the six steps say what the gold trace's do; none does where the form was broken."""
    if trace is None:
        return (False,) * STEPS
    pairs = zip(trace.steps, gold.steps, strict=True)
    return tuple(told(number, mine) == told(number, theirs) for number, (mine, theirs) in enumerate(pairs, 1))
