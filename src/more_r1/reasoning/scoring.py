"""Gold and predicted labels -> the benchmark's four figures; scores -> a probability. No torch, for all rooms above."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from more_r1.schema import NONE


class Scores(BaseModel):
    """The figures of the MORE benchmark as fractions of 1, and the counts that they come from."""

    model_config = ConfigDict(frozen=True)

    accuracy: float
    precision: float
    recall: float
    f1: float
    pairs: int
    right_positives: int
    predicted_positives: int
    gold_positives: int


def score(gold: Sequence[str], predicted: Sequence[str | None]) -> Scores:
    """Accuracy over all pairs; micro precision, recall and F1 over the positives, the labels other than `none`.

    Precision = right positives / predicted positives, recall = right positives / gold positives (MORE, arXiv 2312.09753).
    What is undefined (no pair, no positive) is 0.0. A predicted None, a completion that broke the form, is wrong whatever
    the gold label, `none` included, and is no predicted positive. ValueError if the two differ in length.
    """
    pairs = list(zip(gold, predicted, strict=True))
    right = sum(true == guess for true, guess in pairs)
    right_positives = sum(true == guess != NONE for true, guess in pairs)
    predicted_positives = sum(guess not in (NONE, None) for _, guess in pairs)
    gold_positives = sum(true != NONE for true, _ in pairs)
    return Scores(
        accuracy=_ratio(right, len(pairs)),
        precision=_ratio(right_positives, predicted_positives),
        recall=_ratio(right_positives, gold_positives),
        # The harmonic mean of the two, with one rounding instead of three.
        f1=_ratio(2 * right_positives, predicted_positives + gold_positives),
        pairs=len(pairs),
        right_positives=right_positives,
        predicted_positives=predicted_positives,
        gold_positives=gold_positives,
    )


def probability(scores: Sequence[float], place: int, temperature: float = 1.0) -> float:
    """That of one of several labels by their log-probabilities, these divided by a temperature."""
    scaled = [score / temperature for score in scores]
    highest = max(scaled)
    return math.exp(scaled[place] - highest) / math.fsum(math.exp(score - highest) for score in scaled)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
