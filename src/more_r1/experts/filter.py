"""The filter of stage 1's traces: is a completion fit to be learnt from? Pure; every reason to say no has a name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from more_r1.experts.betrayal import betrayal, words
from more_r1.formats.traces import ACCEPTED
from more_r1.reasoning.trace import STEPS, Trace, TraceError, bracketed_types, named_labels, parse_trace
from more_r1.schema import NONE, Schema
from more_r1.training.recipe import Recipe
from more_r1.training.rewards import own_length

Name = Literal["accepted", "form", "order", "answer", "types", "candidates", "conclusion", "betrayal", "length", "repetition"]
# A step only repeats another if this share of its words lies in passages of three words that the other has.
_SAME = 0.85
_CONCLUDES_NONE = re.compile(r"(?i)\b(?:answer|label|relation)\b[^.;]{0,20}\bnone\b(?! of\b)")


class Bounds(Recipe):
    """How long a trace may be."""

    least: int = Field(default=300, ge=0)
    """Characters that are not padding, counted as stage 2's length reward counts them (training.rewards.own_length)."""
    most: int = Field(default=4000, ge=1)
    """Characters in all."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least={self.least} is more than most={self.most}; no trace can be as long as both ask")
        return self


@dataclass(frozen=True)
class Verdict:
    """What the filter says of a completion: the name of the first fault, or `accepted`. `reason` can be told to an expert."""

    name: Name
    reason: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the completion is fit to be learnt from."""
        return self.name == ACCEPTED


def judge_trace(completion: str, label: str, types: tuple[str | None, str | None], schema: Schema, bounds: Bounds) -> Verdict:
    """Judge one completion on a pair whose gold label is `label`, and whose object and entity have the gold `types`.

    A type of the label goes before `types`, where None is what nobody knows. In this order:
    - form: `parse_trace` refuses it; order: it would not, but for steps that are missing, doubled or out of order;
    - answer: it is not the gold label;
    - types: step 4 names no two types in brackets, or others than the gold ones, or a third;
    - candidates: step 5 lists other labels than those that the two types of step 4 allow and `none`;
    - conclusion: step 6 speaks of labels, and of one that step 5 does not list, or not of the answer;
    - betrayal: a phrase says that the answer was given;
    - length: it is too short or too long;
    - repetition: a step says nothing but what an earlier one has said in the same words.
    """
    try:
        trace = parse_trace(completion, schema)
    except TraceError as error:
        return Verdict("order" if _misses_only_order(completion, schema) else "form", str(error))
    if trace.answer != label:
        return Verdict("answer", f"the answer is {trace.answer}, which is not right")
    return (
        _judge_types(trace, _gold_types(label, types))
        or _judge_candidates(trace, schema)
        or _judge_conclusion(trace)
        or _judge_words(trace)
        or _judge_length(completion.strip(), schema, bounds)
        or _judge_repetition(trace.steps)
        or Verdict(ACCEPTED)
    )


def _misses_only_order(completion: str, schema: Schema) -> bool:
    """Whether there are numbered steps, only not 1 to 6 in this order, and all else is right."""
    if completion.count("<think>") != 1:
        return False
    thoughts = re.search(r"<think>(.*?)</think>", completion, re.DOTALL)
    numbers = re.findall(r"\bStep (\d+):", thoughts[1]) if thoughts else []
    if not thoughts or not numbers or numbers == [str(number) for number in range(1, STEPS + 1)]:
        return False
    steps = " ".join(f"Step {number}: so" for number in range(1, STEPS + 1))
    try:
        parse_trace(completion[: thoughts.start(1)] + steps + completion[thoughts.end(1) :], schema)
    except TraceError:
        return False
    return True


def _gold_types(label: str, types: tuple[str | None, str | None]) -> tuple[str | None, str | None]:
    if label == NONE:
        return types
    _, object_type, entity_type, _ = label.split("/")
    return object_type, entity_type


def _judge_types(trace: Trace, gold: tuple[str | None, str | None]) -> Verdict | None:
    if trace.types is None:
        return Verdict("types", "step 4 does not name two types in brackets, as in (per) and (org)")
    for what, found, wanted in zip(("object", "entity"), trace.types, gold, strict=True):
        if wanted is not None and found != wanted:
            return Verdict("types", f"step 4 says that the {what} is ({found}), which is not right")
    if others := [found for found in bracketed_types(trace.steps[3]) if found not in trace.types]:
        return Verdict("types", f"step 4 names a third type, ({others[0]})")
    return None


def _judge_candidates(trace: Trace, schema: Schema) -> Verdict | None:
    assert trace.types is not None
    allowed = schema.candidates(*trace.types)
    if missing := [label for label in allowed if label not in trace.candidates]:
        return Verdict("candidates", f"step 5 drops {missing[0]}, which the types of step 4 allow")
    if others := [label for label in trace.candidates if label not in allowed]:
        return Verdict("candidates", f"step 5 lists {others[0][:60]}, which the types of step 4 do not allow")
    return None


def _judge_conclusion(trace: Trace) -> Verdict | None:
    last = trace.steps[5]
    # "None" alone is prose: "none of the others fits".
    named = [label for label in named_labels(last) if label != NONE] + [NONE] * bool(_CONCLUDES_NONE.search(last))
    if others := [label for label in named if label not in trace.candidates]:
        return Verdict("conclusion", f"step 6 names {others[0][:60]}, which step 5 does not list")
    # Labels may be named to be dismissed, all of them where the answer is none.
    if named and trace.answer not in (NONE, *named):
        return Verdict("conclusion", f"step 6 names {named[0]}, and the answer is another")
    return None


def _judge_words(trace: Trace) -> Verdict | None:
    # Step by step: no phrase begins in one and ends in the next.
    for number, step in enumerate(trace.steps, 1):
        if phrase := betrayal(step):
            return Verdict("betrayal", f"step {number} speaks of what was given: {phrase[:60]!r}")
    return None


def _judge_length(text: str, schema: Schema, bounds: Bounds) -> Verdict | None:
    if len(text) > bounds.most:
        return Verdict("length", f"{len(text)} characters are too many; at most {bounds.most}")
    if (own := own_length(text, schema)) < bounds.least:
        return Verdict("length", f"{own} characters without labels and repetitions are too few; at least {bounds.least}")
    return None


def _judge_repetition(steps: Sequence[str]) -> Verdict | None:
    spoken = [_spoken(step) for step in steps]
    for later, step in enumerate(spoken):
        for earlier, other in enumerate(spoken[:later]):
            if _repeats(step, other):
                return Verdict("repetition", f"step {later + 1} only repeats step {earlier + 1}")
    return None


def _spoken(step: str) -> list[str]:
    """The words of a step, a label being one word: a bare label does not repeat the list of labels."""
    pieces = re.split(r"(/[a-z]+/[a-z]+/[a-z0-9_]+)", step)  # every other piece is a label
    return [word for number, piece in enumerate(pieces) for word in ([piece] if number % 2 else words(piece))]


def _repeats(step: Sequence[str], other: Sequence[str]) -> bool:
    if len(step) < 3:
        return list(step) == list(other)
    passages = {tuple(other[place : place + 3]) for place in range(len(other) - 2)}
    starts = [place for place in range(len(step) - 2) if tuple(step[place : place + 3]) in passages]
    covered = {place + offset for place in starts for offset in range(3)}
    return len(covered) >= _SAME * len(step)
