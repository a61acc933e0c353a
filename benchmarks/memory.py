"""The memory that `more-r1 plan` estimates beside what torch allocates: python benchmarks/memory.py

Random models in the proportions of Qwen2.5-VL-7B at three sizes, float32, one CPU thread; a document of two pairs with G
completions each. Measured is torch's own count: every allocation and release of tensors of one step is added up, and the
highest sum taken, on top of the weights, the optimizer's state and the reference, which are there before. On a GPU the same
tensors are allocated, in bfloat16, by other kernels; fragmentation and the kernels' work space are in no count here.

Each size runs in a process of its own. "Above" leaves out what is there before the step begins.
"""

from __future__ import annotations

import argparse
import io
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from more_r1.models import recursive, step
from more_r1.models.forest import Forest, Sample, scored
from more_r1.models.load import ATTENTIONS, Backbone
from more_r1.models.lora import Lora, add_lora
from more_r1.models.processor import Encoder
from more_r1.models.sampling import Sampling, sample
from more_r1.models.tiny import build_tiny
from more_r1.models.vision import frozen_copy
from more_r1.reasoning.prompt import Picture, Prompt, PromptForm
from more_r1.training.plan.memory import Memory, Setup, Work, memory
from more_r1.training.plan.shape import Shape, VisionShape

WORDS = 1900
PAIRS, GROUP, COMPLETION = 2, 4, 60
# Tokens of text; pictures are of so many tokens a side.
INSTRUCTION, HEADLINE, QUESTION, WHOLE, CROP = 150, 10, 15, 12, 6
RANK = 8
PATCH = 28


def shape_of(size: str) -> Shape:
    """One of the sizes, in the 7B's proportions but for the vocabulary and the number of layers."""
    layers, heads, hidden, wide, depth, narrow, inner = {
        "small": (3, 5, 320, 1696, 4, 112, 304),
        "middle": (8, 7, 448, 2368, 8, 160, 428),
        "large": (10, 7, 672, 3552, 12, 240, 640),
    }[size]
    tower = VisionShape(depth=depth, hidden=narrow, intermediate=inner, heads=4, full_blocks=1)
    vocab = len(build_tiny(_words(), seed=0).encoder.tokenizer)
    return Shape(
        layers=layers, hidden=hidden, intermediate=wide, heads=heads, kv_heads=1, vocab=vocab, tied=False, vision=tower
    )


def backbone_of(shape: Shape) -> Backbone:
    """Random weights; the vision tower is frozen."""
    tiny = build_tiny(_words(), seed=0)
    given, half = tiny.model.config.to_dict(), shape.hidden // shape.heads // 2
    given["text_config"] |= {"hidden_size": shape.hidden, "intermediate_size": shape.intermediate, "layer_types": None}
    given["text_config"] |= {"num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": 1}
    sections = [half - 2 * (half // 3), half // 3, half // 3]
    given["text_config"] |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}}
    given["text_config"] |= {"tie_word_embeddings": False, "initializer_range": 0.02}
    tower = shape.vision
    given["vision_config"] |= {"depth": tower.depth, "hidden_size": tower.hidden, "intermediate_size": tower.intermediate}
    given["vision_config"] |= {"num_heads": tower.heads, "out_hidden_size": shape.hidden, "initializer_range": 0.02}
    given["vision_config"] |= {"fullatt_block_indexes": [tower.depth - 1]}
    given["tie_word_embeddings"] = False
    config = Qwen2_5_VLConfig.from_dict(given)
    model = Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation=ATTENTIONS).eval()
    model.generation_config = tiny.model.generation_config
    model.model.visual.requires_grad_(False)
    return Backbone(model, tiny.encoder, PromptForm())


def _words() -> list[str]:
    return [f"w{number}" for number in range(WORDS)]


def questions() -> list[Prompt]:
    """Of one document."""
    rng = random.Random(0)

    def text(count: int) -> str:
        return " ".join(f"w{rng.randrange(WORDS)}" for _ in range(count))

    def picture(side: int) -> Picture:
        pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (side * PATCH, side * PATCH, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return Picture(file.getvalue(), None, (side * PATCH) ** 2)

    root, document = (text(INSTRUCTION),), (picture(WHOLE), text(HEADLINE))
    return [Prompt((root, document, (picture(CROP), text(QUESTION)))) for _ in range(PAIRS)]


class Count:
    """Bytes of tensors: the most that were there at a time, above those that were there at the beginning."""

    def __enter__(self) -> Count:
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profile.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._profile.__exit__(*error)
        events = self._profile.profiler.kineto_results.events()  # type: ignore[union-attr]
        changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
        self.peak = max(np.cumsum([size for _, size in changes]))


@dataclass(frozen=True)
class Case:
    """What a step is told."""

    name: str
    checkpointing: bool = False
    recursive: bool = False
    adapters: bool = False
    reference: bool = False
    forests: int = 1
    draws: bool = False


CASES = (
    Case("packed"),
    Case("packed, with a reference", reference=True),
    Case("packed, a forest for each pair", forests=PAIRS),
    Case("packed, checkpointing", checkpointing=True),
    Case("recursive", recursive=True),
    Case("adapters, packed", adapters=True),
    Case("adapters, checkpointing", adapters=True, checkpointing=True),
    Case("drawing", draws=True),
)


def measure(case: Case, shape: Shape) -> tuple[Memory, float, float]:
    """The estimate; and as measured what is there before a step and what the step needs above it, in bytes."""
    backbone = backbone_of(shape)
    model, encoder = backbone.model, backbone.encoder
    if case.adapters:
        add_lora(model, Lora(rank=RANK))
    asked = questions()
    if case.draws:
        return _draw(backbone, shape, asked)
    rng = random.Random(1)
    drawn = [[tuple(rng.randrange(300, 3000) for _ in range(COMPLETION)) for _ in range(GROUP)] for _ in asked]
    groups = [[(encoder.prompt(prompt), ids) for ids in group] for prompt, group in zip(asked, drawn, strict=True)]
    planted = [_forest(groups[number :: case.forests], encoder) for number in range(case.forests)]
    held = frozen_copy(model) if case.reference else None
    if case.checkpointing:
        model.train()
        model.activation_checkpointing_enable()
        model.disable_input_require_grads()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0, fused=True)
    run = _recursive if case.recursive else _packed
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # which makes its state
    optimizer.zero_grad()
    before = _bytes([*model.parameters(), *(held.parameters() if held else ()), *_state(optimizer)])
    with Count() as count:
        for forest in planted:
            if held is not None:
                with torch.no_grad():
                    scored(held, forest)
            run(model, forest)
        optimizer.step()
        optimizer.zero_grad()
    setup = Setup(
        "float32",
        "ddp",
        1,
        lora_rank=RANK if case.adapters else None,
        reference=case.reference,
        checkpointing=case.checkpointing,
    )
    return memory(shape, setup, _work(case, planted, encoder)), before, float(count.peak)


def _work(case: Case, planted: Sequence[Forest], encoder: Encoder) -> Work:
    largest = max(planted, key=lambda forest: forest.tokens)
    images = len(largest.pixels) / encoder.merge**2  # type: ignore[arg-type]
    if not case.recursive:
        return Work(largest.tokens, images, len(largest.targets), len(planted))
    path = largest.repeated_tokens / len(largest.lengths) - COMPLETION
    both = WHOLE**2 + CROP**2
    return Work(path + COMPLETION - 1, both, COMPLETION, PAIRS * GROUP, path)


def _forest(groups: Sequence[Sequence[Sample]], encoder: Encoder) -> Forest:
    return Forest.build([one for group in groups for one in group], encoder)


def _packed(model: Any, forest: Forest) -> None:
    (-scored(model, forest, entropies=True)[0].sum()).backward()


def _recursive(model: Any, forest: Forest) -> None:
    recursive.scored(model, forest, COMPLETION, lambda logprobs, _: -logprobs.sum(), entropies=True)


def _draw(backbone: Backbone, shape: Shape, asked: Sequence[Prompt]) -> tuple[Memory, float, float]:
    step.PACKED_BYTES = 0  # the copies of matrices that decoding makes on the CPU alone
    backbone.model.generation_config.eos_token_id = 0
    forest = Forest.build([(backbone.encoder.prompt(prompt), (0,)) for prompt in asked], backbone.encoder)
    before = _bytes(backbone.model.parameters())
    seeds = [[10 * pair + number for number in range(GROUP)] for pair in range(PAIRS)]
    with Count() as count:
        sample(backbone, asked, seeds, Sampling(), COMPLETION)
    images = len(forest.pixels) / backbone.encoder.merge**2  # type: ignore[arg-type]
    work = Work(asked=forest.tokens, shown=images, drawn=PAIRS * GROUP * COMPLETION)
    return memory(shape, Setup("float32", "ddp", 1, trains=False), work), before, float(count.peak)


def _state(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [value for state in optimizer.state.values() for value in state.values() if value.ndim]


def _bytes(tensors: Any) -> float:
    return float(sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values()))


def report(size: str) -> None:
    """All cases of one size, MB."""
    torch.set_num_threads(1)
    shape = shape_of(size)
    print(f"{size}: {shape.parameters / 1e6:.1f} M parameters")
    for case in CASES:
        torch.manual_seed(0)
        made, before, above = measure(case, shape)
        always = made.weights + made.reference + made.optimizer
        told, over = made.peak, made.peak - always
        print(
            f"  {case.name:32} peak {told / 1e6:7.1f} estimated, {(before + above) / 1e6:7.1f} measured, "
            f"ratio {told / (before + above):.3f}; above {over / 1e6:6.1f}, {above / 1e6:6.1f}, {over / above:.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--sizes", nargs="*", default=["small", "middle", "large"])
    parser.add_argument("--size", help="one size in this process; what --sizes calls")
    arguments = parser.parse_args()
    if arguments.size:
        report(arguments.size)
        return
    for size in arguments.sizes:
        subprocess.run([sys.executable, __file__, "--size", size], check=True)


if __name__ == "__main__":
    main()
