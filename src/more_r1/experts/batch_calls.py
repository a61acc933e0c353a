"""The requests of OpenAI's Batch API: files go up, a batch is made of one, found again, awaited, and its answers come down.

Every reply is read strictly: a page of a proxy, or half a reply, is a failure that is tried again, and never a batch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import IO, TypeVar

import openai
from pydantic import BaseModel, ValidationError

from more_r1.experts.keys import read_key, scrub
from more_r1.experts.reply import ExpertError, UnreadableError
from more_r1.experts.settings import OpenAI
from more_r1.experts.transport import DeclinedError, FailedError, explain, open_client, retrying

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
# Of the answers of a batch, and of the time that a transfer may take.
_MOST_BYTES, _SECONDS = 2**30, 3600.0
# A batch may have been made where the clocks disagree.
_A_DAY = 86400


class _Made(BaseModel):
    id: str


class _Fault(BaseModel):
    message: str | None = None


class _Faults(BaseModel):
    data: list[_Fault] | None = None


class _Counts(BaseModel):
    completed: int
    total: int


class Batch(BaseModel):
    """How far a batch is."""

    id: str
    status: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: _Counts | None = None
    errors: _Faults | None = None

    @property
    def over(self) -> bool:
        """Whether no answer will come any more."""
        return self.status in ("completed", "failed", "expired", "cancelled")

    @property
    def files(self) -> tuple[str, ...]:
        """The files of its answers."""
        return tuple(file for file in (self.output_file_id, self.error_file_id) if file)

    @property
    def line(self) -> str:
        """How far it is, to be read."""
        counts = self.request_counts
        return f"batch {self.id[:40]} {self.status}" + (f", {counts.completed} of {counts.total}" if counts else "")

    @property
    def said(self) -> str:
        """What the provider says went wrong."""
        return "; ".join(fault.message or "" for fault in (self.errors and self.errors.data) or [])[:300] or "no reason given"


class _Listed(BaseModel):
    id: str
    created_at: float
    metadata: dict[str, str] | None = None


class _Page(BaseModel):
    data: list[_Listed]
    has_more: bool = False


class BatchCalls:
    """A client that tries again what may get through later. All methods raise ExpertError where nothing does."""

    def __init__(self, settings: OpenAI) -> None:
        self._settings = settings
        self._key = read_key(settings.key_env)
        client = open_client(settings, self._key, _MOST_BYTES, _SECONDS)
        self._files, self._batches = client.files.with_raw_response, client.batches.with_raw_response

    def scrub(self, text: str) -> str:
        """The text without the key."""
        return scrub(text, self._key)

    def upload(self, name: str, file: IO[bytes]) -> str:
        """The id of a new file of requests."""
        file.seek(0)
        content = file.read()
        made = self._try(lambda: _read(_Made, self._files.create(file=(f"{name}.jsonl", content), purpose="batch").content))
        return made.id

    def make(self, name: str, begun: float, file: str) -> str:
        """The id of a new batch of the requests in a file; `name` goes into its metadata, `begun` is a time before."""
        tried = False

        def create() -> str:
            nonlocal tried
            # A request that failed may have made the batch all the same, and nobody wants to pay for two.
            found = self._look(name, begun) if tried else None
            tried = True
            if found is not None:
                return found
            batch = self._batches.create(
                input_file_id=file,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"more_r1": name},
            )
            return _read(_Made, batch.content).id

        return self._try(create)

    def find(self, name: str, begun: float) -> str | None:
        """The id of the batch that `make` made; None if it did not come so far."""
        return self._try(lambda: self._look(name, begun))

    def retrieve(self, id: str) -> Batch:
        """How far a batch is."""
        return self._try(lambda: _read(Batch, self._batches.retrieve(id).content))

    def download(self, file: str) -> bytes:
        """The content of a file of answers."""
        return self._try(lambda: self._files.content(file).content)

    def wait(self, id: str, tell: Callable[[str], None]) -> Batch:
        """A batch that is over; `tell` is given how far it is, again and again."""
        while not (batch := self.retrieve(id)).over:
            tell(batch.line)
            time.sleep(self._settings.poll)
        return batch

    def _look(self, name: str, begun: float) -> str | None:
        after: str | openai.Omit = openai.omit
        while True:  # the newest first, page after page
            page = _read(_Page, self._batches.list(limit=100, after=after).content)
            for batch in page.data:
                if (batch.metadata or {}).get("more_r1") == name:
                    return batch.id
                if batch.created_at < begun - _A_DAY:
                    return None
            if not page.has_more or not page.data:
                return None
            after = page.data[-1].id

    def _try(self, call: Callable[[], T]) -> T:
        def once() -> T:
            try:
                return call()
            except (openai.OpenAIError, UnreadableError) as error:
                explain(error, self._settings, self._key)

        try:
            return retrying(self._settings, threading.Event())(once)
        except (FailedError, DeclinedError) as error:
            mend = "run again: what is done stays done, and batches that were made are found again"
            raise ExpertError(f"{self._settings.base_url}: {error}; {mend}") from None


def _read(kind: type[M], raw: bytes) -> M:
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = ".".join(map(str, first["loc"])) or "the answer"
        raise UnreadableError(f"the answer is not one of the Batch API ({what[:60]}: {first['msg'][:100]})") from None
