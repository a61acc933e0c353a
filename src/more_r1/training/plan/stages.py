"""What a stage of `more-r1 train` costs: pairs, steps, tokens, hours, the peak memory of a rank, and what to set. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, NamedTuple

from more_r1.training.plan.cost import forward, image_tokens_of, tokens_of, training
from more_r1.training.plan.layouts import Lengths, answered, prompts
from more_r1.training.plan.memory import BATCH_TOKENS, Memory, Precision, Setup, Sharding, Work, memory
from more_r1.training.plan.phases import Phase, decode, phase, prefill
from more_r1.training.plan.recipe import Devices
from more_r1.training.plan.shape import Shape


@dataclass(frozen=True)
class Stage:
    """A stage as far as its cost goes. What is of no use to it has the value that costs nothing."""

    name: Literal["sft", "difficulty", "grpo"]
    pairs: tuple[int, ...]
    """Of each epoch."""
    steps: int
    """Of the optimizer."""
    pairs_met: float
    """Of a document in an epoch, on average."""
    lengths: Lengths
    """Means, for tokens and hours."""
    longest: Lengths
    """The most of each, for memory; its completions are as long as they may be."""
    batch_pairs: int
    """Of a step, over all ranks."""
    group: int = 1
    """Rollouts, or completions to learn, of a pair."""
    passes: int = 0
    """Optimizer steps on one batch; 0 where nothing is trained."""
    draws: bool = False
    """Whether completions are drawn for it; validation draws in any case, and counts for memory."""
    vllm: float | None = None
    """Where vLLM draws for it: the share of each device that it takes meanwhile, 0 if it is elsewhere."""
    beta: float = 0.0
    lora_rank: int | None = None
    freeze_vision: bool = True
    checkpointing: bool = False
    recursive: bool = False
    chunk_tokens: int | None = None
    """Most tokens of one call; None: all of a rank's batch."""
    packed: bool = False
    """Whether its attention is for packed forests alone."""
    unsplit: bool = False
    """Whether a stage of the recipe needs all of the model on each rank: then none of them may be split."""
    precision: Precision = "bfloat16"
    sharding: Sharding = "ddp"
    ranks: int = 1

    @property
    def setup(self) -> Setup:
        """How the model is held."""
        return Setup(
            self.precision,
            self.sharding if self.passes else "ddp",  # who only asks has the whole model
            self.ranks,
            self.passes > 0,
            self.lora_rank,
            self.freeze_vision,
            self.beta > 0 and self.lora_rank is None,
            self.checkpointing and not self.recursive,
        )

    @property
    def runs(self) -> bool:
        """Whether the settings go together."""
        return self.sharding == "ddp" or not (self.recursive or self.unsplit)

    @property
    def share(self) -> int:
        """Most pairs of a step on one rank."""
        return math.ceil(self.batch_pairs / self.ranks)

    def work(self) -> Work:
        """The most that a rank computes at a time, with pairs as long as the longest."""
        longest, room = self.longest, self.longest.completion
        group = longest.prompt + self.group * room
        most = math.inf if self.chunk_tokens is None or self.recursive else self.chunk_tokens
        pairs = max(min(self.share, most // group), 1)
        met = max(min(self.pairs_met, pairs), 1)
        levels = answered(longest, "document", pairs, self.group, met)
        tokens, images, scored = tokens_of(levels), image_tokens_of(levels), pairs * self.group * room
        forests, path = math.ceil(self.share / pairs), 0.0
        if self.recursive and self.chunk_tokens is not None:
            # A path, and whole subtrees below it of at most a chunk, or one completion.
            path, chunk = longest.prompt, max(self.chunk_tokens, room)
            tokens, scored = min(tokens, path + chunk), min(scored, chunk)
            images, forests = min(images, longest.whole + max(chunk // group, 1) * longest.crop), 2
        # Validation, too, draws as much at a time as decoding holds.
        rollouts = self.group if self.draws and self.vllm is None else 1
        own = longest.pair + longest.document / met + rollouts * room
        together = max((BATCH_TOKENS - longest.instruction) // own, 1)
        asked = prompts(longest, "document", together, rollouts, met)
        drawn = {"asked": tokens_of(asked), "shown": image_tokens_of(asked), "drawn": together * rollouts * room}
        return Work(tokens, images, scored, forests, path, **drawn)

    def memory(self, shape: Shape) -> Memory:
        """Of one rank, at most."""
        return memory(shape, self.setup, self.work())

    def phases(self, shape: Shape, devices: Devices) -> tuple[Phase, ...]:
        """All epochs of the stage; its validations are left out."""
        adapters, count, rollouts = self.lora_rank is not None, sum(self.pairs), self.share * self.group
        forests = count / self.share
        sizes = (self.lengths, self.share, self.group, max(min(self.pairs_met, self.share), 1))
        asked, whole = (made(sizes[0], "document", *sizes[1:]) for made in (prompts, answered))
        once = forward(shape, whole, rollouts * self.lengths.completion)
        # A tower that does not learn sees the pictures of a step once: models/vision.py.
        again = once.remembered if self.setup.frozen_tower else once
        found: list[Phase] = []
        if self.draws:
            found.append(prefill(shape, asked, forests, devices))
            found.append(decode(shape, asked, self.lengths, rollouts, forests, devices, self.setup.width))
            once = again if self.vllm is None else once  # vLLM's is its own
        scored = {"reference": self.beta > 0, "policy": self.vllm is not None}  # vLLM is not exactly the policy
        for name in (name for name, there in scored.items() if there):
            found.append(phase(name, whole, once, forests, devices))
            once = again
        if self.passes:
            taught = training(shape, once, recomputed=self.checkpointing, adapters=adapters, frozen_vision=self.freeze_vision)
            found.append(phase("training", whole, taught, forests * self.passes, devices))
        return tuple(found)


@dataclass(frozen=True)
class Costed:
    """A stage with its costs."""

    stage: Stage
    phases: tuple[Phase, ...]
    """None of them where nothing is known of the devices."""
    memory: Memory
    room: float
    """Bytes of a device that are there for it, beside vLLM; infinite where nothing is known of the devices."""
    ways: tuple[str, ...]
    """Settings with which it would fit."""

    @property
    def fits(self) -> bool:
        """Whether its peak is within its room."""
        return self.memory.peak <= self.room

    @property
    def hours(self) -> float:
        """All phases."""
        return sum(phase.seconds for phase in self.phases) / 3600


def cost(stage: Stage, shape: Shape, devices: Devices | None) -> Costed:
    """Work out what a stage costs."""
    held = stage.memory(shape)
    if devices is None:
        return Costed(stage, (), held, math.inf, ())
    room = devices.memory * (1 - (stage.vllm or 0))
    ways = () if held.peak <= room else nearest(stage, shape, room)
    return Costed(stage, stage.phases(shape, devices), held, room, ways)


def nearest(stage: Stage, shape: Shape, capacity: float) -> tuple[str, ...]:
    """Settings of the recipe with which the stage fits into so many bytes a rank, the fewest that do: one way that changes what
    is computed where, but not what is learned; one with smaller batches or adapters; one with more devices. None where none of
    them helps.
    """
    found = []
    for kinds in (_SAME, _SAME | {"batch", "learn"}, _SAME | {"devices"}):
        ways = [way for way in _ways(stage) if way.kind in kinds]
        fitting = (
            names for names in _combined(ways, stage, shape, capacity) if kinds == _SAME or {w.kind for w in names} - _SAME
        )
        found.append(next(fitting, ()))
    return tuple(" ".join(way.text for way in names) for names in found if names)


# Kinds of changes after which the same is learned from the same batches.
_SAME = {"keep", "chunk", "split"}


class _Way(NamedTuple):
    """A change of one setting."""

    kind: str
    """Of changes of one kind one is enough."""
    text: str
    """As it is written on the command line."""
    given: dict[str, Any]


def _ways(stage: Stage) -> list[_Way]:
    """Single changes, nearest first."""
    if not stage.passes:
        return []
    ways, section = [], f"{stage.name}."
    if not stage.checkpointing and not stage.recursive:
        ways.append(_Way("keep", f"{section}checkpointing=true", {"checkpointing": True}))
    if stage.chunk_tokens is not None:
        smaller = [tokens for tokens in (8192, 4096, 2048, 1024) if tokens < stage.chunk_tokens]
        ways += [_Way("chunk", f"{section}chunk_tokens={tokens}", {"chunk_tokens": tokens}) for tokens in smaller]
        if not stage.recursive and not stage.packed:
            given = {"recursive": True, "checkpointing": False, "chunk_tokens": 2048}
            ways.append(_Way("chunk", f"{section}forest=recursive {section}chunk_tokens=2048", given))
    for sharding in ("zero2", "fsdp2", "zero3"):
        if stage.ranks > 1 and stage.sharding != sharding:
            ways.append(_Way("split", f"plan.sharding={sharding}", {"sharding": sharding}))
    for ranks in (2, 4, 8, 16, 32):
        if ranks > stage.ranks:
            sharding = "fsdp2" if stage.sharding == "ddp" and not stage.unsplit else stage.sharding
            text = f"plan.devices.count={ranks} plan.sharding={sharding}"
            ways.append(_Way("devices", text, {"ranks": ranks, "sharding": sharding}))
    batch = stage.batch_pairs // 2
    while batch >= stage.ranks:
        ways.append(_Way("batch", f"{section}batch_pairs={batch}", {"batch_pairs": batch}))
        batch //= 2
    if stage.lora_rank is None:
        ways.append(_Way("learn", f"{section}lora.rank=16", {"lora_rank": 16}))
    return ways


def _combined(ways: list[_Way], stage: Stage, shape: Shape, capacity: float) -> Iterator[tuple[_Way, ...]]:
    """Sets of changes with which the stage fits, of each kind at most one; the smallest sets first."""
    for size in range(1, 4):
        for names in combinations(ways, size):
            if len({way.kind for way in names}) == size:
                changed = stage
                for way in names:
                    changed = replace(changed, **way.given)
                if changed.runs and changed.memory(shape).peak <= capacity:
                    yield names
