"""The log of a training run -> curves, ready to be drawn as SVG: points in a unit square, ticks with their texts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What is drawn, by its key in log.jsonl.
TITLES = {"loss": "Loss", "lr": "Learning rate", "grad_norm": "Gradient norm", "valid_f1": "F1 on valid"}
MAX_POINTS = 240


@dataclass(frozen=True)
class Curve:
    """A quantity over the steps of a run. `points` and the places of ticks are fractions, (0, 0) being bottom left."""

    title: str
    points: tuple[tuple[float, float], ...]
    steps: tuple[tuple[float, str], ...]
    values: tuple[tuple[float, str], ...]
    last: str
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


def curves(events: Iterable[dict[str, Any]]) -> list[Curve]:
    """The curves that the events have values for; values that are not finite are left out and counted in the note."""
    logged = [event for event in events if _number(event.get("step"))]
    found = {key: [(event["step"], event[key]) for event in logged if _number(event.get(key))] for key in TITLES}
    lost = {key: sum(isinstance(event.get(key), float) and not math.isfinite(event[key]) for event in logged) for key in TITLES}
    return [_curve(title, found[key], lost[key]) for key, title in TITLES.items() if found[key]]


def _curve(title: str, points: list[tuple[float, float]], lost: int) -> Curve:
    # A resumed run logs some steps twice: the later event is the one that the run went on from.
    points = sorted(dict(points).items())
    last = points[-1][1]
    size = math.ceil(len(points) / MAX_POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    means = [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
    xs, ys = [x for x, _ in means], [y for _, y in means]
    (left, right), (low, high) = _limits(xs), _limits(ys)
    notes = [f"each point the mean of {size} logged values"] if size > 1 else []
    notes += [f"{lost} values were not finite and are left out"] if lost else []
    return Curve(
        title=title,
        points=tuple(((x - left) / (right - left), (y - low) / (high - low)) for x, y in means),
        steps=tuple((place, f"{left + place * (right - left):,.0f}") for place in (0.0, 0.5, 1.0)),
        values=tuple((place, _short(low + place * (high - low))) for place in (0.0, 0.5, 1.0)),
        last=_short(last),
        note="; ".join(notes),
    )


def _limits(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low < high:
        return low, high
    margin = abs(low) / 2 or 0.5  # one value, or all the same: it lies in the middle
    return low - margin, high + margin


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100


def _short(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
