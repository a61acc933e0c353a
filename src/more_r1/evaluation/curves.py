"""The log of a training run -> curves, ready to be drawn as SVG: points in a unit square, ticks with their texts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from more_r1.evaluation.confidence import Confidence

# Points of a line: more are told apart by nobody, and what is drawn from a few pairs a step is noise that hides its course.
FINE, COARSE = 240, 32
# Share of the pairs below which a bin of the reliability diagram is not drawn.
RARE = 0.01


@dataclass(frozen=True)
class Chart:
    """What is drawn together: keys of log.jsonl, and their names in the legend. A chart of one key needs no legend."""

    title: str
    keys: dict[str, str]
    most: int = FINE
    from_zero: bool = False


# By the headings under which they stand. A step of stage 2 logs means over its own few pairs: these are drawn coarse.
CHARTS = {
    "Validation": (
        Chart(
            "On valid",
            {"valid_f1": "F1", "valid_precision": "precision", "valid_recall": "recall", "valid_accuracy": "accuracy"},
        ),
        Chart("Broken form on valid", {"valid_broken": "broken form"}, from_zero=True),
    ),
    "Rewards": (
        Chart(
            "Mean reward",
            {
                "reward": "total",
                "reward_format": "format",
                "reward_length": "length",
                "reward_answer": "answer",
                "reward_consistency": "consistency",
            },
            COARSE,
            from_zero=True,
        ),
        Chart("Share of right answers", {"accuracy_easy": "easy pairs", "accuracy_hard": "hard pairs"}, COARSE, from_zero=True),
        Chart("Share of equal groups", {"equal_groups": "equal"}, COARSE, from_zero=True),
    ),
    "Completions": (
        Chart("Tokens of a completion", {"length": "tokens"}, COARSE),
        Chart("Share cut off at the limit", {"cut": "cut off"}, COARSE, from_zero=True),
        Chart("Entropy of a token", {"entropy": "entropy"}, COARSE),
    ),
    "Training": (
        Chart("Loss", {"loss": "loss"}),
        Chart("Learning rate", {"lr": "rate"}),
        Chart("Gradient norm", {"grad_norm": "norm"}),
        Chart("Divergence from the reference", {"kl": "divergence"}),
        Chart("Share of clipped tokens", {"clipped": "clipped"}, COARSE, from_zero=True),
        Chart("How far vLLM's draws are off", {"sampler_difference": "difference"}, from_zero=True),
        Chart(
            "Weights of vLLM's draws",
            {"importance": "mean", "importance_max": "largest", "importance_min": "smallest"},
        ),
    ),
    "Cost of a step": (
        Chart("Tokens to learn from", {"tokens": "computed", "repeated_tokens": "without sharing"}, COARSE, from_zero=True),
        Chart(
            "Seconds",
            {"seconds": "whole step", "seconds_rollout": "rollout", "seconds_train": "training", "seconds_reward": "rewards"},
            COARSE,
            from_zero=True,
        ),
    ),
}


@dataclass(frozen=True)
class Line:
    """A quantity over the steps of a run. `number` is its place in the chart, drawn or not: it has its colour."""

    name: str
    number: int
    points: tuple[tuple[float, float], ...]
    last: str


@dataclass(frozen=True)
class Curve:
    """The lines of a chart. Points and the places of ticks are fractions, (0, 0) being bottom left."""

    title: str
    lines: tuple[Line, ...]
    steps: tuple[tuple[float, str], ...]
    values: tuple[tuple[float, str], ...]
    legend: bool
    note: str


def read_log(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The events of a log.jsonl, and how many of its lines are no JSON object (a run that was killed leaves half a line)."""
    events: list[dict[str, Any]] = []
    broken = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                event = None
            if isinstance(event, dict):
                events.append(event)
            elif line.strip():
                broken += 1
    return events, broken


def curves(events: Iterable[dict[str, Any]]) -> dict[str, list[Curve]]:
    """The curves that the events have values for, by heading, on one axis of steps.

    What is not finite is left out, and counted in the note.
    """
    logged = [event for event in events if is_number(event.get("step"))]
    keys = {key for charts in CHARTS.values() for chart in charts for key in chart.keys}
    steps = [event["step"] for event in logged if any(is_number(event.get(key)) for key in keys)]
    if not steps:
        return {}
    drawn = {heading: [_curve(chart, logged, _limits(steps)) for chart in charts] for heading, charts in CHARTS.items()}
    return {heading: kept for heading, found in drawn.items() if (kept := [curve for curve in found if curve is not None])}


def confidence_curves(confidence: Confidence) -> tuple[Curve, Curve]:
    """The reliability diagram, accuracy by confidence, and the risk-coverage curve; both on axes from 0, in percent.

    A bin of very few pairs would look like a finding: it counts in the error, but is not drawn.
    """
    ticks = ((0.0, "0 %"), (0.5, "50 %"), (1.0, "100 %"))
    measured = {"calibrated": confidence.after, "before": confidence.before}
    if confidence.temperature == 1:
        measured = {"measured": confidence.after}
    lines = [
        Line(
            name=name,
            number=number,
            points=tuple((part.confidence, part.accuracy) for part in found.bins if part.pairs > RARE * found.pairs),
            last=f"{100 * found.ece:.2f} %",
        )
        for number, (name, found) in enumerate(measured.items())
    ]
    lines.append(Line(name="confidence = accuracy", number=2, points=((0.0, 0.0), (1.0, 1.0)), last=""))
    risks = confidence.after.risk_coverage
    top = max(risk for _, risk in risks) or 1.0
    risk = Line(
        name="risk",
        number=0,
        points=tuple((coverage, value / top) for coverage, value in risks),
        last=f"{100 * risks[-1][1]:.2f} %",
    )
    scale = tuple((place, f"{short(100 * place * top, digits=3)} %") for place in (0.0, 0.5, 1.0))
    return (
        Curve("Accuracy by confidence", tuple(lines), ticks, ticks, True, "bins of less than 1 % of the pairs are not drawn"),
        Curve("Risk by coverage", (risk,), ticks, scale, False, ""),
    )


def is_number(value: object) -> bool:
    """Whether a value of a log can be drawn and reckoned with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100


def short(value: float, digits: int = 4) -> str:
    """A number with so many digits that count, if it is no large one."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def _curve(chart: Chart, logged: Sequence[dict[str, Any]], steps: tuple[float, float]) -> Curve | None:
    points = {key: _points(key, logged) for key in chart.keys}
    if not any(points.values()):
        return None
    size = math.ceil(max(map(len, points.values())) / chart.most)
    means = {key: _means(found, size) for key, found in points.items() if found}
    ys = [y for line in means.values() for _, y in line]
    left, right = steps
    low, high = (0.0, max(ys) or 1.0) if chart.from_zero and min(ys) >= 0 else _limits(ys)
    lost = sum(isinstance(event.get(key), float) and not math.isfinite(event[key]) for key in chart.keys for event in logged)
    notes = [f"each point the mean of {size} logged values"] if size > 1 else []
    notes += [f"{lost} values were not finite and are left out"] if lost else []
    lines = [
        Line(
            name=name,
            number=number,
            points=tuple(((x - left) / (right - left), (y - low) / (high - low)) for x, y in means[key]),
            last=short(means[key][-1][1]),
        )
        for number, (key, name) in enumerate(chart.keys.items())
        if key in means
    ]
    return Curve(
        title=chart.title,
        lines=tuple(lines),
        steps=tuple((place, f"{left + place * (right - left):,.0f}") for place in (0.0, 0.5, 1.0)),
        values=tuple((place, short(low + place * (high - low), digits=3)) for place in (0.0, 0.5, 1.0)),
        legend=len(chart.keys) > 1,
        note="; ".join(notes),
    )


def _points(key: str, logged: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    # A resumed run logs some steps twice: the later event is the one that the run went on from.
    return sorted({event["step"]: event[key] for event in logged if is_number(event.get(key))}.items())


def _means(points: Sequence[tuple[float, float]], size: int) -> list[tuple[float, float]]:
    """The means of `size` points each, the first of fewer if they do not come out even."""
    parts = [points[max(end - size, 0) : end] for end in range(len(points), 0, -size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in reversed(parts)]


def _limits(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low < high:
        return low, high
    margin = abs(low) / 2 or 0.5  # one value, or all the same: it lies in the middle
    return low - margin, high + margin
