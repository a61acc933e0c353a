"""Peak memory of one rank by arithmetic: what is always there, and the larger of drawing and training. No torch.

Sources and formulas: docs/plan.md. Checked against what torch allocates by benchmarks/memory.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from more_r1.training.plan.shape import Shape

Precision = Literal["bfloat16", "float32"]
Sharding = Literal["ddp", "fsdp2", "zero2", "zero3"]

# Bytes of a trained parameter's weight, gradient and optimizer state (AdamW) where bfloat16 is computed with: float32, which
# autocast and ZeRO have beside a copy in bfloat16.
_TRAINED = {"ddp": (6, 4, 8), "fsdp2": (4, 4, 8), "zero2": (2, 2, 12), "zero3": (2, 2, 12)}
# As models/forest.py has it: logits that are there at a time.
LOGITS = 2**27
# As models/decode.py has it: tokens whose keys and values are held at a time in drawing.
BATCH_TOKENS = 32768


@dataclass(frozen=True)
class Setup:
    """How a model is held and trained."""

    precision: Precision
    sharding: Sharding
    ranks: int
    trains: bool = True
    """False where it is only asked."""
    lora_rank: int | None = None
    freeze_vision: bool = True
    reference: bool = False
    """Whether a second model is held."""
    checkpointing: bool = False

    @property
    def width(self) -> int:
        """Bytes of a number that is computed with."""
        return 2 if self.precision == "bfloat16" else 4

    @property
    def frozen_tower(self) -> bool:
        return self.freeze_vision or self.lora_rank is not None or not self.trains

    def trained(self, shape: Shape) -> int:
        """Parameters that learn."""
        if not self.trains:
            return 0
        if self.lora_rank is not None:
            return shape.lora_parameters(self.lora_rank)
        return shape.parameters - (shape.vision_parameters if self.freeze_vision else 0)


@dataclass(frozen=True)
class Work:
    """The most that one rank computes at a time, in tokens."""

    forest: float = 0
    """Of the largest forest with a backward pass; recursive, of what of it is there at a time."""
    images: float = 0
    """Those of them that pictures become."""
    scored: float = 0
    """Tokens with logits."""
    forests: float = 1
    """Backward passes in a step: before the second the gradients of the first are there."""
    path: float = 0
    """Tokens on whose keys and values a gradient is gathered (recursive)."""
    asked: float = 0
    """Of the prompts that are decoded together."""
    shown: float = 0
    """Those of them that pictures become."""
    drawn: float = 0
    """Of their completions."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank. What is drawn with and what is trained with are not there at the same time."""

    weights: float
    reference: float
    optimizer: float
    whole: float
    """While drawing: all weights, put together from the parts that the ranks have."""
    cache: float
    """While drawing: keys and values."""
    prefill: float
    """While drawing: what the prompts' call of the model needs in between."""
    layers: float
    """While training: the layers that are at work, the embeddings and the head, put together."""
    gradients: float
    activations: float
    """While training: kept for the backward pass of one forest, and in between."""
    logits: float
    """While training: those that are there at a time, in all their forms."""
    drawing: float
    """The peak while drawing."""
    training: float
    """The peak while training."""
    peak: float
    """The larger of the two."""


# Its parts in words.
PARTS = {
    "weights": "weights",
    "reference": "reference model",
    "optimizer": "optimizer",
    "whole": "drawing: all weights put together",
    "cache": "drawing: keys and values",
    "prefill": "drawing: the prompts' call",
    "layers": "training: layers put together",
    "gradients": "training: gradients",
    "activations": "training: activations",
    "logits": "training: logits",
}


def memory(shape: Shape, setup: Setup, work: Work) -> Memory:
    """The most that one rank holds. Adapters, where there are any, count with the weights."""
    w, v = setup.width, shape.vision
    trained, adapters = setup.trained(shape), 0 if setup.lora_rank is None else shape.lora_parameters(setup.lora_rank)
    weight, gradient, state = _TRAINED[setup.sharding] if setup.precision == "bfloat16" else (4, 4, 8)
    ranks = setup.ranks
    split = ranks if setup.sharding in ("fsdp2", "zero3") else 1
    own = ranks if setup.sharding != "ddp" else 1

    # A tower that does not learn stays whole on each rank, and is the reference's, too.
    tower = shape.vision_parameters if setup.frozen_tower else 0
    rest = shape.parameters + adapters - tower
    weights = w * tower + (weight * trained + w * (rest - trained)) / split
    reference = w * (shape.parameters - tower) if setup.reference else 0.0
    optimizer = state * trained / own
    gradients = gradient * trained / own * (2 if setup.sharding == "ddp" and ranks > 1 else 1)  # DDP's buckets are copies

    # Drawing: all weights on every rank, then the prompts' call, then the rollouts.
    whole = w * rest if split > 1 else 0.0
    kv = 2 * shape.layers * shape.kv * w
    pixels = 4 * v.channels * v.frames * v.patch**2 * v.merge**2
    tiles = w * (3 * v.intermediate + 6 * v.hidden) * v.merge**2
    call = w * (3 * shape.intermediate + 4 * shape.hidden)
    prefill = work.shown * pixels + max(work.asked * call, work.shown * tiles)
    cache = kv * (work.asked + max(work.asked, work.drawn))  # the prompts' are there twice for a moment
    drawing = weights + reference + optimizer + whole + max(kv * work.asked + prefill, cache)

    # Training: on the way back what is kept of the layers goes as their gradients come.
    patches = 0.0 if setup.frozen_tower else work.images * v.merge**2
    layer, block = work.forest * shape.layer_bytes(w), patches * shape.block_bytes(w)
    between = w * max(work.forest * shape.intermediate, patches * v.intermediate)
    if setup.checkpointing:
        kept = w * (shape.layers * work.forest * shape.hidden + v.depth * patches * v.hidden)
        again = max(layer, block) + between
    else:
        kept = shape.layers * layer + v.depth * block
        again = between
    always = work.images * pixels + kv * work.path
    numbers = min(work.scored * shape.vocab, LOGITS)
    logits = numbers * (12 if w == 4 else 14)
    # One layer at work and the next one on its way; the embeddings and the head stay.
    layers = w * (2 * shape.matrices / shape.layers + 2 * shape.head) if split > 1 else 0.0
    before = gradients if work.forests > 1 or ranks > 1 else 0.0
    top = before + always + kept + max(logits, again)
    bottom = gradients + always + max(layer, block) + between
    training = weights + reference + optimizer + layers + max(top, bottom)
    activations = always + kept + again
    if not setup.trains:
        layers = activations = logits = training = 0.0
    peaks = (drawing, training, max(drawing, training))
    return Memory(weights, reference, optimizer, whole, cache, prefill, layers, gradients, activations, logits, *peaks)
