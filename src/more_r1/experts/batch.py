"""An expert behind OpenAI's Batch API: what is pending goes up in files, is answered within a day, and comes back in files.

OUT/batches.jsonl has a line before a batch is made, one with its id, and one once its answers are recorded. A run that was
killed in between finds its batches by their ids or, where not even the id came through, by the name in their metadata.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from more_r1.experts.batch_calls import BatchCalls
from more_r1.experts.desk import Desk, Request
from more_r1.experts.journal import Call, Lines
from more_r1.experts.money import STOPPED, Budget, BudgetError
from more_r1.experts.question import ask_parts, fingerprint
from more_r1.experts.reply import Answer, ExpertError, Reply, UnreadableError, read_answer
from more_r1.experts.settings import OpenAI
from more_r1.experts.transport import declined
from more_r1.formats.fault import Place
from more_r1.reasoning.prompt import Part

BATCHES = "batches.jsonl"
# OpenAI's limits of one batch: 50,000 requests, 200 MB.
MOST_REQUESTS, MOST_FILE = 50_000, 190 * 10**6


class _Sent(BaseModel):
    """A call in a batch; its place in the list is its `custom_id`."""

    model_config = ConfigDict(frozen=True)

    img_id: str
    object: str
    span: tuple[int, int]
    attempt: int
    fingerprint: str

    @property
    def call(self) -> Call:
        return (self.img_id, self.object, self.span), self.attempt


class _State(BaseModel):
    """A line of batches.jsonl: what was planned, then its id, then that it is over."""

    model_config = ConfigDict(frozen=True)

    name: str
    time: float
    calls: tuple[_Sent, ...] = ()
    id: str | None = None
    over: bool = False


class _Response(BaseModel):
    status_code: int
    body: Any = None


class _Line(BaseModel):
    """A line of a file of answers."""

    custom_id: str
    response: _Response | None = None


def ask_in_batches(settings: OpenAI, desk: Desk, budget: Budget) -> None:
    """Settle all that is pending, the batches of a killed run first, in as many rounds as it takes.

    Raises ExpertError where the endpoint refuses a batch, cannot be reached, or answers nothing of a batch.
    """
    batches = _Batches(settings, desk, budget)
    try:
        batches.collect()
        while not desk.figures.stopped and (pending := desk.pending()):
            batches.submit(pending)
            batches.collect()
    finally:
        batches.close()


def under_way(folder: Path) -> bool:
    """Whether batches were made of the calls of this folder that are not over. Raises FormatError."""
    file = folder / BATCHES
    return file.exists() and bool(_read(file))


class _Batches:
    """The batches of a folder that are not over."""

    def __init__(self, settings: OpenAI, desk: Desk, budget: Budget) -> None:
        self._settings, self._desk, self._budget = settings, desk, budget
        self._calls = BatchCalls(settings)
        self._lines = Lines(desk.journal.folder / BATCHES)
        self._open = _read(desk.journal.folder / BATCHES)
        # What may have been charged for calls that must be made again, and what is set aside for those in batches.
        self._before = dict(desk.journal.lost)
        sent = {one.call for state in self._open.values() for one in state.calls}
        self._reserved = {call: self._before.pop(call) for call in list(self._before) if call in sent}

    def close(self) -> None:
        """No batch can be made any more."""
        self._lines.close()

    def submit(self, pending: Sequence[Request]) -> None:
        """Make batches of as many calls as the budget allows."""
        settings = self._settings
        with tempfile.TemporaryFile() as file:
            calls: list[_Sent] = []
            for request in pending:
                parts = self._parts(request)
                body, estimate = settings.body(parts), settings.estimate(parts)
                line = {"custom_id": str(len(calls)), "method": "POST", "url": "/v1/chat/completions", "body": body}
                raw = json.dumps(line).encode() + b"\n"
                if len(calls) >= MOST_REQUESTS or (calls and file.tell() + len(raw) > MOST_FILE):
                    self._make(file, calls)
                    calls = []
                    raw = json.dumps(line | {"custom_id": "0"}).encode() + b"\n"
                try:
                    self._reserved[request.call] = self._budget.set_aside(estimate, wait=False)
                except BudgetError:
                    # What is made first may cost less than it could, and leave enough for more.
                    if not self._open and not calls:
                        self._desk.figures.stopped = STOPPED
                    break
                file.write(raw)
                (image, object, span), attempt = request.call
                calls.append(_Sent(img_id=image, object=object, span=span, attempt=attempt, fingerprint=fingerprint(body)))
            if calls:
                self._make(file, calls)

    def collect(self) -> None:
        """Wait for every batch that is open and record its answers."""
        for state in list(self._open.values()):
            found = state.id or self._calls.find(state.name, state.time)
            if found is None:  # a kill came before it was made
                self._end(state)
                continue
            batch = self._calls.wait(found, self._tell)
            self._tell("")
            before = self._desk.figures.calls.total()
            unread = sum(self._record(state, file) for file in batch.files)
            if unread:
                # Paid for, maybe: not to be made again unasked.
                what = f"{unread} lines of the answers of batch {batch.id[:40]} cannot be read"
                mend = f'run again to fetch them again; if it stays so, "over": true in its last line of {BATCHES} gives it up'
                raise ExpertError(self._calls.scrub(f"{self._settings.base_url}: {what}; {mend}"))
            left = self._end(state)
            if left and self._desk.figures.calls.total() == before:
                what = f"batch {batch.id[:40]} is {batch.status} and has no answers ({batch.said})"
                raise ExpertError(self._calls.scrub(f"{self._settings.base_url}: {what}; run again to make a new one"))

    def _tell(self, waiting: str) -> None:
        self._desk.figures.waiting = waiting
        self._desk.tell()

    def _make(self, file: IO[bytes], calls: list[_Sent]) -> None:
        """Upload what was written to `file`, make a batch of it, and empty the file."""
        state = _State(name=secrets.token_hex(8), time=time.time(), calls=tuple(calls))
        self._note(state)
        for call in (one.call for one in calls):
            known = self._settings.price_in is not None
            self._desk.journal.sending(call, self._before.get(call, 0.0) + self._reserved[call] if known else None)
        uploaded = self._calls.upload(state.name, file)
        file.seek(0)
        file.truncate()
        self._note(state.model_copy(update={"id": self._calls.make(state.name, state.time, uploaded)}))

    def _record(self, state: _State, file: str) -> int:
        """Record the answers of a file, but for those that an earlier run has recorded; how many lines are no answers."""
        unread = 0
        waiting = {request.call: request for request in self._desk.pending()}
        sent = {str(number): one for number, one in enumerate(state.calls)}
        for line in _answers(self._calls.download(file)):
            one = None if line is None else sent.get(line.custom_id)
            if line is None or one is None:
                unread += 1
                continue
            request, answer = waiting.pop(one.call, None), _answer(line)
            if request is None or answer is None:
                continue
            bill, reserved = 0.0, self._reserved.pop(request.call, 0.0)
            if line.response is not None and line.response.status_code == 200:
                bill = reserved
                if answer.tokens_in is not None and answer.tokens_out is not None:
                    self._budget.learn(self._settings.estimate(self._parts(request)), answer.tokens_in)
                    bill = self._settings.cost(answer.tokens_in, answer.tokens_out) or 0.0
            self._budget.settle(reserved, bill)
            reply = Reply(
                expert=self._settings.model,
                fingerprint=one.fingerprint,
                completion=self._calls.scrub(answer.completion),
                verdict=answer.verdict,
                reason=self._calls.scrub(answer.reason),
                tokens_in=answer.tokens_in,
                tokens_out=answer.tokens_out,
                cost=None if self._settings.price_in is None else self._before.pop(request.call, 0.0) + bill,
            )
            self._desk.settle(request, reply)
        return unread

    def _end(self, state: _State) -> int:
        """Close a batch; how many of its calls have no record: they cost nothing and will be made again."""
        pending = {request.call for request in self._desk.pending()}
        left = [one.call for one in state.calls if one.call in pending]
        for call in left:
            self._desk.journal.sending(call, self._before.get(call, 0.0))
            self._budget.settle(self._reserved.pop(call, 0.0), 0.0)
        self._note(state.model_copy(update={"over": True}))
        return len(left)

    def _note(self, state: _State) -> None:
        self._lines.append(state.model_dump(exclude={"calls"} if state.id or state.over else set()))
        if state.over:
            self._open.pop(state.name, None)
        else:
            self._open[state.name] = state

    def _parts(self, request: Request) -> tuple[Part, ...]:
        settings = self._settings
        return ask_parts(request.sample, self._desk.schema, settings.whole_pixels, settings.crop_pixels, request.reason)


def _answer(line: _Line) -> Answer | None:
    """What a line says; None where the request was never answered, so that it is made again."""
    response = line.response
    if response is None:
        return None
    raw = json.dumps(response.body).encode()
    if response.status_code != 200:
        return declined(raw.decode(), f"status {response.status_code}: {raw.decode()[:300]}")
    try:
        return read_answer(raw)
    except UnreadableError as error:
        return Answer(verdict="error", reason=str(error))


def _answers(raw: bytes) -> Iterator[_Line | None]:
    """The lines of a file of answers; None for what is none."""
    for line in filter(bytes.strip, raw.splitlines()):
        try:
            yield _Line.model_validate_json(line)
        except ValidationError:
            yield None


def _read(path: Path) -> dict[str, _State]:
    """The batches that are not over, by name. Raises FormatError."""
    states: dict[str, _State] = {}
    for number, raw in enumerate(path.read_bytes().splitlines(), 1):
        try:
            line = _State.model_validate_json(raw)
        except ValidationError:
            Place(str(path), number).refuse("malformed line", "look up the batch with the provider, then delete the line")
        known = states.get(line.name)
        states[line.name] = line if known is None else known.model_copy(update={"id": line.id or known.id, "over": line.over})
    return {name: state for name, state in states.items() if not state.over}
