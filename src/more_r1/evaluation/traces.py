"""What an expert wrote, ready to be shown: each pair with its calls in order, counts by verdict, label and reason, the cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from more_r1.document import Document
from more_r1.evaluation.gallery import corners, pick, picture
from more_r1.evaluation.settings import relations, setting
from more_r1.formats import FormatError, load_documents
from more_r1.formats.traces import Key, TraceRecord, read_traces
from more_r1.reasoning.trace import Trace, TraceError, parse_trace
from more_r1.schema import NONE, Schema

# More is an expert that babbles, or a file that was made to fill the page.
MOST_CALLS = 12
MOST_CHARACTERS = 6000
MOST_REASONS = 20
MOST_LABELS = 40
Outcome = Literal["accepted", "rejected", "open"]


@dataclass(frozen=True)
class TracedPair:
    """A pair and all calls about it, in the order of the file; `open` is one that will be asked about again."""

    key: Key
    label: str
    calls: tuple[TraceRecord, ...]

    @property
    def outcome(self) -> Outcome:
        last = next((call for call in reversed(self.calls) if call.final), None)
        return "open" if last is None else "accepted" if last.accepted else "rejected"


@dataclass(frozen=True)
class Tally:
    """So many `pairs`, of which so many were accepted, rejected, or are still open; `calls` about them in all."""

    name: str
    calls: int
    pairs: int
    accepted: int
    rejected: int
    open: int

    @property
    def rate(self) -> float:
        """Accepted ones of the pairs that are done with."""
        return self.accepted / max(self.accepted + self.rejected, 1)


@dataclass(frozen=True)
class Costs:
    """Sums over the calls that say theirs; None where no call does."""

    tokens_in: int | None
    tokens_out: int | None
    cost: float | None
    unknown: int
    """Calls without a cost, where others have one."""


@dataclass(frozen=True)
class Traces:
    """All that the page shows but the pairs to read. Attempts count calls, the other tallies pairs too."""

    all: Tally
    labels: tuple[Tally, ...]
    experts: tuple[Tally, ...]
    attempts: tuple[tuple[int, int, int], ...]
    """The number of the attempt, its calls, and how many of these were accepted."""
    verdicts: tuple[tuple[str, int, float], ...]
    """The verdict, its calls and their share."""
    reasons: tuple[tuple[str, str, int], ...]
    """The verdict, why, and its calls; the commonest."""
    other_reasons: int
    other_labels: int
    costs: Costs


def read_pairs(path: Path) -> list[TracedPair]:
    """The pairs of a traces.jsonl, in the order in which they were first asked about. Raises FormatError."""
    calls: dict[Key, list[TraceRecord]] = {}
    for record in read_traces(path):
        calls.setdefault(record.key, []).append(record)
    return [TracedPair(key, found[0].label, tuple(found)) for key, found in calls.items()]


def count_traces(pairs: Sequence[TracedPair]) -> Traces:
    """The figures of all pairs."""
    calls = [call for pair in pairs for call in pair.calls]
    verdicts = Counter(call.verdict for call in calls)
    reasons = Counter((call.verdict, call.reason) for call in calls if call.reason)
    common = sorted(reasons.items(), key=lambda row: (-row[1], row[0]))
    labels = sorted(Counter(pair.label for pair in pairs).items(), key=lambda row: (-row[1], row[0]))
    kept = sorted((label for label, _ in labels[:MOST_LABELS]), key=lambda label: (label != NONE, label))
    numbers = Counter(call.attempt for call in calls)
    right = Counter(call.attempt for call in calls if call.accepted)
    experts = dict.fromkeys(call.expert for call in calls)
    return Traces(
        all=_tally("all", pairs),
        labels=tuple(_tally(label, [pair for pair in pairs if pair.label == label]) for label in kept),
        # A pair is the expert's that was asked last.
        experts=tuple(_tally(name, [p for p in pairs if p.calls[-1].expert == name]) for name in list(experts)[:MOST_LABELS]),
        attempts=tuple((number, numbers[number], right[number]) for number in sorted(numbers)[:MOST_CALLS]),
        verdicts=tuple((name, n, n / len(calls)) for name, n in sorted(verdicts.items(), key=lambda row: (-row[1], row[0]))),
        reasons=tuple((verdict, reason[:300], n) for (verdict, reason), n in common[:MOST_REASONS]),
        other_reasons=max(len(common) - MOST_REASONS, 0),
        other_labels=max(len(labels) - MOST_LABELS, 0),
        costs=_costs(calls),
    )


def trace_data(pairs: Sequence[TracedPair], limit: int, recipe: str | None, run: Path) -> dict[str, Any]:
    """What the page's script gets, as `gallery.page_data`: at most `limit` pairs, each with its calls.

    Pictures, headlines and boxes are those of the data that the recipe names; without it, the traces stand alone.
    """
    schema = relations(recipe)
    chosen = pick([(pair, pair.key[0], pair.outcome == "accepted", pair.label) for pair in pairs], limit)
    documents, why = _documents(recipe, {pair.key[0] for pair in chosen})
    places: dict[str, int] = {}
    shown: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for pair in chosen:
        id, object, (start, end) = pair.key
        document = documents.get(id)
        if id not in places:
            places[id] = len(shown)
            shown.append(_shown(id, document, why, run))
        box = next((one.box for one in document.objects if one.id == object), None) if document else None
        rows.append(
            {
                "document": places[id],
                "object": object,
                "span": (start, end) if document and 0 <= start < end <= len(document.tokens) else (0, 0),
                "gold": pair.label,
                "corners": None if box is None else corners((box.cx, box.cy, box.w, box.h)),
                "outcome": pair.outcome,
                "calls": [_call(call, schema) for call in pair.calls[-MOST_CALLS:]],
                "calls_left_out": max(len(pair.calls) - MOST_CALLS, 0),
            }
        )
    return {"documents": shown, "pairs": rows}


def _tally(name: str, pairs: Sequence[TracedPair]) -> Tally:
    outcomes = Counter(pair.outcome for pair in pairs)
    calls = sum(len(pair.calls) for pair in pairs)
    return Tally(name, calls, len(pairs), outcomes["accepted"], outcomes["rejected"], outcomes["open"])


def _costs(calls: Sequence[TraceRecord]) -> Costs:
    def known(values: Iterable[float | None]) -> list[float]:
        return [value for value in values if value is not None and 0 <= value < 1e12]

    tokens_in, tokens_out = known(call.tokens_in for call in calls), known(call.tokens_out for call in calls)
    costs = known(call.cost for call in calls)
    return Costs(
        tokens_in=int(sum(tokens_in)) if tokens_in else None,
        tokens_out=int(sum(tokens_out)) if tokens_out else None,
        cost=float(sum(costs)) if costs else None,
        unknown=len(calls) - len(costs) if costs else 0,
    )


def _documents(recipe: str | None, ids: set[str]) -> tuple[dict[str, Document], str]:
    """Those documents by id, and why there are none where there are none."""
    data = setting(recipe, "data")
    if data is None:
        return {}, "the recipe names no data"
    try:
        return {one.id: one for one in load_documents(data, "train") if one.id in ids}, "no such document in the data"
    except (FormatError, OSError, ValueError) as error:
        return {}, str(error)


def _shown(id: str, document: Document | None, why: str, run: Path) -> dict[str, Any]:
    if document is None:
        return {"id": id, "tokens": (), "uri": None, "why": why}
    image = str(document.image) if isinstance(document.image, Path) else None
    return {"id": id, "tokens": document.tokens, **picture(image, run)}


def _call(call: TraceRecord, schema: Schema) -> dict[str, Any]:
    try:
        trace: Trace | None = parse_trace(call.completion, schema)
    except TraceError:
        trace = None
    text = call.completion[:MOST_CHARACTERS]
    whole = trace is not None and len(call.completion) <= MOST_CHARACTERS
    return {
        "attempt": call.attempt,
        "expert": call.expert,
        "verdict": call.verdict,
        "reason": call.reason[:MOST_CHARACTERS],
        "answer": trace.answer if trace else None,
        "steps": trace.steps if trace and whole else (),
        "completion": text,
        "left_out": len(call.completion) - len(text),
        "tokens_in": call.tokens_in,
        "tokens_out": call.tokens_out,
        "cost": call.cost,
    }
