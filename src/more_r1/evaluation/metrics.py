"""Predictions -> metrics: the benchmark's figures, and where they come from by label, bucket and hops."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Group
from rich.table import Table
from rich.text import Text

from more_r1.evaluation.confidence import Confidence
from more_r1.reasoning.scoring import Scores, score
from more_r1.schema import NONE


class PredictionError(ValueError):
    """A predictions file that cannot be read; the message names file, line and mend."""


class Outcome(BaseModel):
    """What is measured of one pair. Labels may be any texts; only `none` is special. Other fields of a record are ignored.

    `predicted` None is a completion that broke the form, or a label that was withheld (`abstained`). `objects` and `entities`
    count those of the pair's document.
    """

    model_config = ConfigDict(frozen=True)

    gold: str
    predicted: str | None
    hops: int | None = None
    objects: int | None = None
    entities: int | None = None
    abstained: bool = False

    @property
    def bucket(self) -> str | None:
        """`one entity, several objects` and the like; None where the record does not count them."""
        if self.objects is None or self.entities is None:
            return None
        entities = "one entity" if self.entities == 1 else "several entities"
        return f"{entities}, {'one object' if self.objects == 1 else 'several objects'}"


BUCKETS = tuple(f"{e}, {o}" for e in ("one entity", "several entities") for o in ("one object", "several objects"))


class LabelScores(BaseModel):
    """One label against all others, as fractions of 1; `support` counts its gold pairs."""

    model_config = ConfigDict(frozen=True)

    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


class Metrics(Scores):
    """The benchmark's figures on all pairs, and the same taken apart.

    `macro_f1` is the mean F1 of the labels other than `none` that occur, as gold or as prediction. `broken` is the share of
    completions that broke the form, `abstained` that of withheld labels, which are wrong like those. `buckets` and `hops` hold
    the pairs that say theirs; a pair without hops is in none, as all pairs without a relation are: by hops, recall is the
    figure to read.
    """

    macro_f1: float
    broken: float
    abstained: float = 0.0
    labels: dict[str, LabelScores]
    buckets: dict[str, Scores]
    hops: dict[int, Scores]
    confidence: Confidence | None = None
    """Where predictions have confidence."""


def measure(records: Iterable[Outcome | Mapping[str, Any]]) -> Metrics:
    """Measure predictions: outcomes, or records as predictions.jsonl has them (pydantic's ValidationError on other ones).

    No records at all give zeros.
    """
    outcomes = [Outcome.model_validate(record) for record in records]
    labels = _labels(outcomes)
    positive = [scores.f1 for name, scores in labels.items() if name != NONE]
    hops: dict[int, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.hops is not None:
            hops[outcome.hops].append(outcome)
    buckets = {name: [outcome for outcome in outcomes if outcome.bucket == name] for name in BUCKETS}
    return Metrics(
        **_part(outcomes).model_dump(),
        macro_f1=sum(positive) / len(positive) if positive else 0.0,
        broken=_share(outcome.predicted is None and not outcome.abstained for outcome in outcomes),
        abstained=_share(outcome.abstained for outcome in outcomes),
        labels=labels,
        buckets={name: _part(members) for name, members in buckets.items() if members},
        hops={number: _part(hops[number]) for number in sorted(hops)},
    )


def read_records(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a JSONL file with their line numbers, one at a time; blank lines are skipped.

    Raises PredictionError where the file cannot be read or a line is no JSON object.
    """
    try:
        with Path(path).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _object(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise PredictionError(f"{path}: cannot be read ({error})") from error


def read_predictions(path: str | Path) -> Iterator[Outcome]:
    """Stream the outcomes of a JSONL file; each line needs at least `gold` and `predicted`.

    Raises PredictionError as `read_records` does, and where a field is missing or of the wrong kind.
    """
    for number, record in read_records(path):
        try:
            yield Outcome.model_validate(record, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            mend = "give `gold` a label and `predicted` a label or null; hops, objects and entities are counts or null"
            raise PredictionError(f"{path}:{number}: {field}: {first['msg'].lower()}; {mend}") from error


def score_file(path: str | Path) -> Metrics:
    """Measure a JSONL file of `gold` and `predicted`. Raises PredictionError as `read_predictions` does."""
    return measure(read_predictions(path))


def render(metrics: Metrics) -> Group:
    """The metrics as rich tables, in percent."""
    parts = {"all pairs": metrics, **metrics.buckets}
    figures = Table("pairs of", *("Acc", "P", "R", "F1"), "pairs", "positives", title="Benchmark figures (%)")
    for name, part in parts.items():
        percent = _percent(part.accuracy, part.precision, part.recall, part.f1)
        figures.add_row(name, *percent, str(part.pairs), str(part.gold_positives))
    for number, part in metrics.hops.items():  # pairs without relation have no hops: there is no precision by hops
        recall, positives = _percent(part.recall)[0], str(part.gold_positives)
        figures.add_row(f"{number} hop{'s' if number > 1 else ''}", "", "", recall, "", "", positives)
    labels = Table("label", "P", "R", "F1", "gold", "predicted", title="By label (%)")
    for name, scores in metrics.labels.items():
        # A label is text from a file: neither rich's markup nor the terminal's escape codes may act in it.
        label = Text("".join(letter if letter.isprintable() else "\ufffd" for letter in name))
        percent = _percent(scores.precision, scores.recall, scores.f1)
        labels.add_row(label, *percent, str(scores.support), str(scores.predicted))
    for table in (figures, labels):
        for column in table.columns[1:]:
            column.justify = "right"
    last = [f"macro-F1 {_percent(metrics.macro_f1)[0]} %   broken form {_percent(metrics.broken)[0]} %"]
    if metrics.confidence is not None:
        before, after = metrics.confidence.before, metrics.confidence.after
        last.append(
            f"confidence of {after.pairs} pairs, temperature {metrics.confidence.temperature:.3f}: expected calibration error "
            f"{_percent(before.ece)[0]} % before, {_percent(after.ece)[0]} % after; Brier score {before.brier:.4f}, "
            f"{after.brier:.4f}; area under risk-coverage {after.aurc:.4f}"
        )
    return Group(figures, labels, *last)


def _share(flags: Iterable[bool]) -> float:
    found = list(flags)
    return sum(found) / len(found) if found else 0.0


def _part(outcomes: list[Outcome]) -> Scores:
    return score([outcome.gold for outcome in outcomes], [outcome.predicted for outcome in outcomes])


def _labels(outcomes: list[Outcome]) -> dict[str, LabelScores]:
    """One entry for each label that occurs, in alphabetical order, `none` last."""
    gold = Counter(outcome.gold for outcome in outcomes)
    predicted = Counter(outcome.predicted for outcome in outcomes if outcome.predicted is not None)
    right = Counter(outcome.gold for outcome in outcomes if outcome.gold == outcome.predicted)
    return {
        name: LabelScores(
            precision=right[name] / predicted[name] if predicted[name] else 0.0,
            recall=right[name] / gold[name] if gold[name] else 0.0,
            f1=2 * right[name] / (gold[name] + predicted[name]),
            support=gold[name],
            predicted=predicted[name],
        )
        for name in sorted(gold | predicted, key=lambda name: (name == NONE, name))
    }


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PredictionError(f"{place}: not JSON ({error}); write one JSON object a line") from error
    if not isinstance(record, dict):
        raise PredictionError(f"{place}: not a JSON object; write one JSON object a line")
    return record


def _percent(*fractions: float) -> list[str]:
    return [f"{100 * fraction:.2f}" for fraction in fractions]
