"""Requests to an OpenAI-compatible endpoint that may be busy, down, slow, or answer nonsense.

The client is that of the `openai` package with its own retries off; ours are tenacity's, so that every request is counted, paid
for and held to the limits. Nothing of the endpoint's is trusted: answers are read up to a bound and a deadline.
"""

from __future__ import annotations

import email.utils
import math
import random
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

import httpx2
import openai
import tenacity

from more_r1.experts.deadline import hold_to
from more_r1.experts.keys import scrub
from more_r1.experts.reply import CONTENT_FILTER, ERROR, Answer, ExpertError, UnreadableError
from more_r1.experts.settings import OpenAI

# An answer of six steps has some kilobytes.
MOST_BYTES = 2**20
_FILTERS = (
    "content_filter",
    "content_policy_violation",
    "ResponsibleAIPolicyViolation",
    "moderation_blocked",
    "flagged_input",
)


class FailedError(Exception):
    """A request that failed and may be tried again. `paid` says whether it may have been charged for."""

    def __init__(self, reason: str, paid: bool, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.paid, self.retry_after = paid, retry_after


class DeclinedError(Exception):
    """A request that the endpoint will not answer, now or later, and does not charge for."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.reason)
        self.answer = answer


class _OversizedError(openai.OpenAIError):
    """An answer that is too long."""


class _Bounded(httpx2.SyncByteStream):
    """A stream of bytes that ends in an error past so many."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream, self._most = stream, most

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for chunk in self._stream:
            size += len(chunk)
            if size > self._most:
                raise _OversizedError(f"the answer is longer than {self._most} bytes")
            yield chunk

    def close(self) -> None:
        self._stream.close()


def open_client(settings: OpenAI, key: str | None, most_bytes: int, seconds: float) -> openai.OpenAI:
    """A client that never tries again by itself, and whose answers may have so many bytes, each request so many seconds."""

    def bound(response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _OversizedError("the answer is compressed, which was not asked for")
        response.stream = _Bounded(response.stream, most_bytes)

    http = openai.DefaultHttpxClient(event_hooks={"response": [bound]})
    hold_to(http, seconds)
    return openai.OpenAI(
        api_key=key or "none",
        base_url=settings.base_url,
        max_retries=0,
        timeout=seconds,
        http_client=http,
        default_headers={"Accept-Encoding": "identity"},
    )


def retrying(settings: OpenAI, stop: threading.Event) -> tenacity.Retrying:
    """Tries again what raises FailedError, ever later and never at the same moment as others; raises the last one."""
    growing = tenacity.wait_exponential_jitter(settings.first_wait, settings.longest_wait, jitter=settings.first_wait)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, FailedError) and error.retry_after is not None:
            return error.retry_after + random.uniform(0, settings.first_wait)
        return growing(state)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(FailedError),
        stop=tenacity.stop_any(tenacity.stop_after_attempt(settings.transport_tries), tenacity.stop_when_event_set(stop)),
        wait=wait,
        sleep=tenacity.nap.sleep_using_event(stop),
        reraise=True,
    )


def explain(error: openai.OpenAIError | UnreadableError, settings: OpenAI, key: str | None) -> NoReturn:
    """Raise what an error of the client means: FailedError (later), DeclinedError (never this request) or ExpertError (never).

    The messages have no key in them, and the error, whose request has one, is not chained.
    """
    if isinstance(error, _OversizedError | UnreadableError):
        raise FailedError(scrub(str(error), key), paid=True) from None
    if isinstance(error, openai.APITimeoutError):
        paid = not isinstance(error.__cause__, httpx2.ConnectTimeout | httpx2.PoolTimeout)
        seconds = error.request.extensions["timeout"]["read"]  # the client's: a transfer of a batch has more than a call
        raise FailedError(f"no answer in {seconds:g} seconds", paid) from None
    if isinstance(error, openai.APIConnectionError):
        paid = not isinstance(error.__cause__, httpx2.ConnectError)
        raise FailedError(f"the connection failed ({type(error.__cause__).__name__})", paid) from None
    said = scrub(" ".join(str(error).split())[:300], key)
    if not isinstance(error, openai.APIStatusError):
        raise ExpertError(f"{settings.base_url}: {said}") from None
    status = error.status_code
    if status == 402 or (status == 429 and error.code == "insufficient_quota"):
        raise ExpertError(f"{settings.base_url}: no money left there ({said}); run again once there is") from None
    if status in (408, 409, 425, 429) or status >= 500:
        raise FailedError(said, paid=False, retry_after=retry_after(error.response.headers, settings.longest_wait)) from None
    refused = declined(str(error.body), said)
    # Moderators of some providers answer 403, which is about this request only.
    if status in (401, 403, 404, 405) and refused.verdict != CONTENT_FILTER:
        mend = "look at expert.base_url, model and key_env"
        raise ExpertError(f"{settings.base_url}: refuses to be asked ({said}); {mend}") from None
    raise DeclinedError(refused) from None


def declined(body: str, said: str) -> Answer:
    """The answer to a request that was refused as such: by a content filter, or as an error."""
    return Answer(verdict=CONTENT_FILTER if any(name in body for name in _FILTERS) else ERROR, reason=said)


def retry_after(headers: Mapping[str, str], longest: float) -> float | None:
    """Seconds that `Retry-After` asks for, as a number or as a date (RFC 9110, 10.2.3), at most `longest`; None without it."""
    said = headers.get("retry-after", "").strip()
    try:
        seconds = float(said)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(said)
        except (ValueError, OverflowError):
            return None
        # A date without a zone is GMT, as all dates of HTTP are.
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), longest) if not math.isnan(seconds) else None
