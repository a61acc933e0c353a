"""The one place where the model is asked: a bounded queue, and a thread that takes what waits in it into one batch.

Documents that are read in the same way are asked together, whoever sent them; which ones those are changes nothing but
rounding (models/generate.py). A document that fails costs only itself.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from itertools import islice

from more_r1.document import Document
from more_r1.extraction.extract import all_pairs, extract
from more_r1.models.engine import Model
from more_r1.models.predict import CHUNK_PAIRS, Reading
from more_r1.reasoning.prediction import Prediction
from more_r1.schema import Schema
from more_r1.serve.errors import RequestError
from more_r1.serve.requests import MAX_PAIRS, MAX_THINGS

RETRY_SECONDS = 1
MAX_JOINT = 256
"""Pairs of a document that are read together: the search (reasoning/joint.py) has a bound, but takes longer with each."""


@dataclass(frozen=True)
class Read:
    """A document with its objects, entities and pairs, and a prediction for each pair."""

    document: Document
    predictions: tuple[Prediction, ...] = ()


@dataclass(frozen=True)
class _Task:
    document: Document
    reading: Reading | None
    """None where objects and entities are to be proposed, and nothing asked."""
    answer: Future[Read] = field(default_factory=Future)


class Desk:
    """Takes documents, at most `room` waiting at a time. `prepare` proposes objects and entities where there are none."""

    def __init__(self, engine: Model, schema: Schema, prepare: Callable[[Document], Document], room: int) -> None:
        self.engine, self.schema, self.room = engine, schema, room
        self._prepare = prepare
        self._tasks: deque[_Task] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="more-r1 desk", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Documents that are not begun."""
        return len(self._tasks)

    def submit(self, document: Document, reading: Reading | None) -> Future[Read]:
        """Queue a document; without a reading it only gets its proposals. A cancelled answer is not worked on, if not begun.

        Raises RequestError: 429 if the queue is full, 503 once the desk is closed. The answer raises RequestError, with 422,
        for a document in which there is nothing to ask, or that the model cannot be asked about.
        """
        task = _Task(document, reading)
        with self._changed:
            if self._closed:
                raise RequestError(503, "the server is stopping; try another one, or later")
            if len(self._tasks) >= self.room:
                for gone in [task for task in self._tasks if task.answer.cancelled()]:
                    self._tasks.remove(gone)
            if len(self._tasks) >= self.room:
                message = f"{self.room} documents are waiting already; try again in a moment"
                raise RequestError(429, message, retry_after=RETRY_SECONDS)
            self._tasks.append(task)
            self._changed.notify()
        return task.answer

    def close(self) -> None:
        """Take nothing more. What waits is still answered; `join` waits for that."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def join(self) -> None:
        """Wait until all is answered."""
        self._thread.join()

    def _work(self) -> None:
        while (task := self._first()) is not None:
            self._answer_with(task)
            self.engine.encoder.forget()

    def _first(self) -> _Task | None:
        """The next one, waiting for it; None when the desk is closed and all is done."""
        with self._changed:
            while True:
                while self._tasks:
                    task = self._tasks.popleft()
                    if task.answer.set_running_or_notify_cancel():
                        return task
                if self._closed:
                    return None
                self._changed.wait()

    def _next_alike(self, reading: Reading) -> _Task | None:
        """The next that is read in that way; None if there is none now."""
        with self._changed:
            for task in self._tasks:
                if task.reading == reading and not task.answer.cancelled():
                    self._tasks.remove(task)
                    return task if task.answer.set_running_or_notify_cancel() else None
        return None

    def _answer_with(self, first: _Task) -> None:
        """Answer a task, and with it those that can be asked in one batch."""
        if first.reading is None:
            if (found := self._prepared(first)) is not None:
                first.answer.set_result(Read(found))
            return
        batch: list[tuple[_Task, Document]] = []
        pairs = 0
        task: _Task | None = first
        while task is not None:
            if (document := self._prepared(task)) is not None:
                batch.append((task, document))
                pairs += len(document.pairs)
            task = self._next_alike(first.reading) if pairs < CHUNK_PAIRS else None
        try:
            self._ask(batch, first.reading)
        except Exception as error:
            open_ones = [(task, document) for task, document in batch if not task.answer.done()]
            if len(batch) == 1:
                open_ones[0][0].answer.set_exception(_told(error))
                return
            for one in open_ones:
                try:
                    self._ask([one], first.reading)
                except Exception as own:
                    one[0].answer.set_exception(_told(own))

    def _ask(self, batch: Sequence[tuple[_Task, Document]], reading: Reading) -> None:
        predictions = extract(self.engine, [document for _, document in batch], self.schema, **asdict(reading))
        # They come in the order of documents and pairs: ids need not differ, for strangers chose them.
        for task, document in batch:
            task.answer.set_result(Read(document, tuple(islice(predictions, len(document.pairs)))))

    def _prepared(self, task: _Task) -> Document | None:
        """The document with all that is to be asked; None if it cannot be, which is then told."""
        try:
            document = _few(self._prepare(task.document))
            return document if task.reading is None else _askable(document, task.reading)
        except Exception as error:
            task.answer.set_exception(_told(error))
            return None


def _few(document: Document) -> Document:
    """Proposals have the bound that what is given has."""
    return document.model_copy(update={"objects": document.objects[:MAX_THINGS], "entities": document.entities[:MAX_THINGS]})


def _askable(document: Document, reading: Reading) -> Document:
    """With all pairs that are to be asked. Raises RequestError where there is nothing to ask, or too much."""
    if not document.pairs:
        missing = [name for name, found in (("object", document.objects), ("entity", document.entities)) if not found]
        if missing:
            raise RequestError(422, f"no {' and no '.join(missing)} given or found; mark at least one of each")
        document = all_pairs(document)
    asked = len(document.pairs)
    if asked * (1 + reading.samples) > MAX_PAIRS:
        raise RequestError(422, f"{asked} pairs, each {1 + reading.samples} times, are more than {MAX_PAIRS}; ask less at once")
    if reading.joint and asked > MAX_JOINT:
        raise RequestError(
            422, f"{asked} pairs are too many to read together, {MAX_JOINT} are not; leave joint out, or ask less"
        )
    return document


def _told(error: Exception) -> Exception:
    """What a client may know: our own errors are lines for users, others are bugs and stay as they are."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, ValueError) and type(error).__module__.startswith("more_r1"):
        return RequestError(422, str(error))
    logging.getLogger(__name__).error("a document could not be read", exc_info=error)
    return RequestError(500, "the document could not be read; the server's log says why")
