"""A run folder -> one HTML file that needs nothing else: figures, curves, completions, and predictions or traces to browse."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError

from more_r1.evaluation.curves import confidence_curves, curves, read_log
from more_r1.evaluation.gallery import choose, page_data, read_prediction
from more_r1.evaluation.metrics import Metrics, Outcome, PredictionError, measure, read_records
from more_r1.evaluation.pool import FIGURES, read_pool
from more_r1.evaluation.published import PUBLISHED
from more_r1.evaluation.samples import samples
from more_r1.evaluation.settings import relations
from more_r1.evaluation.traces import count_traces, read_pairs, trace_data
from more_r1.formats.paths import replacing
from more_r1.reasoning.prediction import Prediction
from more_r1.schema import NONE

MOST_LABELS = 40
# What a report is made of; a folder with none of them is no run's.
_FILES = ("metrics.json", "predictions.jsonl", "log.jsonl", "recipe.yaml", FIGURES, "traces.jsonl")


def write_report(run: str | Path, browse: int = 300) -> Path:
    """Write `run/report.html` from the run's metrics.json, predictions.jsonl, log.jsonl, recipe.yaml, difficulty.json and
    traces.jsonl.

    The page loads nothing from anywhere; what is missing is left out. At most `browse` predictions can be browsed on it, or
    pairs with their traces where there are no predictions, see `gallery.choose`. Without a metrics.json the predictions are
    measured, without a difficulty.json the one of the folder that the recipe names is shown. Raises PredictionError or
    FormatError, with file and line, where a file cannot be used, PredictionError where there is none of them, and
    NotADirectoryError where there is no such folder.
    """
    run = Path(run)
    if not run.is_dir():
        raise NotADirectoryError(f"{run}: no such folder; give the folder of a run")
    if not any((run / name).is_file() for name in _FILES):
        raise PredictionError(f"{run}: no run's folder, it has none of {', '.join(_FILES)}; give the folder of a run")
    predictions = _predictions(run / "predictions.jsonl")
    metrics = _metrics(run / "metrics.json", predictions)
    events, broken_lines = read_log(run / "log.jsonl") if (run / "log.jsonl").is_file() else ([], 0)
    file = run / "recipe.yaml"
    recipe = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None
    completions, unread_completions = samples(events, relations(recipe))
    chosen = choose(predictions, browse)
    file = run / "traces.jsonl"
    traced = read_pairs(file) if file.is_file() else None
    reading = bool(traced) and not predictions
    data = trace_data(traced or [], browse, recipe, run) if reading else page_data(chosen, run)
    environment = Environment(
        loader=PackageLoader("more_r1", "evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda fraction: f"{100 * fraction:.2f}"
    script = _source(environment, "report.js")
    html = environment.get_template("report.html").render(
        name=run.resolve().name,
        style=_source(environment, "report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        metrics=metrics,
        confidence=None if metrics is None or metrics.confidence is None else confidence_curves(metrics.confidence),
        published=PUBLISHED,
        curves=curves(events),
        broken_lines=broken_lines,
        completions=completions,
        unread_completions=unread_completions,
        pool=read_pool(run, recipe),
        confusion=_confusion(predictions),
        recipe=recipe,
        traces=count_traces(traced) if traced is not None else None,
        reading=reading,
        data=data,
        outcomes=("all", *sorted({p["outcome"] for p in data["pairs"]})) if reading else ("all", "right", "wrong"),
        pairs=len(traced or []) if reading else len(predictions),
        labels=sorted({p[name] for p in data["pairs"] for name in ("gold", "predicted") if p.get(name) is not None}),
        verdicts=sorted({call["verdict"] for p in data["pairs"] for call in p.get("calls", ())}),
        hops=sorted({p.hops for p in chosen if p.hops is not None}),
    )
    return _write(run / "report.html", html)


@dataclass(frozen=True)
class Confusion:
    """How often each gold label (a row) was answered by each label (a column), and how often the form was broken.

    `rows` are the label, its count, and its cells as (count, share of the row), the broken forms last. `left_out` counts
    the rarer labels for which there is no room.
    """

    labels: tuple[str, ...]
    rows: tuple[tuple[str, int, tuple[tuple[int, float], ...]], ...]
    left_out: int


def _confusion(predictions: Sequence[Prediction]) -> Confusion | None:
    counts = Counter((prediction.gold, prediction.predicted) for prediction in predictions if prediction.gold is not None)
    if not counts:
        return None
    totals, seen = Counter[str](), Counter[str]()
    for (gold, predicted), count in counts.items():
        totals[gold] += count
        seen[gold] += count
        if predicted is not None:
            seen[predicted] += count
    common = sorted(seen, key=lambda label: (-seen[label], label))[:MOST_LABELS]
    labels = tuple(sorted(common, key=lambda label: (label != NONE, label)))
    rows = []
    for gold in labels:
        cells = [counts[gold, predicted] for predicted in (*labels, None)]
        rows.append((gold, totals[gold], tuple((count, count / max(totals[gold], 1)) for count in cells)))
    return Confusion(labels, tuple(rows), len(seen) - len(labels))


def _predictions(path: Path) -> list[Prediction]:
    if not path.is_file():
        return []
    return [read_prediction(record, f"{path}:{number}") for number, record in read_records(path)]


def _metrics(path: Path, predictions: Sequence[Prediction]) -> Metrics | None:
    if path.is_file():
        try:
            return Metrics.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise PredictionError(f"{path}: {field}: {first['msg']}; write it anew with `more-r1 evaluate`") from error
    known = [prediction for prediction in predictions if prediction.gold is not None]
    return measure(prediction.model_dump(include=set(Outcome.model_fields)) for prediction in known) if known else None


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0].strip()


def _write(path: Path, html: str) -> Path:
    """Whole or not at all. A lone surrogate, which JSON may hold and UTF-8 may not, becomes a question mark."""
    with replacing(path) as fresh:
        fresh.write_bytes(html.encode("utf-8", "replace"))
    return path
