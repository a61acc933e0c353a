"""Decoding that cannot break the form: the tags and the numbers of the steps are put, the words between them are the model's,
and the answer is a label of the schema, whatever the model and the document are.

A model that keeps the form by itself is not touched: the marks are put where it would have put them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from more_r1.models.decode import vision_ids
from more_r1.models.load import Backbone
from more_r1.reasoning.trace import STEPS
from more_r1.schema import Schema

# Of `max_new_tokens`, what is kept for marks and answer: the steps share the rest.
_RESERVE = 64
_LEAST = 8
_MARKING = re.compile(r"[<>]|\bStep(\s|\d|$)")


@dataclass
class _Row:
    """Where one completion stands: what must come next, which step it is in, and how far that is."""

    due: list[int]
    step: int = 0
    length: int = 0
    answer: list[int] = field(default_factory=list)
    ended: bool = False


class FormKeeper:
    """Chooses the tokens of many completions so that each of them parses (`reasoning.trace.parse_trace`)."""

    def __init__(self, backbone: Backbone, schema: Schema, max_new_tokens: int, stops: frozenset[int], rows: int) -> None:
        self.encoder = encoder = backbone.encoder
        self.stops, self.banned = stops, vision_ids(backbone)
        steps = backbone.form.reasoning == "steps"
        # The mark before each step, then the one before the answer.
        texts = [f"{'<think>' if number == 1 else ''} Step {number}:" for number in range(1, STEPS + 1)] if steps else []
        self.marks = [self._ids(text) for text in [*texts, " </think><answer>" if steps else "<answer>"]]
        self.end = self._ids("</answer>")
        self.labels = [self._ids(label) for label in schema.labels]
        self.most = max((max_new_tokens - _RESERVE) // STEPS, _LEAST)
        self.rows = [_Row(list(self.marks[0])) for _ in range(rows)]
        # The words of a step may hold neither tags nor what reads as the number of a step, and must not be blank.
        texts_of = (encoder.decode([id]) for id in range(len(encoder.tokenizer)))
        marking = [id for id, text in enumerate(texts_of) if not text.strip() or _MARKING.search(text)]
        self.marking = torch.tensor(marking)

    def _ids(self, text: str) -> list[int]:
        return list(self.encoder.tokenizer(text, add_special_tokens=False)["input_ids"])

    def choose(self, logits: Tensor, rows: Sequence[int]) -> list[int]:
        """As models.decode.Chooser has it; the end of sequence after the answer."""
        logits[:, self.banned] = -torch.inf
        words = logits.clone()
        words[:, self.marking.to(logits.device)] = -torch.inf
        best = words.argmax(-1).tolist()
        wanted = logits.argmax(-1).tolist()
        states = [self.rows[number] for number in rows]
        return [self._next(state, logits[row], best[row], wanted[row] in self.stops) for row, state in enumerate(states)]

    def ends(self, row: int, ids: Sequence[int]) -> bool:
        """As models.decode.Chooser has it."""
        return ids[-1] in self.stops

    def _next(self, row: _Row, logits: Tensor, word: int, stops: bool) -> int:
        if not row.due and row.step < len(self.marks) - 1:
            mark = self.marks[row.step + 1]
            ends = stops or row.length >= self.most or bool(logits[mark[0]] > logits[word])
            if not ends or row.length == 0:
                row.length += 1
                return word
            row.step, row.length, row.due = row.step + 1, 0, list(mark)
        if not row.due:
            self._answer(row, logits)
        return row.due.pop(0)

    def _answer(self, row: _Row, logits: Tensor) -> None:
        """Go on with the likeliest token that leads to a label, or end where one is complete."""
        if row.ended:
            row.due = [self.encoder.eos_id]
            return
        size = len(row.answer)
        allowed = {label[size] for label in self.labels if label[:size] == row.answer and len(label) > size}
        if row.answer in self.labels:
            allowed.add(self.end[0])
        token = max(sorted(allowed), key=lambda id: float(logits[id]))
        row.ended = row.answer in self.labels and token == self.end[0]
        row.due = list(self.end) if row.ended else [token]
        row.answer = row.answer if row.ended else [*row.answer, token]
