"""What a plan must be told: lengths, counts, accelerators; and the recipe of `more-r1 plan` for stage 2 alone."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from more_r1.training.mixing import Mixing
from more_r1.training.plan.layouts import Lengths
from more_r1.training.plan.memory import Precision, Sharding
from more_r1.training.plan.shape import Shape
from more_r1.training.recipe import Recipe, RecipeError, load_yaml


class Devices(Recipe):
    """Equal accelerators."""

    count: int = Field(ge=1)
    flops: float = Field(gt=0)
    """Peak operations a second of one, dense, in the precision of the run."""
    bandwidth: float = Field(gt=0)
    """Peak bytes a second between one and its memory."""
    memory: float = Field(gt=0)
    """Bytes of one that a run can use."""
    utilization: float = Field(gt=0, le=1)
    """Share of `flops` that prefill and training reach; what is recomputed counts as done."""
    bandwidth_share: float = Field(gt=0, le=1)
    """Share of `bandwidth` that decoding reaches."""


class Assumed(Recipe):
    """What is not known before data and machine are at hand; the defaults are MORE's, and the paper's where it gives them."""

    train_pairs: int = Field(default=15486, ge=1)
    """All pairs of the train split, from which an epoch's are taken to be drawn at random."""
    pairs_per_document: float = Field(default=20264 / 3559, ge=1)
    """In the benchmark; how many of them meet in an epoch is worked out."""
    hard: int = Field(default=2370, ge=0)
    easy: int = Field(default=8853, ge=0)
    lengths: Lengths
    devices: Devices
    precision: Precision = "bfloat16"
    """In which the model computes."""
    sharding: Sharding = "zero2"
    """What the devices share out, as the file of `accelerate launch` says: see recipes/accelerate."""

    @model_validator(mode="after")
    def _counts(self) -> Self:
        if self.hard + self.easy > self.train_pairs:
            raise ValueError(f"hard {self.hard} and easy {self.easy} are more than train_pairs {self.train_pairs}")
        return self

    def met(self, samples: float) -> float:
        """Mean pairs of a document in an epoch of so many samples, of the documents that are in it at all.

        See the function `met`.
        """
        return met(samples / self.train_pairs, self.pairs_per_document)


class PlanRecipe(Assumed):
    """Stage 2 alone, in all layouts."""

    model: str | None = None
    """A model folder or hub name, whose config.json is read; without it, `shape` must be given."""
    shape: Shape | None = None
    """The model in numbers."""
    alpha: float = Field(default=0.5, gt=0, le=1)
    """Easy samples to a hard one in epoch t: alpha^(t-1)."""
    epochs: int = Field(default=4, ge=1, le=1000)
    passes: int = Field(default=1, ge=1)
    """Optimisation passes on one set of rollouts."""
    beta: float = Field(default=0.001, ge=0)
    """Weight of the distance to the reference model, which is not run where this is 0."""
    group: int = Field(ge=1)
    """G, the rollouts of a pair."""
    pairs_at_once: int = Field(ge=1)
    """Pairs whose rollouts a device decodes together, and trains on in one forest."""
    checkpointing: bool = True
    """Whether only the inputs of the layers are kept, and the rest is computed again in the backward pass."""
    freeze_vision: bool = True
    lora_rank: int | None = Field(default=None, ge=1)
    """Train adapters of this rank on the language layers instead; the model without them is the reference."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.model is None and self.shape is None:
            raise ValueError("say which model: model=FOLDER or its numbers as shape")
        if self.samples(1) < 1:
            raise ValueError("an epoch has no samples; give hard or easy")
        return self

    def samples(self, epoch: int) -> int:
        """Pairs in an epoch, counted from 1."""
        return self.hard + Mixing(alpha=self.alpha).easy_drawn(self.hard, self.easy, epoch)


def met(share: float, pairs: float) -> float:
    """Mean pairs of a document that are drawn, of the documents of which any is: of its p pairs each is drawn with probability
    q, so p q / (1 - (1 - q)^p); where none is, 1, to which that goes."""
    if share <= 0:
        return 1.0
    return pairs if share >= 1 else pairs * share / (1 - (1 - share) ** pairs)


def has_stages(file: Path) -> bool:
    """Whether this is a recipe of `more-r1 train`, no PlanRecipe. What cannot be read is neither; loading it says why."""
    try:
        data = load_yaml(file)
    except RecipeError:
        return False
    return isinstance(data, dict) and "grpo" in data
