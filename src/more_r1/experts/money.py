"""What calls cost: the plan before anything is sent, and a limit that no call passes."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from more_r1.experts.desk import Request
from more_r1.experts.journal import Journal
from more_r1.experts.question import ask_parts
from more_r1.experts.settings import OpenAI
from more_r1.formats.traces import TraceRecord
from more_r1.schema import Schema

STOPPED = "the next call could take the cost above max_cost; set it higher and run again to go on"


class BudgetError(Exception):
    """The next call could cost more than is left."""


class Budget:
    """What has been spent and what calls under way may yet cost, against the most that may be spent.

    A request whose bill is not known (cut short, timed out, in flight at a kill) counts at its most. Threads may share it.
    """

    def __init__(self, settings: OpenAI, most: float | None, journal: Journal) -> None:
        self._settings, self._most, self._journal = settings, most, journal
        self._lock = threading.Condition()
        self._under_way = 0
        self._spent = sum(map(self._paid, journal.records)) + sum(journal.lost.values())
        # Estimates grow to what is charged, should that be more.
        self._ratio = 1.0

    def tokens(self, estimate: int) -> int:
        """At most so many tokens will be charged for a question that was estimated."""
        return int(estimate * self._ratio) + 1

    def _paid(self, record: TraceRecord) -> float:
        """What a call cost, at today's prices if it was made without any."""
        if record.cost is not None:
            return record.cost
        return self._settings.cost(record.tokens_in or 0, record.tokens_out or 0) or 0.0

    def reserve(self, request: Request, estimate: int, before: float) -> float:
        """Set aside what a request may cost and write down that it is sent; `before` is what earlier ones of its call cost.

        Waits as `set_aside`. Raises BudgetError.
        """
        amount = self.set_aside(estimate)
        try:
            self.note(request, before + amount)
        except BaseException:  # it is not sent; others wait for its bill
            self.settle(amount, 0.0)
            raise
        return amount

    def note(self, request: Request, most: float) -> None:
        """Write down what the requests of a call may have cost so far, should no record of it ever say."""
        self._journal.sending(request.call, None if self._settings.price_in is None else most)

    def set_aside(self, estimate: int, wait: bool = True) -> float:
        """Set aside what a request may cost.

        Waits for the bills of others that are under way, if they may leave enough, unless told not to. Raises BudgetError.
        """
        amount = self._settings.cost(self.tokens(estimate), self._settings.max_tokens)
        with self._lock:
            while self._most is not None and self._spent + (amount or 0.0) > self._most:
                if not wait or self._under_way == 0:
                    raise BudgetError
                self._lock.wait()
            self._spent += amount or 0.0
            self._under_way += 1
        return amount or 0.0

    def settle(self, reserved: float, cost: float) -> None:
        """The bill of what was set aside is known."""
        with self._lock:
            self._spent += cost - reserved
            self._under_way -= 1
            self._lock.notify_all()

    @property
    def spent(self) -> float:
        """What has been spent and set aside."""
        return self._spent

    def learn(self, estimate: int, charged: int) -> None:
        """A question that was estimated was charged for."""
        with self._lock:
            self._ratio = max(self._ratio, charged / max(estimate, 1))


@dataclass(frozen=True)
class Plan:
    """What is still to be asked: `least` if the first answer of each pair is accepted, `most` if none ever is.

    `tokens_out` and `cost` take every answer for as long as it may be.
    """

    pairs: int
    calls: tuple[int, int]
    tokens_in: tuple[int, int]
    tokens_out: tuple[int, int]
    cost: tuple[float, float] | None
    spent: float
    max_cost: float | None


def plan_calls(
    settings: OpenAI, schema: Schema, pending: Iterable[Request], tries: int, max_cost: float | None, spent: float
) -> Plan:
    """Count calls and estimate tokens and cost; asks nobody and opens no picture."""
    calls, tokens_in = [0, 0], [0, 0]
    for request in pending:
        parts = ask_parts(request.sample, schema, settings.whole_pixels, settings.crop_pixels, request.reason)
        estimate = settings.estimate(parts)
        for index, count in enumerate((1, max(tries - request.attempt + 1, 1))):
            calls[index] += count
            tokens_in[index] += count * estimate
    tokens_out = [count * settings.max_tokens for count in calls]
    least, most = (settings.cost(sent, back) for sent, back in zip(tokens_in, tokens_out, strict=True))
    cost = None if least is None or most is None else (least, most)
    return Plan(
        calls[0], (calls[0], calls[1]), (tokens_in[0], tokens_in[1]), (tokens_out[0], tokens_out[1]), cost, spent, max_cost
    )
