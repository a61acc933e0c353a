"""Completions that stage 2 logged as it went: some of them, spread over the run, to be read on the page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from more_r1.evaluation.curves import is_number, short
from more_r1.reasoning.trace import read_answer
from more_r1.schema import Schema

SHOWN = 12
MOST_CHARACTERS = 4000  # of a completion; more is a model that babbles, or a log that was made to fill the page
_Name = Annotated[str, Field(max_length=1000)]
_Place = Annotated[int, Field(ge=0, le=10**6)]
_PART = re.compile(r"(?=\bStep [0-9]+:|</think>|<answer>)")


class _Logged(BaseModel):
    """What an event has under `sample`."""

    document: _Name
    object: _Name
    span: tuple[_Place, _Place]
    gold: _Name
    completion: str
    reward: float = Field(allow_inf_nan=False)


@dataclass(frozen=True)
class Shown:
    """A completion as the page shows it, cut into `parts` before each step. `answer` is None where it broke the form."""

    step: str
    document: str
    object: str
    words: str
    gold: str
    answer: str | None
    reward: str
    parts: tuple[str, ...]
    left_out: int


def samples(events: Iterable[dict[str, Any]], schema: Schema | None = None) -> tuple[list[Shown], int]:
    """At most `SHOWN` samples, the first and the last among them, by step; and how many events had one that cannot be read.

    The run's labels are those of `schema`, by default MORE's.
    """
    found: dict[float, _Logged] = {}
    unread = 0
    for event in events:
        if event.get("sample") is None:
            continue
        try:
            logged = _Logged.model_validate(event["sample"])
        except ValidationError:
            unread += 1
            continue
        if is_number(event.get("step")):
            found[event["step"]] = logged  # a resumed run logs some steps twice: the later one counts
        else:
            unread += 1
    steps = sorted(found)
    # A run has one form: without a single thought in it, its model answers without reasoning.
    reasons = any("<think>" in logged.completion for logged in found.values())
    count = min(SHOWN, len(steps))
    chosen = [steps[round(place * (len(steps) - 1) / max(count - 1, 1))] for place in range(count)]
    return [_shown(step, found[step], schema or Schema.more(), reasons) for step in chosen], unread


def _shown(step: float, logged: _Logged, schema: Schema, reasons: bool) -> Shown:
    first, last = logged.span
    text = logged.completion[:MOST_CHARACTERS]
    return Shown(
        step=f"{step:,.0f}",
        document=logged.document,
        object=logged.object,
        words=f"word {last}" if last == first + 1 else f"words {first + 1} to {last}",
        gold=logged.gold,
        answer=read_answer(logged.completion, schema, "steps" if reasons else "none"),
        reward=short(logged.reward),
        parts=tuple(part.strip() for part in _PART.split(text) if part.strip()),
        left_out=len(logged.completion) - len(text),
    )
