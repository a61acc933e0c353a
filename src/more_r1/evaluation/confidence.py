"""How far confidence can be trusted: calibration error, Brier score, risk against coverage; and the temperature that helps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from more_r1.reasoning.prediction import Prediction
from more_r1.reasoning.scoring import probability
from more_r1.schema import Schema

BINS = 15
# Points of the risk-coverage curve that are kept.
POINTS = 200
_LEAST, _MOST = 0.02, 50.0  # temperatures that are tried

Share = Annotated[float, Field(ge=0, le=1)]


class Bin(BaseModel):
    """The pairs whose confidence lies in one of BINS equal parts of 0 to 1; both figures are means, 0 where there are none."""

    model_config = ConfigDict(frozen=True)

    pairs: int = Field(ge=0)
    confidence: Share
    accuracy: Share


class Reliability(BaseModel):
    """What confidence is worth on some pairs.

    `ece`: the expected calibration error, the mean over pairs of |accuracy - confidence| of their bin (15 of equal width;
    Guo et al. 2017). `brier`: the mean of (confidence - 1 if right, else 0) squared. `risk_coverage`: the share of wrong
    labels among the most confident pairs, by their share of all pairs; `aurc`: its mean over all coverages (Geifman and
    El-Yaniv 2019). Pairs of equal confidence come in no order: the risk grows evenly through them.
    """

    model_config = ConfigDict(frozen=True)

    pairs: int = Field(ge=1)
    ece: Share
    brier: Share
    aurc: Share
    bins: tuple[Bin, ...] = Field(min_length=BINS, max_length=BINS)
    risk_coverage: tuple[tuple[Share, Share], ...] = Field(min_length=1, max_length=POINTS)


class Confidence(BaseModel):
    """Reliability by the model's own probabilities and by those at the temperature of its calibration (1: it has none)."""

    model_config = ConfigDict(frozen=True)

    temperature: float = Field(gt=0, le=1000)
    before: Reliability
    after: Reliability


def measure_confidence(predictions: Sequence[Prediction], schema: Schema, temperature: float) -> Confidence | None:
    """Of predictions with scores and a gold label; None if there is none. What was withheld is left out."""
    told = [one for one in predictions if one.scores is not None and one.predicted is not None and one.gold is not None]
    if not told:
        return None
    right = [one.predicted == one.gold for one in told]
    before, after = (
        [probability(one.scores or (), schema.labels.index(one.predicted or ""), value) for one in told]
        for value in (1.0, temperature)
    )
    return Confidence(temperature=temperature, before=reliability(before, right), after=reliability(after, right))


def reliability(confidences: Sequence[float], right: Sequence[bool]) -> Reliability:
    """Of the confidence in each label and whether that label is right. Raises ValueError for none at all."""
    if len(confidences) == 0:
        raise ValueError("no pair to measure confidence on")
    sure, hit = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    # As published, a bin is open below and closed above; 0 itself is in the first.
    places = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
    inside = [places == number for number in range(BINS)]
    bins = tuple(
        Bin(pairs=int(some.sum()), confidence=float(sure[some].mean()), accuracy=float(hit[some].mean()))
        if some.any()
        else Bin(pairs=0, confidence=0.0, accuracy=0.0)
        for some in inside
    )
    risks = _risks(sure, hit)
    total = len(sure)
    kept = sorted({max(round(total * (number + 1) / POINTS), 1) for number in range(POINTS)})
    return Reliability(
        pairs=total,
        ece=sum(each.pairs * abs(each.accuracy - each.confidence) for each in bins) / total,
        brier=float(((sure - hit) ** 2).mean()),
        aurc=float(risks.mean()),
        bins=bins,
        risk_coverage=tuple((count / total, float(risks[count - 1])) for count in kept),
    )


def _risks(sure: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """The share of wrong ones among the first 1, 2, ... pairs by confidence, [pairs]."""
    order = np.argsort(-sure, kind="stable")
    wrong: list[float] = []
    for _, group in groupby(order, key=lambda place: sure[place]):
        members = list(group)
        wrong += [float((1 - hit[members]).mean())] * len(members)
    risks: np.ndarray = np.cumsum(wrong) / np.arange(1, len(sure) + 1)
    return risks


def fit_temperature(scores: Sequence[Sequence[float]], gold: Sequence[int]) -> tuple[float, float, float]:
    """The temperature at which gold labels are likeliest, and their mean negative log-probability before and after, in nats.

    `scores` are log-probabilities of all labels, `gold` the place of the right one (Guo et al. 2017). The loss has one minimum
    in 1 / temperature; golden-section search finds it between 0.02 and 50, to six digits. Raises ValueError for no pairs.
    """
    if len(scores) == 0:
        raise ValueError("no pair to fit a temperature on")
    rows, places = np.asarray(scores, dtype=float), np.asarray(gold)

    def loss(log: float) -> float:
        scaled = rows / math.exp(log)
        scaled -= scaled.max(axis=1, keepdims=True)
        of_gold = np.take_along_axis(scaled, places[:, None], axis=1)[:, 0]
        return float((np.log(np.exp(scaled).sum(axis=1)) - of_gold).mean())

    ratio = (math.sqrt(5) - 1) / 2
    low, high = math.log(_LEAST), math.log(_MOST)
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-7:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    middle = (low + high) / 2
    return math.exp(middle), loss(0.0), loss(middle)
