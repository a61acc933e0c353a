"""How fast an endpoint is asked: requests and tokens a minute, evenly spaced, and not while it wants to be left alone."""

from __future__ import annotations

import threading
import time


class StoppedError(Exception):
    """The run ends: nothing more is to be sent."""


class Limiter:
    """Lets calls of many threads through one by one. No bursts: any second has its share of a minute at most.

    `stop` ends all waiting: `take` then raises StoppedError.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None, stop: threading.Event) -> None:
        self._a_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._a_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._stop = stop
        self._turn = threading.Lock()
        self._state = threading.Lock()
        # When, on the monotonic clock, the next call may go by requests, by tokens, and by what the endpoint asked for.
        self._requests = self._tokens = self._held = 0.0

    def take(self, tokens: int) -> None:
        """Wait until a call of so many tokens may be sent."""
        with self._turn:  # one waits, the others queue behind it
            while True:
                if self._stop.is_set():
                    raise StoppedError
                with self._state:
                    now = time.monotonic()
                    due = max(self._requests, self._tokens, self._held)
                    if now >= due:
                        self._requests = now + self._a_request
                        self._tokens = max(self._tokens, now) + tokens * self._a_token
                        return
                self._stop.wait(due - now)

    def give_back(self, tokens: int) -> None:
        """So many tokens fewer than were taken have been used."""
        with self._state:
            self._tokens -= tokens * self._a_token

    def hold(self, seconds: float) -> None:
        """The endpoint asked to be left alone for so long; calls that wait already wait on."""
        with self._state:
            self._held = max(self._held, time.monotonic() + seconds)
