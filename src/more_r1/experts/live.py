"""Pairs asked about at an endpoint, many at a time, each from its first call to its last.

An endpoint that is down fails every call, which is no fault of the pairs. So a call that it never answered is held back until
another one gets through, and only then recorded as an error; if none does, the endpoint is given up and such calls count as
not made.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

from more_r1.experts.desk import Desk, Request
from more_r1.experts.endpoint import Endpoint
from more_r1.experts.money import STOPPED, Budget, BudgetError
from more_r1.experts.reply import ERROR, ExpertError, Reply
from more_r1.experts.settings import OpenAI

# Calls in a row that fail for good before the endpoint is given up.
_STREAK = 10


def ask_live(settings: OpenAI, desk: Desk, budget: Budget) -> None:
    """Settle all that is pending. Raises ExpertError where the endpoint cannot be asked on."""
    stop = threading.Event()
    endpoint = Endpoint(settings, desk.schema, budget, stop, desk.journal.lost)
    streak = _Streak(settings, desk)

    def see_through(first: Request) -> None:
        request: Request | None = first
        while request is not None and not stop.is_set():
            request = streak.settle(request, endpoint.ask(request))

    with ThreadPoolExecutor(settings.concurrency) as pool:
        futures = [pool.submit(see_through, request) for request in desk.pending()]
        try:
            for future in as_completed(futures):
                future.result()
            streak.end()
        except BudgetError:
            desk.figures.stopped = STOPPED
        finally:
            # Calls under way are let finish, for they are paid for; no other begins.
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


class _Streak:
    """The calls in a row that came to nothing; threads may share it."""

    def __init__(self, settings: OpenAI, desk: Desk) -> None:
        self._settings, self._desk = settings, desk
        self._lock = threading.Lock()
        self._length, self._given_up = 0, False
        self._held: list[tuple[Request, Reply]] = []

    def settle(self, request: Request, reply: Reply) -> Request | None:
        """As Desk.settle does, later where there was no answer. Raises ExpertError at the end of patience."""
        if reply.answered:
            self.end()
            following = self._desk.settle(request, reply)
        else:
            last = request.attempt >= self._desk.tries
            following = None if last else Request(request.sample, request.attempt + 1, request.reason)
        with self._lock:
            self._length = self._length + 1 if reply.verdict == ERROR else 0
            if not reply.answered:
                self._held.append((request, reply))
            if self._length >= _STREAK:
                self._given_up = True
                raise ExpertError(
                    f"{self._settings.base_url}: {_STREAK} calls failed in a row, "
                    f"the last with: {reply.reason}; see to it and run again: what is done stays done"
                )
        return following

    def end(self) -> None:
        """The endpoint answers, or there is nothing left to ask: what was held back is recorded. Not once it is given up."""
        with self._lock:
            if not self._given_up:
                for request, reply in self._held:
                    self._desk.settle(request, reply)
                self._held.clear()
