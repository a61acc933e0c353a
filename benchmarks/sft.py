"""Forward and backward of a stage-1 batch: the packed forest against TRL's SFTTrainer, same samples, same model, one run.

    python benchmarks/sft.py

Each batch is some documents of 5 pairs. TRL is stock: its vision-language collator, a right-padded batch, its fused head that
computes log-probabilities of labelled tokens only. Both sides train all but the vision encoder, in float32, on as many
threads; TRL's defaults of bfloat16 and gradient checkpointing are off. Timed is what one step spends on loss and gradients:
`trainer.training_step` there (with its entropy and accuracy, which cannot be turned off), laying out the forest, forward and
backward here. Neither side's decoding and resizing of pictures is timed (ours keeps pixels from epoch to epoch, TRL's
prepares them anew), nor the optimizer. The two take turns; printed are medians.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration
from trl import SFTConfig, SFTTrainer

from more_r1.models.forest import Forest, Sample, logprobs
from more_r1.models.load import Backbone, load_backbone, save_backbone
from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import Picture, Prompt

# Sizes in words of one token: instruction, headline, question, completion; sides of the whole picture and the crop in pixels
# (28 x 28 a token). With the chat template around them, the first has the mean lengths of the embedded benchmark in tokens:
# 91 for the instruction, 31 for a document with its picture, 22 for a pair with its crop, 131 for a completion.
SHAPES = {
    "embedded world": {"instruction": 73, "headline": 12, "question": 3, "completion": 132, "whole": 112, "crop": 56},
    "real headlines": {"instruction": 120, "headline": 35, "question": 8, "completion": 110, "whole": 224, "crop": 112},
}
PAIRS = 5


def picture(rng: random.Random, side: int) -> Picture:
    """Noise, of a size that needs no resizing."""
    file = io.BytesIO()
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return Picture(file.getvalue(), None, side * side)


def words(rng: random.Random, count: int) -> str:
    """About `count` words, ragged by a fifth, one token each."""
    return " ".join(f"w{rng.randrange(400)}" for _ in range(round(count * rng.uniform(0.8, 1.2))))


def samples(documents: int, shape: dict[str, int]) -> list[tuple[Prompt, str]]:
    rng = random.Random(0)
    found = []
    root = (words(rng, shape["instruction"]) + "\n",)
    for _ in range(documents):
        document = (picture(rng, shape["whole"]), words(rng, shape["headline"]) + "\n")
        for _ in range(PAIRS):
            prompt = Prompt((root, document, (picture(rng, shape["crop"]), words(rng, shape["question"]))))
            found.append((prompt, words(rng, shape["completion"])))
    return found


def ours(backbone: Backbone, batch: list[Sample]) -> Callable[[], float]:
    def step() -> float:
        loss = -torch.cat(logprobs(backbone.model, Forest.build(batch, backbone.encoder))).mean()
        loss.backward()
        return loss.item()

    return step


def theirs(folder: str, backbone: Backbone, asked: list[tuple[Prompt, str]]) -> tuple[Any, Callable[[], float]]:
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    model.model.visual.requires_grad_(False)
    processor = backbone.encoder.processor
    rows = [
        {
            "prompt": processor.apply_chat_template(prompt.messages(), tokenize=False, add_generation_prompt=True),
            "completion": completion + processor.tokenizer.eos_token,
            "images": [shown.load() for shown in prompt.pictures],
        }
        for prompt, completion in asked
    ]
    settings = SFTConfig(
        output_dir=f"{folder}-trl",
        per_device_train_batch_size=len(rows),
        max_length=None,
        bf16=False,
        activation_checkpointing=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(model, settings, train_dataset=Dataset.from_list(rows), processing_class=processor)
    batch = next(iter(trainer.get_train_dataloader()))
    count = (batch["labels"] != -100).sum()
    trainer.current_gradient_accumulation_steps = 1  # its training loop would say so
    trainer.model.train()

    def step() -> float:
        return float(trainer.training_step(trainer.model, dict(batch), count))

    return model, step


def measure(step: Callable[[], float], model: Any) -> tuple[float, float, float]:
    model.zero_grad()
    cpu, wall = time.process_time(), time.perf_counter()
    loss = step()
    return time.process_time() - cpu, time.perf_counter() - wall, loss


def gradient(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for _, p in sorted(model.named_parameters()) if p.grad is not None])


def compare(name: str, folder: str, documents: int, repeats: int) -> None:
    backbone = load_backbone(folder, device="cpu")
    backbone.model.model.visual.requires_grad_(False)
    backbone.model.train()
    asked = samples(documents, SHAPES[name])
    batch = [(backbone.encoder.prompt(prompt), backbone.encoder.completion(text)) for prompt, text in asked]
    forest = Forest.build(batch, backbone.encoder)
    step = ours(backbone, batch)
    peer, peer_step = theirs(folder, backbone, asked)
    for _ in range(2):  # the first steps allocate
        measure(step, backbone.model), measure(peer_step, peer)
    runs = [(measure(step, backbone.model), measure(peer_step, peer)) for _ in range(repeats)]
    loss, peer_loss = runs[0][0][2], runs[0][1][2]
    difference = gradient(backbone.model) - gradient(peer)
    cpu, wall, peer_cpu, peer_wall = (statistics.median(run[who][what] for run in runs) for who in (0, 1) for what in (0, 1))
    print(f"{name}: {documents} documents of {PAIRS} pairs, {forest.repeated_tokens / len(batch):.0f} tokens a sequence")
    print(f"  tokens   forest {forest.tokens}, repeated {forest.repeated_tokens}")
    print(f"  loss     forest {loss:.7f}, TRL {peer_loss:.7f}, relative difference {abs(loss / peer_loss - 1):.1e}")
    print(f"  gradient relative difference {float(difference.norm() / gradient(peer).norm()):.1e}")
    print(f"  CPU s    forest {cpu:.3f}, TRL {peer_cpu:.3f}, ratio {peer_cpu / cpu:.2f}")
    print(f"  wall s   forest {wall:.3f}, TRL {peer_wall:.3f}, ratio {peer_wall / wall:.2f}", flush=True)
    if abs(loss / peer_loss - 1) > 1e-5:
        raise SystemExit(f"{name}: the losses differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[1, 4, 12], help="documents in a batch")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        save_backbone(build_tiny([f"w{number}" for number in range(400)], seed=0), f"{folder}/model")
        for name in SHAPES:
            for documents in arguments.documents:
                compare(name, f"{folder}/model", documents, arguments.repeats)


if __name__ == "__main__":
    main()
