"""Update and rollout of GRPO at the real sizes, with random weights: the forest in three ways against the repeated layout.

    python benchmarks/gpu/step.py 3b 7b          # on one GPU with 80 GB or more, in bfloat16; a raw log on standard output
    python benchmarks/gpu/step.py small --cpu    # tries the script out

A step is one document: its pairs share the instruction, the picture and the headline, the completions of a pair the crop and
the question, too. Printed are seconds (the median of --repeats after one that is not counted), peak memory above the weights,
tokens a second of the repeated layout's (so that ways compare), and the share of the matrix rate that was measured here and
now: useful arithmetic, that is of the forest's tokens, over time and rate.

- update: forward and backward of the clipped objective, with activation checkpointing but for the recursive form, which needs
  none; no optimizer, which costs the same in each way. The repeated layout is transformers' own with SDPA, a group at a time.
- rollout: `decode` of the forest against `generate` of transformers on one row a completion.

Pictures are stood in for by text, so that no side computes a vision tower: the forest computes it once a picture, the repeated
layout once a completion, which would be to our advantage.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from more_r1.models import recursive
from more_r1.models.attention import Flex, Layout, Paths
from more_r1.models.decode import decode
from more_r1.models.forest import Forest, read, scored
from more_r1.models.load import ATTENTIONS, Backbone
from more_r1.models.processor import Segment
from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import PromptForm

# Text models as the config.json of Qwen2.5-VL has them; the tower stays tiny, for it is not called.
SIZES: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 2,
              "num_key_value_heads": 1, "vocab_size": 4064, "tie_word_embeddings": True},
    "3b": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
           "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
    "7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False},
}  # fmt: skip
# Shares of a prompt of 1,000 tokens: the instruction and what the document shows, as recipes/plan-7b.yaml has them on MORE.
INSTRUCTION, DOCUMENT = 0.36, 0.5
EPSILON = 0.2


@dataclass(frozen=True)
class Case:
    """The size of a step, in tokens."""

    prompt: int
    completion: int
    group: int
    pairs: int

    @property
    def rows(self) -> int:
        """Completions of a step."""
        return self.group * self.pairs


class Fixed:
    """Draws the same tokens whatever the logits: every completion is as long as it may be."""

    def __init__(self, ids: list[list[int]]) -> None:
        self.ids = ids
        self.step = [0] * len(ids)

    def choose(self, logits: Tensor, rows: Any) -> list[int]:
        logits.log_softmax(-1)  # what a sampler computes
        chosen = [self.ids[row][self.step[row]] for row in rows]
        for row in rows:
            self.step[row] += 1
        return chosen

    def ends(self, row: int, ids: Any) -> bool:
        return False


def build(size: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    """Random weights of that size."""
    tiny = build_tiny([f"w{number}" for number in range(900)], 0)
    config = tiny.model.config.to_dict()
    heads = SIZES[size]["num_attention_heads"]
    half = SIZES[size]["hidden_size"] // heads // 2
    section = [half // 4, (half - half // 4) // 2, half - half // 4 - (half - half // 4) // 2]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section}
    config["text_config"] |= SIZES[size] | {"layer_types": None, "rope_parameters": rope, "max_position_embeddings": 32768}
    config["vision_config"] |= {"out_hidden_size": SIZES[size]["hidden_size"]}
    config["tie_word_embeddings"] = SIZES[size]["tie_word_embeddings"]
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2_5_VLForConditionalGeneration._from_config(
            Qwen2_5_VLConfig.from_dict(config), attn_implementation=ATTENTIONS, dtype=dtype
        )
    model.generation_config = tiny.model.generation_config
    return Backbone(model.to(device), tiny.encoder, PromptForm())


def questions(case: Case) -> tuple[list[tuple[Segment, ...]], list[list[int]]]:
    """The prompts of a document's pairs, in segments, and a completion of random tokens for each row."""
    random = Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(random.randrange(300, 1000) for _ in range(count))

    first, second = round(INSTRUCTION * case.prompt), round(DOCUMENT * case.prompt)
    shared = (Segment(tokens(first)), Segment(tokens(second)))
    prompts = [(*shared, Segment(tokens(case.prompt - first - second))) for _ in range(case.pairs)]
    return prompts, [list(tokens(case.completion)) for _ in range(case.rows)]


def objective(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """The clipped loss of a first pass, where the ratio is one."""
    ratio = (logprobs - logprobs.detach()).exp()
    return -torch.min(ratio * advantages, ratio.clamp(1 - EPSILON, 1 + EPSILON) * advantages).mean()


def updates(backbone: Backbone, case: Case) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each way to have the gradients of a step, by name."""
    prompts, completions = questions(case)
    rows = [prompts[row // case.group] for row in range(case.rows)]
    forest = Forest.build([(prompt, tuple(ids)) for prompt, ids in zip(rows, completions, strict=True)], backbone.encoder)
    model, device = backbone.model, next(backbone.model.parameters()).device
    advantages = (
        torch.randn(case.rows, generator=torch.Generator().manual_seed(0)).repeat_interleave(case.completion).to(device)
    )

    def packed(layout: type[Layout]) -> Callable[[], object]:
        def run() -> None:
            model.activation_checkpointing_enable()
            objective(scored(model, forest, layout(forest.spans))[0], advantages).backward()  # type: ignore[call-arg]

        return run

    def in_parts() -> None:
        model.activation_checkpointing_disable()
        chunk = 2 * case.completion

        def loss(logprobs: Tensor, at: Tensor) -> Tensor:
            return objective(logprobs, advantages[at]) * len(at) / len(advantages)

        recursive.scored(model, forest, chunk, loss)

    def repeated() -> None:
        model.activation_checkpointing_enable()
        for pair in range(case.pairs):
            group = slice(pair * case.group, (pair + 1) * case.group)
            ids = torch.tensor([[id for part in rows[group.start] for id in part.ids] + row for row in completions[group]]).to(
                device
            )
            hidden = model.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).last_hidden_state
            targets = ids[:, case.prompt :].flatten()
            logprobs, _ = read(model.lm_head, hidden[:, case.prompt - 1 : -1].flatten(0, 1), targets, 1.0, False)
            each = advantages.view(case.rows, -1)[group].flatten()
            (objective(logprobs, each) / case.pairs).backward()

    yield "repeated", repeated
    yield "packed, SDPA", packed(Paths)
    if device.type == "cuda":
        yield "packed, flex", packed(Flex)
    yield "recursive", in_parts


def rollouts(backbone: Backbone, case: Case) -> Iterator[tuple[str, Callable[[], object]]]:
    """Both ways to draw a step's completions, by name."""
    prompts, completions = questions(case)
    model, device = backbone.model, next(backbone.model.parameters()).device
    rows = [prompts[row // case.group] for row in range(case.rows)]

    @torch.no_grad()
    def generate() -> None:
        ids = torch.tensor([[id for part in row for id in part.ids] for row in rows]).to(device)
        length = {"min_new_tokens": case.completion, "max_new_tokens": case.completion}
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, **length)

    yield "repeated", generate
    yield "forest", lambda: decode(backbone, rows, case.completion, Fixed(completions))


@contextmanager
def peak(device: torch.device) -> Iterator[list[float]]:
    """GiB of the device above what there was, at most, while this lasts; nothing where it is a CPU."""
    found: list[float] = []
    if device.type != "cuda":
        yield found
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield found
    found.append((torch.cuda.max_memory_allocated() - before) / 2**30)


def timed(run: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Seconds of each run but the first."""
    found = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return found[1:]


def rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product, here and now."""
    side = 8192 if device.type == "cuda" else 1024
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / median(timed(lambda: one @ other, device, 5))


def main() -> None:
    """Measure and print; one JSON line a figure, for the log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="+", choices=SIZES)
    parser.add_argument("--prompt", type=int, default=1000)
    parser.add_argument("--completion", type=int, default=350)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    device = torch.device("cpu" if options.cpu else "cuda")
    dtype = torch.float32 if options.cpu else torch.bfloat16
    case = Case(options.prompt, options.completion, options.group, options.pairs)
    fastest = rate(device, dtype)
    name = "CPU" if options.cpu else torch.cuda.get_device_name()
    print(json.dumps({"device": name, "torch": torch.__version__, "matrix_tflops": fastest / 1e12} | vars(case)))
    for size in options.sizes:
        backbone = build(size, device, dtype)
        text = backbone.model.model.language_model
        matrices = sum(p.numel() for layer in text.layers for p in layer.parameters() if p.ndim == 2)
        head = backbone.model.lm_head.weight.numel()
        prompts, _ = questions(case)
        unique = sum(len(part.ids) for part in dict.fromkeys(part for prompt in prompts for part in prompt))
        # Of the matrices alone: attention is left out, as usual, and so is what checkpointing computes again.
        forwards = 2 * (matrices * (unique + case.rows * case.completion) + head * case.rows * case.completion)
        tokens = case.rows * (case.prompt + case.completion)
        for kind, ways, factor in (("update", updates, 3), ("rollout", rollouts, 1)):
            backbone.model.train(kind == "update")
            base = None
            for way, run in ways(backbone, case):
                with peak(device) as found:
                    seconds = median(timed(run, device, options.repeats))
                base = base or seconds
                told: dict[str, Any] = {"size": size, "what": kind, "way": way, "seconds": round(seconds, 4)}
                told |= {"times": round(base / seconds, 2), "tokens_a_second": round(tokens / seconds)}
                told |= {"rate_share": round(factor * forwards / seconds / fastest, 3)}
                if kind == "update":  # that all ways have the same gradients; of one step, for they add up
                    norms = torch.stack([p.grad.norm() for p in backbone.model.parameters() if p.grad is not None])
                    told["gradient"] = float(norms.norm()) / (options.repeats + 1)
                    backbone.model.zero_grad(set_to_none=True)
                print(json.dumps(told | ({"peak_gib": round(found[0], 2)} if found else {})), flush=True)
        del backbone


if __name__ == "__main__":
    main()
