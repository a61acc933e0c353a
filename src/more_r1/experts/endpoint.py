"""An expert behind an OpenAI-compatible endpoint, asked about one pair at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import httpx2
import openai

from more_r1.experts.desk import Request
from more_r1.experts.journal import Call
from more_r1.experts.keys import read_key, scrub
from more_r1.experts.limits import Limiter, StoppedError
from more_r1.experts.money import Budget, BudgetError
from more_r1.experts.question import ask_parts, fingerprint
from more_r1.experts.reply import ERROR, Answer, ExpertError, Reply, UnreadableError, read_answer
from more_r1.experts.settings import OpenAI
from more_r1.experts.transport import MOST_BYTES, DeclinedError, FailedError, explain, open_client, retrying
from more_r1.schema import Schema


class Endpoint:
    """Asks about one pair at a time; threads may share it. Setting `stop` ends all waiting: calls then raise StoppedError.

    `lost` is what calls of a killed run, which have to be made again, may have cost.
    """

    def __init__(
        self, settings: OpenAI, schema: Schema, budget: Budget, stop: threading.Event, lost: Mapping[Call, float]
    ) -> None:
        self._settings, self._schema, self._budget, self._stop, self._lost = settings, schema, budget, stop, lost
        self._key = read_key(settings.key_env)
        self._client = open_client(settings, self._key, MOST_BYTES, settings.timeout)
        self._limiter = Limiter(settings.requests_per_minute, settings.tokens_per_minute, stop)

    def ask(self, request: Request) -> Reply:
        """One call, of as many requests as it takes.

        Raises ExpertError where asking on is of no use, money.BudgetError, limits.StoppedError, and DocumentError for a picture
        that cannot be read.
        """
        settings = self._settings
        parts = ask_parts(request.sample, self._schema, settings.whole_pixels, settings.crop_pixels, request.reason)
        body, estimate = settings.body(parts), settings.estimate(parts)
        cost = self._lost.get(request.call, 0.0)

        def once() -> Answer:
            nonlocal cost
            most = self._budget.tokens(estimate) + settings.max_tokens
            self._limiter.take(most)
            reserved = self._budget.reserve(request, estimate, cost)
            bill, used = reserved, most
            try:
                answer = self._request(body)
                if answer.tokens_in is not None and answer.tokens_out is not None:
                    self._budget.learn(estimate, answer.tokens_in)
                    bill = settings.cost(answer.tokens_in, answer.tokens_out) or 0.0
                    used = answer.tokens_in + answer.tokens_out
                return answer
            except FailedError as failed:
                if not failed.paid:
                    bill, used = 0.0, 0
                if failed.retry_after is not None:
                    self._limiter.hold(failed.retry_after)
                raise
            except (DeclinedError, ExpertError):
                bill, used = 0.0, 0
                raise
            finally:
                cost += bill
                self._budget.settle(reserved, bill)
                self._limiter.give_back(most - used)

        answered = True
        try:
            answer = retrying(settings, self._stop)(once)
        except DeclinedError as declined:
            answer = declined.answer
        except (FailedError, ExpertError, BudgetError, StoppedError) as error:
            # No answer, so that the call may be made again; what it has cost is known.
            self._budget.note(request, cost)
            if not isinstance(error, FailedError):
                raise
            if self._stop.is_set():
                raise StoppedError from None  # cut short by the end of the run: no failure of the call
            answered, answer = False, Answer(verdict=ERROR, reason=str(error))
        return Reply(
            expert=settings.model,
            fingerprint=fingerprint(body),
            completion=scrub(answer.completion, self._key),
            verdict=answer.verdict,
            reason=scrub(answer.reason, self._key),
            tokens_in=answer.tokens_in,
            tokens_out=answer.tokens_out,
            cost=None if settings.price_in is None else cost,
            answered=answered,
        )

    def _request(self, body: dict[str, Any]) -> Answer:
        """One request. Raises FailedError, DeclinedError or ExpertError."""
        try:
            # The body as a whole: what the endpoint takes is the recipe's business, not the client's.
            raw = self._client.post("/chat/completions", body=body, cast_to=httpx2.Response)
            kind = raw.headers.get("content-type", "")
            if "json" not in kind:
                raise UnreadableError(f"the answer is {kind[:60] or 'of no type'}, not JSON")
            return read_answer(raw.content)
        except (openai.OpenAIError, UnreadableError) as error:
            explain(error, self._settings, self._key)
