"""Which learning rate a step has, and after which steps a run validates: functions of the recipe alone."""

from __future__ import annotations

import math
from typing import Literal


def rates(peak: float, steps: int, warmup: float, schedule: Literal["cosine", "constant"]) -> list[float]:
    """The learning rate of each step: a linear rise over `warmup` of the steps, then level or a half cosine down to 0."""
    rise = math.ceil(warmup * steps)
    fall = max(steps - rise, 1)
    up = [peak * (step + 1) / rise for step in range(rise)]
    if schedule == "constant":
        return up + [peak] * (steps - rise)
    return up + [peak * (1 + math.cos(math.pi * step / fall)) / 2 for step in range(steps - rise)]


def validation_steps(steps: int, epochs: int, every: float) -> frozenset[int]:
    """After which steps to validate, if that is to be every so many epochs; the last one always is."""
    apart = every * steps / epochs
    return frozenset([*(max(round(apart * time), 1) for time in range(1, int(steps / apart) + 1)), steps])
