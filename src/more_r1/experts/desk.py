"""Between pairs and experts: hands out what is still to be asked, judges and records what comes back, and counts."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from more_r1.experts.filter import Bounds, judge_trace
from more_r1.experts.journal import Call, Journal
from more_r1.experts.question import known_types
from more_r1.experts.reply import CONTENT_FILTER, EMPTY, ERROR, REFUSAL, Reply
from more_r1.formats.fault import quoted
from more_r1.formats.traces import ACCEPTED, Key, TraceRecord
from more_r1.schema import Schema
from more_r1.training.recipe import RecipeError
from more_r1.training.samples import Sample

# Verdicts that say nothing of the text, so that the expert is asked again as if for the first time.
_NO_FAULT_OF_THE_TEXT = (REFUSAL, CONTENT_FILTER, EMPTY, ERROR)
_REFUSES = re.compile(
    r"(?i)\W*(unfortunately,? |(but )?as an AI[^,.]{0,40},? |I apologi[sz]e[^.]{0,60}?[,.] (but )?)?"
    r"(I['’]?m (very |really |so )?sorry|sorry\b|I(['’]?m| am) (unable|not able)\b|I (can['’]?t|cannot|can not|won['’]?t)\b)"
)


@dataclass
class Figures:
    """An annotation in figures, all runs of its folder together."""

    pairs: int
    final: Counter[str] = field(default_factory=Counter)
    """Pairs that are done by verdict."""
    calls: Counter[str] = field(default_factory=Counter)
    """Calls by verdict."""
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None
    stopped: str = ""
    """Why the run ended before all pairs were done."""
    waiting: str = ""
    """What is waited for, where that takes long."""

    @property
    def done(self) -> int:
        return self.final.total()

    @property
    def accepted(self) -> int:
        return self.final[ACCEPTED]

    @property
    def line(self) -> str:
        """How it goes, for a bar: what is waited for, the share of calls that were accepted, the cost so far."""
        calls = self.calls.total()
        parts = [self.waiting or "annotating", f"accepted {self.accepted / calls:.0%}" if calls else ""]
        parts += [] if self.cost is None else [f"cost {self.cost:.2f}"]
        return ", ".join(part for part in parts if part)

    def add(self, record: TraceRecord) -> None:
        """Count a record."""
        self.calls[record.verdict] += 1
        self.final[record.verdict] += record.final
        self.tokens_in += record.tokens_in or 0
        self.tokens_out += record.tokens_out or 0
        if record.cost is not None:
            self.cost = (self.cost or 0.0) + record.cost


@dataclass(frozen=True)
class Request:
    """A pair to be asked about; `attempt` counts from 1, `reason` is why the one before was rejected."""

    sample: Sample
    attempt: int = 1
    reason: str = ""

    @property
    def call(self) -> Call:
        return self.sample.key, self.attempt


class Desk:
    """All that an expert is driven by; threads may share it.

    Raises RecipeError if the journal has records of other pairs, or of these with other labels. `tell` is given the figures
    after every record.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        journal: Journal,
        schema: Schema,
        bounds: Bounds,
        tries: int,
        tell: Callable[[Figures], None],
    ) -> None:
        self.journal, self.schema, self._bounds, self.tries, self._listener = journal, schema, bounds, tries, tell
        self._samples: dict[Key, Sample] = {}
        for sample in samples:
            self._samples.setdefault(sample.key, sample)
        self._lock = threading.Lock()
        self.figures = Figures(len(self._samples))
        self._last: dict[Key, TraceRecord] = {}
        for record in journal.records:
            drawn = self._samples.get(record.key)
            if drawn is None or drawn.label != record.label:
                what = f"document {quoted(record.img_id)}, object {quoted(record.object)}, span {record.span}"
                raise RecipeError(f"{what}: recorded in this folder, but not drawn or with another label; give another out=")
            self._last[record.key] = record
            self.figures.add(record)
        self.tell()

    def tell(self) -> None:
        """Say how far it is."""
        with self._lock:
            self._listener(self.figures)

    def pending(self) -> list[Request]:
        """What is still to be asked, in the order of the draw."""
        requests = []
        for key, sample in self._samples.items():
            last = self._last.get(key)
            if last is None:
                requests.append(Request(sample))
            elif not last.final:
                requests.append(Request(sample, last.attempt + 1, _told(last)))
        return requests

    def settle(self, request: Request, reply: Reply) -> Request | None:
        """Judge and record a reply; what is to be asked next about this pair, None if it is done."""
        name, reason = reply.verdict, reply.reason
        if name is None:
            sample = request.sample
            verdict = judge_trace(reply.completion, sample.label, known_types(sample), self.schema, self._bounds)
            name, reason = verdict.name, "; ".join(part for part in (reply.reason, verdict.reason) if part)
            if name == "form" and _REFUSES.match(reply.completion):
                name, reason = REFUSAL, reply.completion[:200]
        image, object, span = request.sample.key
        record = TraceRecord(
            img_id=image,
            object=object,
            span=span,
            label=request.sample.label,
            expert=reply.expert,
            fingerprint=reply.fingerprint,
            attempt=request.attempt,
            completion=reply.completion,
            verdict=name,
            reason="" if name == ACCEPTED else reason,
            final=name == ACCEPTED or request.attempt >= self.tries,
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            cost=reply.cost,
        )
        self.journal.record(record)
        with self._lock:
            self._last[record.key] = record
            self.figures.add(record)
            self._listener(self.figures)
        return None if record.final else Request(request.sample, request.attempt + 1, _told(record))


def _told(record: TraceRecord) -> str:
    return "" if record.verdict in _NO_FAULT_OF_THE_TEXT else record.reason
