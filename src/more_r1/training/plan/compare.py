"""What stage 2 costs before anyone pays for it: tokens, operations, memory and hours, with and without shared prefixes.

The formulas and their sources are in docs/plan.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from more_r1.training.plan.cost import forward, image_tokens_of, tokens_of, training
from more_r1.training.plan.layouts import LAYOUTS, Layout, answered, prompts
from more_r1.training.plan.memory import Memory, Setup, Work, memory
from more_r1.training.plan.phases import Phase, decode, phase, prefill
from more_r1.training.plan.recipe import PlanRecipe
from more_r1.training.plan.shape import Shape, read_shape


@dataclass(frozen=True)
class Epoch:
    """One epoch, by layout."""

    number: int
    samples: int
    pairs_met: float
    """Of a document in this epoch, on average."""
    phases: dict[Layout, tuple[Phase, ...]]

    def hours(self, layout: Layout) -> float:
        """All phases."""
        return sum(phase.seconds for phase in self.phases[layout]) / 3600


@dataclass(frozen=True)
class Plan:
    """What `plan` works out."""

    parameters: int
    trained: int
    epochs: tuple[Epoch, ...]
    memory: dict[str, Memory]
    """By layout, in the first epoch; `document, recursive` is the last one computed part by part, for which a device must have
    the whole model."""
    head_for_all: dict[Layout, float]
    """Operations of the head in the first epoch's training if every token got logits, not only completions."""

    def hours(self, layout: Layout) -> float:
        """Of the whole run."""
        return sum(epoch.hours(layout) for epoch in self.epochs)


def plan(recipe: PlanRecipe) -> Plan:
    """Work it out. Raises RecipeError if `recipe.model` names no Qwen2.5-VL; reads nothing else, and needs no torch."""
    shape = recipe.shape if recipe.model is None else read_shape(recipe.model)
    assert shape is not None  # the recipe has one of the two
    epochs = []
    for number in range(1, recipe.epochs + 1):
        met = recipe.met(samples := recipe.samples(number))
        epochs.append(Epoch(number, samples, met, {a: _phases(recipe, shape, a, samples, met) for a in LAYOUTS}))
    first, setup = epochs[0], _setup(recipe)
    held = {str(layout): memory(shape, setup, _work(recipe, layout, first.pairs_met)) for layout in LAYOUTS}
    if recipe.sharding == "ddp":
        walked = replace(setup, checkpointing=False)
        held["document, recursive"] = memory(shape, walked, _work(recipe, "document", first.pairs_met, recursive=True))
    products = 2 if recipe.lora_rank else 3  # forward, for the inputs, and for the weights where they are trained
    return Plan(
        parameters=shape.parameters,
        trained=setup.trained(shape),
        epochs=tuple(epochs),
        memory=held,
        head_for_all={layout: products * 2 * shape.head * first.phases[layout][-1].tokens for layout in LAYOUTS},
    )


def _phases(recipe: PlanRecipe, shape: Shape, layout: Layout, samples: int, met: float) -> tuple[Phase, ...]:
    lengths, devices, rollouts = recipe.lengths, recipe.devices, recipe.pairs_at_once * recipe.group
    forests = samples / recipe.pairs_at_once
    sizes = (lengths, layout, recipe.pairs_at_once, recipe.group, met)
    asked, whole = prompts(*sizes), answered(*sizes)
    once = forward(shape, whole, rollouts * lengths.completion)
    adapters = recipe.lora_rank is not None
    if layout != "repeated" and (recipe.freeze_vision or adapters):
        once = once.remembered  # the tower has seen these pictures in the prefill: models/vision.py
    trained = training(shape, once, recomputed=recipe.checkpointing, adapters=adapters, frozen_vision=recipe.freeze_vision)
    return (
        prefill(shape, asked, forests, devices),
        decode(shape, asked, lengths, rollouts, forests, devices, _setup(recipe).width),
        phase("reference", whole, once, forests * int(recipe.beta > 0), devices),
        phase("training", whole, trained, forests * recipe.passes, devices),
    )


def _setup(recipe: PlanRecipe) -> Setup:
    return Setup(
        recipe.precision,
        recipe.sharding,
        recipe.devices.count,
        lora_rank=recipe.lora_rank,
        freeze_vision=recipe.freeze_vision,
        reference=recipe.beta > 0 and recipe.lora_rank is None,
        checkpointing=recipe.checkpointing,
    )


def _work(recipe: PlanRecipe, layout: Layout, met: float, recursive: bool = False) -> Work:
    lengths, rollouts = recipe.lengths, recipe.pairs_at_once * recipe.group
    sizes = (lengths, layout, recipe.pairs_at_once, recipe.group, met)
    asked, whole = prompts(*sizes), answered(*sizes)
    drawn = {"asked": tokens_of(asked), "shown": image_tokens_of(asked), "drawn": rollouts * (lengths.completion - 1)}
    if recursive:
        # One path and one completion at a time, and the gradient that is gathered on the path's keys and values.
        path = lengths.prompt
        both = lengths.whole + lengths.crop
        return Work(path + lengths.completion - 1, both, lengths.completion, rollouts, path, **drawn)
    return Work(tokens_of(whole), image_tokens_of(whole), rollouts * lengths.completion, **drawn)
