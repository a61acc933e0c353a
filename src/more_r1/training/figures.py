"""What is logged of a step of stage 2, over all processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from more_r1.models.sampling import Rollout
from more_r1.reasoning.trace import read_answer
from more_r1.schema import Schema
from more_r1.training.recipe import RecipeError
from more_r1.training.samples import Asked

# Nats. Kernels and half precision differ by hundredths.
_TWO_MODELS = 0.2


def records(
    asked: Sequence[Asked],
    rollouts: Sequence[Sequence[Rollout]],
    values: Mapping[str, Sequence[float]],
    earned: Tensor,
    schema: Schema,
    reasoning: Literal["steps", "none"],
) -> list[dict[str, Any]]:
    """What is known of each pair's group, to be told to all processes. Of its rollouts: each reward, flat, and their weighted
    sums `earned` [pairs, G]."""
    size = earned.shape[1]
    found = []
    for n, (one, group) in enumerate(zip(asked, rollouts, strict=True)):
        own = slice(n * size, (n + 1) * size)
        answers = [read_answer(rollout.text, schema, reasoning) for rollout in group]
        document, object, span = one.sample.key
        shown: dict[str, Any] = {"document": document, "object": object, "span": list(span), "gold": one.sample.label}
        shown |= {"completion": group[0].text, "reward": float(earned[n, 0])}
        found.append(
            {
                "number": one.number,
                "easy": one.easy,
                "passed": sum(answer == one.sample.label for answer in answers),
                "rewards": {name: sum(value[own]) for name, value in values.items()},
                "reward": float(earned[n].sum()),
                "equal": bool((earned[n] == earned[n, 0]).all()),
                "tokens": sum(len(rollout.ids) for rollout in group),
                "cut": sum(not rollout.ended for rollout in group),
                "sample": shown,
            }
        )
    return found


def figures(records: Sequence[Mapping[str, Any]], size: int) -> dict[str, float]:
    """Means over all rollouts of a step: rewards, lengths in tokens, right answers on easy and on hard pairs."""
    rollouts = len(records) * size
    found = {"reward": sum(record["reward"] for record in records) / rollouts}
    for name in records[0]["rewards"]:
        found[f"reward_{name}"] = sum(record["rewards"][name] for record in records) / rollouts
    found["equal_groups"] = mean([float(record["equal"]) for record in records])
    for name, easy in (("easy", True), ("hard", False)):
        passed = [record["passed"] / size for record in records if record["easy"] is easy]
        found |= {f"accuracy_{name}": mean(passed)} if passed else {}
    found["length"] = sum(record["tokens"] for record in records) / rollouts
    found["cut"] = sum(record["cut"] for record in records) / rollouts
    return found


def sampler_figures(differences: Tensor, weights: Tensor) -> dict[str, float]:
    """How far another sampler was from the policy: the differences of their log-probabilities [K], the draws' weights [K].

    Raises RecipeError where they are of two models.
    """
    if not len(differences):
        return {}
    off = float(differences.mean())
    if off > _TWO_MODELS:
        raise RecipeError(
            f"vLLM's log-probabilities differ from this model's by {off:.2g} on average, so it does not compute with the "
            "weights it was given; is vllm.server started with this model, and for this run alone?"
        )
    found = {"sampler_difference": off, "sampler_difference_max": float(differences.max())}
    spread = {"importance": weights.mean(), "importance_max": weights.max(), "importance_min": weights.min()}
    return found | {name: float(value) for name, value in spread.items()}


def mean(values: Sequence[float]) -> float:
    """Of at least one."""
    return sum(values) / len(values)
