"""What stage 2 costs before anyone pays for it: tokens, operations, memory and hours, with and without shared prefixes.

Three layouts of the same run. `repeated`: every rollout has a prompt of its own, as stock TRL has it. `group`: the rollouts of
a pair share its prompt. `document`: pairs of a document share its picture and headline too, and all of a forest share the
instruction. The formulas and their sources are in docs/plan.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from more_r1.training.cost import Flops, Level, Shape, forward, image_tokens_of, read_shape, tokens_of, training
from more_r1.training.recipe import Recipe

Layout = Literal["repeated", "group", "document"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


class Lengths(Recipe):
    """Mean lengths in tokens; those of text take in the chat template's marks."""

    instruction: int = Field(ge=1)
    """Instruction and labels, the same everywhere."""
    whole: int = Field(ge=1)
    """The whole picture."""
    headline: int = Field(ge=1)
    crop: int = Field(ge=1)
    question: int = Field(ge=1)
    """The pair's own words."""
    completion: int = Field(ge=2)

    @property
    def document(self) -> int:
        """What the pairs of a document share."""
        return self.whole + self.headline

    @property
    def pair(self) -> int:
        """What the rollouts of a pair share beyond that."""
        return self.crop + self.question

    @property
    def prompt(self) -> int:
        """All that comes before a completion."""
        return self.instruction + self.document + self.pair


class Devices(Recipe):
    """Equal accelerators, each with a copy of the model."""

    count: int = Field(ge=1)
    flops: float = Field(gt=0)
    """Peak operations a second of one, dense, in the precision of the run."""
    bandwidth: float = Field(gt=0)
    """Peak bytes a second between one and its memory."""
    memory: float = Field(gt=0)
    """Bytes of one."""
    utilization: float = Field(gt=0, le=1)
    """Share of `flops` that prefill and training reach; what is recomputed counts as done."""
    bandwidth_share: float = Field(gt=0, le=1)
    """Share of `bandwidth` that decoding reaches."""


class PlanRecipe(Recipe):
    """What a plan must know; the defaults are the paper's, where it gives them."""

    model: str | None = None
    """A model folder or hub name, whose config.json is read; without it, `shape` must be given."""
    shape: Shape | None = None
    """The model in numbers."""
    hard: int = Field(default=2370, ge=0)
    easy: int = Field(default=8853, ge=0)
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Easy samples to a hard one in epoch t: alpha^(t-1)."""
    epochs: int = Field(default=4, ge=1, le=1000)
    train_pairs: int = Field(default=15486, ge=1)
    """All pairs of the train split, from which an epoch's are taken to be drawn at random."""
    pairs_per_document: float = Field(default=20264 / 3559, ge=1)
    """In the benchmark; how many of them meet in an epoch is worked out."""
    passes: int = Field(default=1, ge=1)
    """Optimisation passes on one set of rollouts."""
    beta: float = Field(default=0.001, ge=0)
    """Weight of the distance to the reference model, which is not run where this is 0."""
    group: int = Field(ge=1)
    """G, the rollouts of a pair."""
    pairs_at_once: int = Field(ge=1)
    """Pairs whose rollouts a device decodes together, and trains on in one forest."""
    lengths: Lengths
    devices: Devices
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Of weights, gradients, activations and cache."""
    optimizer_bytes: float = Field(default=12, ge=0)
    """For each trained parameter; 12 is AdamW with float32 weights beside those in bfloat16."""
    zero: Literal[0, 1, 2, 3] = 2
    """What the devices share out: 1 the optimizer's state, 2 the gradients too, 3 the weights too (ZeRO, FSDP)."""
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
        if self.hard + self.easy > self.train_pairs:
            raise ValueError(f"hard {self.hard} and easy {self.easy} are more than train_pairs {self.train_pairs}")
        return self

    def samples(self, epoch: int) -> int:
        """Pairs in an epoch, counted from 1: all hard ones, and easy ones in proportion, as training/mixing.py draws them."""
        return self.hard + min(self.easy, int(self.hard * self.alpha ** (epoch - 1) + 0.5))

    def met(self, samples: int) -> float:
        """Mean pairs of a document in an epoch of so many samples, of the documents that are in it at all.

        Each of a document's p pairs is drawn with probability q: p q / (1 - (1 - q)^p).
        """
        q, p = samples / self.train_pairs, self.pairs_per_document
        return p if q >= 1 else p * q / (1 - (1 - q) ** p)


@dataclass(frozen=True)
class Phase:
    """What one phase of an epoch costs all devices together."""

    name: str
    tokens: float
    image_tokens: float
    """Those of them that come out of the vision tower."""
    flops: Flops
    bytes_read: float
    """Weights, keys and values that decoding reads; 0 elsewhere."""
    seconds: float


@dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    weights: float
    reference: float
    gradients: float
    optimizer: float
    cache: float
    """Keys and values of the rollouts that are decoded together."""
    activations: float
    """Kept for the backward pass of one forest."""
    logits: float
    """Of its completions: as computed, in float32, and their log-softmax."""
    peak: float
    """What is always there, and the larger of decoding and training."""


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
    """By layout, in the first epoch; `document, recursive` is the last one computed part by part."""
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
    first = epochs[0]
    memory = {str(layout): _memory(recipe, shape, layout, first.pairs_met) for layout in LAYOUTS}
    memory["document, recursive"] = _memory(recipe, shape, "document", first.pairs_met, recursive=True)
    products = 2 if recipe.lora_rank else 3  # forward, for the inputs, and for the weights where they are trained
    return Plan(
        parameters=shape.parameters,
        trained=_trained(recipe, shape),
        epochs=tuple(epochs),
        memory=memory,
        head_for_all={layout: products * 2 * shape.head * first.phases[layout][-1].tokens for layout in LAYOUTS},
    )


def prompts(recipe: PlanRecipe, layout: Layout, met: float) -> list[Level]:
    """The prompts of one forest of `pairs_at_once` pairs, of which `met` share a document."""
    lengths, pairs = recipe.lengths, recipe.pairs_at_once
    both = (lengths.whole, lengths.crop)
    if layout == "repeated":
        return [Level(pairs * recipe.group, lengths.prompt, pictures=both)]
    if layout == "group":
        return [Level(pairs, lengths.prompt, pictures=both)]
    return [
        Level(1, lengths.instruction),
        Level(pairs / min(met, pairs), lengths.document, lengths.instruction, both[:1]),
        Level(pairs, lengths.pair, lengths.instruction + lengths.document, both[1:]),
    ]


def answered(recipe: PlanRecipe, layout: Layout, met: float) -> list[Level]:
    """The same with their completions. Nothing follows the last token of one; a forest does not compute it, stock does."""
    lengths, rollouts = recipe.lengths, recipe.pairs_at_once * recipe.group
    before = prompts(recipe, layout, met)
    if layout == "repeated":
        return [before[0]._replace(tokens=lengths.prompt + lengths.completion)]
    return [*before, Level(rollouts, lengths.completion - 1, lengths.prompt)]


def _phases(recipe: PlanRecipe, shape: Shape, layout: Layout, samples: int, met: float) -> tuple[Phase, ...]:
    lengths, devices, rollouts = recipe.lengths, recipe.devices, recipe.pairs_at_once * recipe.group
    forests = samples / recipe.pairs_at_once
    asked, whole = prompts(recipe, layout, met), answered(recipe, layout, met)
    # The first token of a completion comes from the prefill, the last one is never read.
    steps = lengths.completion - 1
    new = [Level(rollouts, steps, lengths.prompt)]
    # Each step reads the weights once, every prompt that is held, and what each rollout has of its own so far.
    held = tokens_of(asked) + rollouts * (steps + 1) / 2
    read = steps * (_width(recipe) * (shape.matrices + shape.head) + _kv_bytes(recipe, shape) * held)
    once = forward(shape, whole, rollouts * lengths.completion)
    adapters = recipe.lora_rank is not None
    trained = training(shape, once, recomputed=recipe.checkpointing, adapters=adapters, frozen_vision=recipe.freeze_vision)

    def phase(name: str, levels: Sequence[Level], flops: Flops, times: int = 1, read: float = 0.0) -> Phase:
        flops, read = flops.times(times * forests), read * forests
        seconds = flops.total / (devices.count * devices.flops * devices.utilization)
        seconds = max(seconds, read / (devices.count * devices.bandwidth * devices.bandwidth_share))
        return Phase(name, times * forests * tokens_of(levels), times * forests * image_tokens_of(levels), flops, read, seconds)

    return (
        phase("prefill", asked, forward(shape, asked, asked[-1].copies)),
        phase("decode", new, forward(shape, new, rollouts * steps), read=read),
        phase("reference", whole, once, times=int(recipe.beta > 0)),
        phase("training", whole, trained, times=recipe.passes),
    )


def _memory(recipe: PlanRecipe, shape: Shape, layout: Layout, met: float, recursive: bool = False) -> Memory:
    lengths, width, kv = recipe.lengths, _width(recipe), _kv_bytes(recipe, shape)
    whole = answered(recipe, layout, met)
    tokens, images, scored = tokens_of(whole), image_tokens_of(whole), recipe.pairs_at_once * recipe.group * lengths.completion
    cache = kv * (tokens_of(prompts(recipe, layout, met)) + scored - recipe.pairs_at_once * recipe.group)
    activations = 0.0
    if recursive:
        # One path and one completion at a time, and the gradient that is gathered on the path's keys and values.
        tokens, images, scored = lengths.prompt + lengths.completion - 1, lengths.whole + lengths.crop, lengths.completion
        activations += kv * lengths.prompt
    patches = 0 if recipe.freeze_vision or recipe.lora_rank else images * shape.vision.merge**2
    layer, block = tokens * shape.layer_bytes(width), patches * shape.block_bytes(width)
    if recipe.checkpointing:
        inputs = shape.layers * tokens * shape.hidden + shape.vision.depth * patches * shape.vision.hidden
        activations += width * inputs + max(layer, block)
    else:
        activations += shape.layers * layer + shape.vision.depth * block
    logits = scored * shape.vocab * (width + 8)

    trained, parted = _trained(recipe, shape), [1 / recipe.devices.count if recipe.zero >= stage else 1 for stage in (1, 2, 3)]
    weights = width * shape.parameters * parted[2]
    reference = weights if recipe.beta > 0 and recipe.lora_rank is None else 0.0
    gradients, optimizer = width * trained * parted[1], recipe.optimizer_bytes * trained * parted[0]
    peak = weights + reference + gradients + optimizer + max(cache, activations + logits)
    return Memory(weights, reference, gradients, optimizer, cache, activations, logits, peak)


def _width(recipe: PlanRecipe) -> int:
    """Bytes of a number."""
    return 2 if recipe.precision == "bfloat16" else 4


def _kv_bytes(recipe: PlanRecipe, shape: Shape) -> int:
    """Of the keys and values of one token."""
    return 2 * shape.layers * shape.kv * _width(recipe)


def _trained(recipe: PlanRecipe, shape: Shape) -> int:
    if recipe.lora_rank is not None:
        return shape.lora_parameters(recipe.lora_rank)
    return shape.parameters - (shape.vision_parameters if recipe.freeze_vision else 0)
