"""What a part of a stage costs all devices together: tokens, operations, bytes that decoding reads, seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from more_r1.training.plan.cost import Flops, Level, forward, image_tokens_of, tokens_of
from more_r1.training.plan.layouts import Lengths
from more_r1.training.plan.recipe import Devices
from more_r1.training.plan.shape import Shape


@dataclass(frozen=True)
class Phase:
    """What one phase costs all devices together."""

    name: str
    tokens: float
    image_tokens: float
    """Those of them that the vision tower computes."""
    flops: Flops
    bytes_read: float
    """Weights, keys and values that decoding reads; 0 elsewhere."""
    seconds: float


def phase(name: str, levels: Sequence[Level], flops: Flops, times: float, devices: Devices, read: float = 0.0) -> Phase:
    """So many forests of these levels, each with these operations and bytes read."""
    flops, read = flops.times(times), read * times
    seconds = flops.total / (devices.count * devices.flops * devices.utilization)
    seconds = max(seconds, read / (devices.count * devices.bandwidth * devices.bandwidth_share))
    shown = image_tokens_of(levels) if flops.vision else 0.0
    return Phase(name, times * tokens_of(levels), times * shown, flops, read, seconds)


def prefill(shape: Shape, asked: Sequence[Level], times: float, devices: Devices) -> Phase:
    """The prompts of a forest, each with the logits of its last token."""
    return phase("prefill", asked, forward(shape, asked, asked[-1].copies), times, devices)


def decode(
    shape: Shape, asked: Sequence[Level], lengths: Lengths, rollouts: float, times: float, devices: Devices, width: int
) -> Phase:
    """The rollouts of a forest, token by token, numbers being of `width` bytes."""
    # The first token of a completion comes from the prefill, the last one is never read.
    steps = lengths.completion - 1
    new = [Level(rollouts, steps, lengths.prompt)]
    # Each step reads the weights once, every prompt that is held, and what each rollout has of its own so far.
    held = tokens_of(asked) + rollouts * (steps + 1) / 2
    read = steps * width * (shape.matrices + shape.head + 2 * shape.layers * shape.kv * held)
    return phase("decode", new, forward(shape, new, rollouts * steps), times, devices, read)
