"""Completion <-> trace: six steps of reasoning and an answer.

Reading is strict: a completion that breaks the form in any way is not a trace, and the error says where it breaks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from more_r1.schema import TYPES, Schema

STEPS = 6
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_TYPE = re.compile(rf"\(({'|'.join(TYPES)})\)")
# A word with three slashes or more: what only begins or ends like a label is another one.
_LABEL = re.compile(r"(?<![\w/-])(?:[\w-]*(?:/[\w-]*){3,}|none(?![\w/-]))")


class TraceError(ValueError):
    """A completion that breaks the form; the message says where."""


@dataclass(frozen=True)
class Trace:
    """Six step texts (none at all where a model answers without reasoning) and the answer, a label of the schema."""

    steps: tuple[str, ...]
    answer: str

    @property
    def types(self) -> tuple[str, str] | None:
        """Object type and entity type as step 4 names them in brackets, the first two; None if it names fewer."""
        return named_types(self.steps[3]) if self.steps else None

    @property
    def candidates(self) -> tuple[str, ...]:
        """The labels that step 5 lists, and what is written like one, in its order, each once."""
        return named_labels(self.steps[4]) if self.steps else ()

    def render(self) -> str:
        """The completion that reads back as this trace."""
        answer = f"<answer>{self.answer}</answer>"
        if not self.steps:
            return answer
        steps = " ".join(f"Step {number}: {text}" for number, text in enumerate(self.steps, 1))
        return f"<think> {steps} </think>{answer}"


def named_types(step: str) -> tuple[str, str] | None:
    """The first two types that a text has in brackets; None if it has fewer."""
    found = bracketed_types(step)
    return (found[0], found[1]) if len(found) >= 2 else None


def bracketed_types(step: str) -> tuple[str, ...]:
    """All types that a text has in brackets, in its order."""
    return tuple(_TYPE.findall(step))


def named_labels(step: str) -> tuple[str, ...]:
    """What a text has that is written like a label, `none` too, in its order, each once."""
    return tuple(dict.fromkeys(_LABEL.findall(step)))


def parse_trace(completion: str, schema: Schema, reasoning: Literal["steps", "none"] = "steps") -> Trace:
    """Read a completion. Raises TraceError where a tag or step is missing, doubled or out of order, where a step is empty,
    where there is text before or after, and where the answer is no label of the schema."""
    text = completion.strip()
    tags = _TAGS if reasoning == "steps" else _TAGS[2:]
    for tag in _TAGS:
        expected = 1 if tag in tags else 0
        if text.count(tag) != expected:
            raise TraceError(f"{tag} is there {text.count(tag)} times, not {expected}")
    places = [text.index(tag) for tag in tags]
    if places != sorted(places):
        raise TraceError("the tags are out of order")
    if places[0] != 0:
        raise TraceError(f"text before {tags[0]}")
    if not text.endswith("</answer>"):
        raise TraceError("text after </answer>")
    answer = text[text.index("<answer>") + len("<answer>") : -len("</answer>")].strip()
    steps: tuple[str, ...] = ()
    if reasoning == "steps":
        if text[text.index("</think>") + len("</think>") : text.index("<answer>")].strip():
            raise TraceError("text between </think> and <answer>")
        steps = _split_steps(text[len("<think>") : text.index("</think>")])
    if answer not in schema.labels:
        raise TraceError(f"the answer {answer[:60]!r} is no label of the schema")
    return Trace(steps, answer)


def read_answer(completion: str, schema: Schema, reasoning: Literal["steps", "none"] = "steps") -> str | None:
    """The answer of a completion that keeps the form, None of one that breaks it."""
    try:
        return parse_trace(completion, schema, reasoning).answer
    except TraceError:
        return None


def _split_steps(thoughts: str) -> tuple[str, ...]:
    pieces = re.split(r"\bStep (\d+):", thoughts)
    if pieces[0].strip():
        raise TraceError("text before step 1")
    numbers = pieces[1::2]  # compared as texts: int() refuses a number of 5,000 digits, and a model may write one
    if numbers != [str(number) for number in range(1, STEPS + 1)]:
        raise TraceError(f"the steps are {', '.join(numbers)[:60] or 'missing'}, not 1 to {STEPS}")
    steps = tuple(piece.strip() for piece in pieces[2::2])
    for number, step in enumerate(steps, 1):
        if not step:
            raise TraceError(f"step {number} is empty")
    return steps
