"""Systems side by side on the same pairs: means and deviations over their runs, and whether a difference is more than chance.

The test is the paired bootstrap (Koehn 2004, Statistical Significance Tests for Machine Translation Evaluation;
Berg-Kirkpatrick et al. 2012): documents are drawn anew with replacement, the same for all systems, for the pairs of a document
are not independent. It says what another test set of this kind might show; what another training might show, the deviation
over runs says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from more_r1.evaluation.metrics import PredictionError, measure, read_records
from more_r1.schema import NONE

FIGURES = ("accuracy", "precision", "recall", "f1", "macro_f1")
HEADS = ("Acc", "P", "R", "F1", "macro-F1")
_DRAWN = 1000  # draws that are counted at a time

Pair = tuple[str, str, tuple[int, ...]]
Answers = dict[Pair, tuple[str, str | None]]
Counts = NDArray[np.float64]
"""[..., 3]: relations that are right, predicted, and gold; of documents, or summed over them."""


@dataclass(frozen=True)
class Difference:
    """F1 of a system less that of the one it is compared with, as fractions of 1, means over the runs of both."""

    f1: float
    low: float
    high: float
    """Between these lie 95 % of what the draws gave."""
    p: float
    """Two-sided: twice the share of the draws in which the sign is another; never less than one over the number of draws."""


@dataclass(frozen=True)
class Row:
    """One system: each of FIGURES for every run, as fractions of 1."""

    name: str
    figures: Mapping[str, tuple[float, ...]]
    difference: Difference | None = None


def runs_of(systems: Sequence[str]) -> dict[str, list[Path]]:
    """From `NAME=RUN`: the runs of each name; a RUN may be a pattern as shells have it, and a name may come again.

    Raises PredictionError for what names no run.
    """
    found: dict[str, list[Path]] = {}
    for system in systems:
        name, equals, run = system.partition("=")
        if not equals or not name or not run:
            raise PredictionError(f"{system!r}: write NAME=RUN, as in 'stage 1=runs/a/test'")
        # Path.glob takes no absolute patterns.
        paths = [Path(run)] if Path(run).exists() else [Path(path) for path in sorted(glob(run))]  # noqa: PTH207
        if not paths:
            raise PredictionError(f"{system!r}: no such runs; give folders with predictions.jsonl")
        found.setdefault(name, []).extend(paths)
    return found


def compare(systems: Mapping[str, Sequence[Path]], against: str, draws: int = 10_000, seed: int = 0) -> list[Row]:
    """Compare systems, each given by the folders (or predictions.jsonl files) of its runs, with the one named `against`.

    Raises PredictionError where a file cannot be read, and where two do not answer the same pairs with the same gold labels.
    """
    if against not in systems:
        raise PredictionError(f"--against {against!r}: no such system; there are {', '.join(systems)}")
    runs = {name: [read_answers(path) for path in paths] for name, paths in systems.items()}
    first = next(iter(runs.values()))[0]
    for name, paths in systems.items():
        for path, answers in zip(paths, runs[name], strict=True):
            _same(first, answers, path)
    documents = {document: number for number, document in enumerate(dict.fromkeys(pair[0] for pair in first))}
    counts = {name: np.stack([_counts(answers, documents) for answers in found]) for name, found in runs.items()}
    drawn = _bootstrap(counts, len(documents), draws, seed)
    rows = []
    for name, found in runs.items():
        measured = [measure({"gold": gold, "predicted": said} for gold, said in answers.values()) for answers in found]
        figures = {figure: tuple(float(getattr(one, figure)) for one in measured) for figure in FIGURES}
        rows.append(Row(name, figures, None if name == against else _difference(counts, drawn, name, against)))
    return rows


def read_answers(path: Path) -> Answers:
    """Gold and predicted labels by pair, of a predictions.jsonl or the folder that has one. Raises PredictionError."""
    file = path / "predictions.jsonl" if path.is_dir() else path
    answers: Answers = {}
    for number, record in read_records(file):
        try:
            key = (str(record["document"]), str(record["object"]), tuple(map(int, record["span"])))
            gold, predicted = record["gold"], record["predicted"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise PredictionError(f"{file}:{number}: no prediction ({error!r}); give what `more-r1 evaluate` wrote") from error
        if not isinstance(gold, str) or not isinstance(predicted, str | None):
            raise PredictionError(f"{file}:{number}: gold is no label; give predictions on pairs whose labels are known")
        if key in answers:
            raise PredictionError(f"{file}:{number}: a second prediction on {key}; keep one of them")
        answers[key] = gold, predicted
    if not answers:
        raise PredictionError(f"{file}: no predictions; give what `more-r1 evaluate` wrote")
    return answers


def markdown(rows: Sequence[Row], against: str) -> str:
    """The table as Markdown, in percent."""
    head = ["system", "runs", *HEADS, f"Δ F1 to {against} (95 %)", "p"]
    lines = [head, ["---"] * len(head), *([row.name.replace("|", "\\|"), *_cells(row)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def render(rows: Sequence[Row], against: str) -> Table:
    """The table for a terminal, in percent."""
    table = Table("system", "runs", *HEADS, "Δ F1 (95 %)", "p", caption=f"Δ F1: less that of {against}")
    for row in rows:
        table.add_row(Text(row.name), *_cells(row))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _cells(row: Row) -> list[str]:
    figures = [_mean(row.figures[figure]) for figure in FIGURES]
    runs = str(len(row.figures["f1"]))
    if row.difference is None:
        return [runs, *figures, "", ""]
    its = row.difference
    interval = f"{100 * its.f1:+.1f} ({100 * its.low:+.1f} to {100 * its.high:+.1f})"
    return [runs, *figures, interval, f"{its.p:.4f}"]


def _mean(values: Sequence[float]) -> str:
    percent = [100 * value for value in values]
    return f"{mean(percent):.1f} ± {stdev(percent):.1f}" if len(percent) > 1 else f"{percent[0]:.1f}"


def _same(one: Answers, other: Answers, path: Path) -> None:
    differing = next((pair for pair in {**one, **other} if one.get(pair, ("",))[0] != other.get(pair, ("",))[0]), None)
    if differing is not None:
        raise PredictionError(f"{path}: {differing} is not in all runs with one gold label; evaluate all on the same split")


def _counts(answers: Answers, documents: Mapping[str, int]) -> Counts:
    counts = np.zeros((len(documents), 3))
    for (document, *_), (gold, said) in answers.items():
        counts[documents[document]] += (gold == said != NONE, said not in (NONE, None), gold != NONE)
    return counts


def _f1(counts: Counts) -> Counts:
    """Of the last axis of sums; 0 where there is nothing (as reasoning.scoring has it)."""
    whole = counts[..., 1] + counts[..., 2]
    return np.divide(2 * counts[..., 0], whole, out=np.zeros_like(whole), where=whole > 0)


def _bootstrap(counts: Mapping[str, Counts], documents: int, draws: int, seed: int) -> dict[str, Counts]:
    """The mean F1 of each system's runs in each draw."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[Counts]] = {name: [] for name in counts}
    for start in range(0, draws, _DRAWN):
        often = rng.multinomial(documents, np.full(documents, 1 / documents), size=min(_DRAWN, draws - start)).astype(float)
        for name, each in counts.items():
            found[name].append(_f1(np.einsum("nd,rdk->nrk", often, each, optimize=True)).mean(1))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _difference(counts: Mapping[str, Counts], drawn: Mapping[str, Counts], name: str, against: str) -> Difference:
    f1 = float(_f1(counts[name].sum(1)).mean() - _f1(counts[against].sum(1)).mean())
    differences = drawn[name] - drawn[against]
    low, high = np.quantile(differences, (0.025, 0.975))
    other_sign = min((differences <= 0).mean(), (differences >= 0).mean())
    return Difference(f1, float(low), float(high), float(min(1.0, max(2 * other_sign, 1 / len(differences)))))
