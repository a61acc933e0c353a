"""Rewards of stage 2: what a completion earns, each 0 or 1, and their weighted sum.

The signature is TRL's, `f(completions, **columns) -> list[float]`, so that they drop into its trainers:
`GRPOTrainer(reward_funcs=list(found.values()), args=GRPOConfig(reward_weights=[getattr(weights, name) for name in found]))`.
The paper's reward is format + length + answer, all of weight 1.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from more_r1.reasoning.trace import Trace, TraceError, parse_trace, read_answer
from more_r1.schema import NONE, Schema
from more_r1.training.recipe import Recipe, RecipeError

Reward = Callable[..., list[float]]
"""Completions (texts, or TRL's lists of chat messages) and columns by name, each with one entry a completion -> values."""
Completion = str | Sequence[Mapping[str, Any]]
NAMES = ("format", "length", "answer", "consistency")
# A passage is known again by so many letters in a row, about three English words.
_PASSAGE = 16


class RewardWeights(Recipe):
    """What each reward counts, and what is long enough; a reward of weight 0 is not computed."""

    format: float = Field(default=1, ge=0, allow_inf_nan=False)
    length: float = Field(default=1, ge=0, allow_inf_nan=False)
    answer: float = Field(default=1, ge=0, allow_inf_nan=False)
    consistency: float = Field(default=0, ge=0, allow_inf_nan=False)
    """Ours, not the paper's."""
    length_characters: int = Field(default=1024, ge=1)
    """The length reward is for more than so many; the paper says 1024, of what it leaves open: characters, by our reading."""
    plain_length: bool = False
    """True: every character counts, as in the paper. False, ours: padding does not count (`own_length`)."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not any(getattr(self, name) for name in NAMES):
            raise ValueError(f"all weights are 0; give one of {', '.join(NAMES)} a weight above 0")
        return self


def rewards(schema: Schema, reasoning: Literal["steps", "none"], weights: RewardWeights) -> dict[str, Reward]:
    """The rewards of weight above 0, in the order of NAMES, each a function with its name.

    - format: the form is kept as `parse_trace` reads it. An answer that is no label of the schema breaks the form too: it would
      count as broken wherever it is evaluated.
    - length: the completion up to its first `</answer>` is longer than `length_characters`, whether or not it keeps the form.
    - answer: the answer is the gold one, of the column `label`. Only a completion that keeps the form has an answer.
    - consistency: steps 4 to 6 hold together, see `is_consistent`. A broken form does not.

    Raises RecipeError where a reward needs the six steps and `reasoning` is none.
    """
    for name in ("length", "consistency"):
        if reasoning == "none" and getattr(weights, name):
            raise RecipeError(f"{name}={getattr(weights, name):g} rewards reasoning, and form.reasoning is none; set {name}=0")
    labels = _any_of(schema.labels)

    def format(completions: Sequence[Completion], **columns: object) -> list[float]:
        return [float(read_answer(text, schema, reasoning) is not None) for text in map(_text, completions)]

    def length(completions: Sequence[Completion], **columns: object) -> list[float]:
        texts = [_until_answer(_text(completion)) for completion in completions]
        lengths = [len(text) if weights.plain_length else _own_length(text, labels) for text in texts]
        return [float(found > weights.length_characters) for found in lengths]

    def answer(completions: Sequence[Completion], label: Sequence[str], **columns: object) -> list[float]:
        if len(completions) != len(label):
            raise ValueError(f"{len(completions)} completions and {len(label)} entries in label; give one a completion")
        answers = [read_answer(_text(completion), schema, reasoning) for completion in completions]
        # A pair without gold label has None there, which must not meet the None of a broken form.
        return [float(found is not None and found == gold) for found, gold in zip(answers, label, strict=True)]

    def consistency(completions: Sequence[Completion], **columns: object) -> list[float]:
        traces = [_trace(_text(completion), schema) for completion in completions]
        return [float(trace is not None and is_consistent(trace, schema)) for trace in traces]

    functions: tuple[Reward, ...] = (format, length, answer, consistency)
    return {name: function for name, function in zip(NAMES, functions, strict=True) if getattr(weights, name)}


def total(values: Mapping[str, Sequence[float]], weights: RewardWeights) -> list[float]:
    """The weighted sum of the rewards of each completion.

    Always summed in the order of NAMES: equal rewards give equal sums to the last bit, hence advantages of exactly 0.
    Raises ValueError where a reward of weight above 0 is missing, one is unknown, or they differ in length.
    """
    needed = [name for name in NAMES if getattr(weights, name)]
    if not set(needed) <= set(values) <= set(NAMES):
        raise ValueError(f"rewards {', '.join(values) or 'none'}; expected {', '.join(needed)}")
    lengths = {name: len(values[name]) for name in needed}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"rewards of different lengths: {lengths}")
    rows = zip(*(values[name] for name in needed), strict=True)
    return [sum(getattr(weights, name) * value for name, value in zip(needed, row, strict=True)) for row in rows]


def is_consistent(trace: Trace, schema: Schema) -> bool:
    """Whether steps 4 and 5 lead to the answer.

    Step 4 names two types, step 5 lists no label but those of that type pair and `none`, and the answer, a label or `none`,
    is among those listed. So the answer agrees with the types of step 4 too.
    """
    if trace.types is None:
        return False
    return trace.answer in trace.candidates and set(trace.candidates) <= set(schema.candidates(*trace.types))


def own_length(completion: str, schema: Schema) -> int:
    """Characters of a completion that are not padding.

    The text is taken up to its first `</answer>`, without labels of the schema (they can be copied from the prompt), in lower
    case, as words of letters one space apart. A letter counts if the 16 letters that end with it have not been there before,
    a space if the letter behind it counts. So what is there twice counts once, however it is spaced, punctuated, numbered or
    capitalised, and the length is never more than the plain one. Nonsense that does not repeat itself does count: letters
    cannot tell sense.
    """
    return _own_length(_until_answer(completion), _any_of(schema.labels))


def _own_length(text: str, labels: re.Pattern[str]) -> int:
    words = re.findall(r"[^\W\d_]+", labels.sub(" ", _simple(text)))
    letters = "".join(words)
    seen: set[str] = set()
    count = end = 0
    for word in words:
        for place in range(end, end + len(word)):
            passage = letters[max(place + 1 - _PASSAGE, 0) : place + 1]
            if passage not in seen:
                seen.add(passage)
                count += 2 if place == end > 0 else 1  # with the space before the word
        end += len(word)
    return count


def _simple(text: str) -> str:
    """In lower case and without accents, each fancy form of a letter as that letter.

    Never longer than it was: what stands for several letters stays (the longest of Unicode stands for 18).
    """
    table = {}
    for character in set(text):
        parts = unicodedata.normalize("NFKD", character)
        base = "".join(part for part in parts if unicodedata.category(part)[0] != "M").lower()
        table[ord(character)] = base if len(base) <= 1 else character
    return text.translate(table)


def _any_of(labels: Sequence[str]) -> re.Pattern[str]:
    names = sorted((label for label in labels if label != NONE), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, names)) or "(?!)")  # the pattern of nothing: an empty one is everywhere


def _until_answer(completion: str) -> str:
    head, end, _ = completion.partition("</answer>")
    return (head + end).strip()


def _text(completion: Completion) -> str:
    """A completion as text; TRL gives the messages of a conversation where the prompts are conversations."""
    return completion if isinstance(completion, str) else "".join(message["content"] for message in completion)


def _trace(completion: str, schema: Schema) -> Trace | None:
    try:
        return parse_trace(completion, schema)
    except TraceError:
        return None
