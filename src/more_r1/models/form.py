"""Decoding that cannot break the form: the tags and the numbers of the steps are put, the words between them are the model's,
and the answer is a label of the schema, whatever the model and the document are; if asked, one that the types of step 4 allow.

A model that keeps the form by itself is not touched: the marks are put where it would have put them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from more_r1.models.decode import stop_ids, vision_ids
from more_r1.models.load import Backbone
from more_r1.models.sampling import Sampling, draw
from more_r1.reasoning.trace import STEPS, named_types
from more_r1.schema import Schema

# Words of a step at least; of `max_new_tokens` the steps share what marks and answer leave.
_LEAST = 8
_MARKING = re.compile(r"[<>]|\bStep(\s|\d|$)")
_NUMBER = re.compile(r"\bStep \d+:")
# The step that says the types.
_TYPES_STEP = 3


@dataclass
class _Row:
    """Where one completion stands: what must come next, which step it is in, and the words of that step so far."""

    due: list[int]
    step: int = 0
    words: list[int] = field(default_factory=list)
    labels: list[list[int]] | None = None
    """Once the types are said: the labels that may be the answer, if not all."""
    answer: list[int] = field(default_factory=list)
    ended: bool = False
    chosen: int = 0
    """How many tokens were chosen, marks included."""


class FormKeeper:
    """Chooses the tokens of many completions so that each of them parses (`reasoning.trace.parse_trace`).

    The likeliest that may come next, or, with a seed for each row, drawn: a row's draws depend on its own seed alone.
    """

    def __init__(
        self,
        backbone: Backbone,
        schema: Schema,
        max_new_tokens: int,
        rows: int,
        *,
        types: bool = False,
        sampling: Sampling | None = None,
        seeds: Sequence[int] = (),
    ) -> None:
        self.encoder = encoder = backbone.encoder
        self.schema, self.types, self.sampling = schema, types, sampling
        self.stops = stop_ids(backbone)
        steps = backbone.form.reasoning == "steps"
        # The mark before each step, then the one before the answer.
        texts = [f"{'<think>' if number == 1 else ''} Step {number}:" for number in range(1, STEPS + 1)] if steps else []
        self.marks = [self._ids(text) for text in [*texts, " </think><answer>" if steps else "<answer>"]]
        self.end = self._ids("</answer>")
        self.labels = {label: self._ids(label) for label in schema.labels}
        marks = sum(map(len, self.marks)) + max(map(len, self.labels.values())) + len(self.end) + 1
        self.most = max((max_new_tokens - marks) // STEPS, _LEAST)
        self.rows = [_Row(list(self.marks[0])) for _ in range(rows)]
        self.numbers = [np.random.Generator(np.random.Philox(key=seed)).random(max_new_tokens) for seed in seeds]
        # The words of a step may hold neither tags nor what reads as the number of a step. Its first word must not be blank,
        # nor part of a character: several may make up a space.
        texts_of = [encoder.decode([id]) for id in range(len(encoder.tokenizer))]
        marking = {id for id, text in enumerate(texts_of) if not text.strip() or _MARKING.search(text)} | self.stops
        self.marking = torch.tensor(sorted(marking | {*vision_ids(backbone)}))
        self.partial = torch.tensor([id for id, text in enumerate(texts_of) if "\ufffd" in text], dtype=torch.long)
        self.colons = {id for id, text in enumerate(texts_of) if ":" in text}

    def _ids(self, text: str) -> list[int]:
        return list(self.encoder.tokenizer(text, add_special_tokens=False)["input_ids"])

    def choose(self, logits: Tensor, rows: Sequence[int]) -> list[int]:
        """As models.decode.Chooser has it; the end of sequence after the answer."""
        for number in rows:
            if not self.rows[number].due:
                self._prepare(self.rows[number])
        places = [place for place, number in enumerate(rows) if not self.rows[number].due]
        if places:
            states = [self.rows[rows[place]] for place in places]
            scores = self._scores(logits[torch.tensor(places, device=logits.device)], states)
            numbers = [
                self.numbers[rows[place]][state.chosen] for place, state in zip(places, states, strict=True) if self.numbers
            ]
            for row, token in enumerate(self._pick(scores, numbers)):
                while not self._take(states[row], token):
                    scores[row, token] = -torch.inf
                    (token,) = self._pick(scores[row : row + 1], numbers[row : row + 1])
        for number in rows:
            self.rows[number].chosen += 1
        return [self.rows[number].due.pop(0) for number in rows]

    def ends(self, row: int, ids: Sequence[int]) -> bool:
        """As models.decode.Chooser has it."""
        return ids[-1] in self.stops

    def _prepare(self, row: _Row) -> None:
        """Put what leaves no choice: the mark after a step that is as long as it may be, the end after the answer."""
        if row.ended:
            row.due = [self.encoder.eos_id]
        elif row.step < len(self.marks) - 1 and len(row.words) >= self.most:
            self._next_step(row)

    def _scores(self, logits: Tensor, states: Sequence[_Row]) -> Tensor:
        """The logits [rows, vocabulary] of what may come next, the others at minus infinity."""
        scores = logits.index_fill(1, self.marking.to(logits.device), -torch.inf)
        answering, beginning = [], []
        allowed: list[tuple[int, int]] = []
        for row, state in enumerate(states):
            if state.step == len(self.marks) - 1:
                answering.append(row)
                allowed += [(row, id) for id in self._continuations(state)]
            elif state.words:
                allowed += [(row, id) for id in (self.marks[state.step + 1][0], *self.stops)]
            else:
                beginning.append(row)
        scores[answering] = -torch.inf
        if beginning and len(self.partial):
            scores[torch.tensor(beginning)[:, None], self.partial] = -torch.inf
        if allowed:
            rows, ids = torch.tensor(allowed, device=logits.device).unbind(1)
            scores[rows, ids] = logits[rows, ids]
        return scores

    def _pick(self, scores: Tensor, numbers: Sequence[float]) -> list[int]:
        if self.sampling is None:
            return scores.argmax(-1).tolist()
        drawn = torch.tensor(np.array(numbers), dtype=torch.float64, device=scores.device)
        return draw(scores.float() / self.sampling.temperature, self.sampling.top_p, drawn).tolist()

    def _take(self, row: _Row, token: int) -> bool:
        """Go on with a token; False where it would complete what reads as the number of a step."""
        if row.step == len(self.marks) - 1:
            row.ended = token == self.end[0] and row.answer in self._labels(row)
            row.due = list(self.end) if row.ended else [token]
            row.answer = row.answer if row.ended else [*row.answer, token]
        elif row.words and (token in self.stops or token == self.marks[row.step + 1][0]):
            self._next_step(row)
        else:
            if token in self.colons and _NUMBER.search(self.encoder.decode([*row.words, token])):
                return False
            row.words.append(token)
            row.due = [token]
        return True

    def _next_step(self, row: _Row) -> None:
        if self.types and row.step == _TYPES_STEP and (said := named_types(self.encoder.decode(row.words))):
            row.labels = [self.labels[label] for label in self.schema.candidates(*said)]
        row.step, row.words, row.due = row.step + 1, [], list(self.marks[row.step + 1])

    def _labels(self, row: _Row) -> list[list[int]]:
        return list(self.labels.values()) if row.labels is None else row.labels

    def _continuations(self, row: _Row) -> list[int]:
        """The tokens that lead on to a label, and the end where one is complete."""
        size, labels = len(row.answer), self._labels(row)
        allowed = {label[size] for label in labels if label[:size] == row.answer and len(label) > size}
        return sorted(allowed | ({self.end[0]} if row.answer in labels else set()))
