"""Both sides of benchmarks/grpo.py: one model, one list of questions, our update and stock TRL's GRPOTrainer."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from PIL import Image
from transformers import PrinterCallback, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from more_r1.models.families.qwen import ImageTextProcessor
from more_r1.models.load import ATTENTIONS, Backbone, load_backbone, save_backbone
from more_r1.models.processor import Encoder
from more_r1.models.tiny import build_tiny
from more_r1.models.vision import frozen_copy
from more_r1.reasoning.prompt import Part, Picture, Prompt, PromptForm
from more_r1.schema import Schema
from more_r1.training.learner import Policy, Trainer
from more_r1.training.rewards import RewardWeights, rewards
from more_r1.training.samples import Asked
from more_r1.training.update import Groups, GrpoUpdate, UpdateRecipe

# What a prompt is made of, in tokens, as recipes/plan-7b.yaml has it for Qwen2.5-VL-7B on MORE. Shorter prompts are made of the
# same parts in the same proportions; the first three are a document's.
INSTRUCTION, WHOLE, HEADLINE, CROP, QUESTION = 760, 1024, 40, 256, 35
WORDS = 1900
RATE = 1e-6
BETA = 0.001
# Random tokens have 4.7 letters on average: a length that about half of the completions have.
LETTERS_A_TOKEN = 4.7
PATCH = 28


@dataclass(frozen=True)
class Case:
    """The size of a step: tokens of a prompt and of a completion, completions of a pair, pairs of a document."""

    prompt: int
    completion: int
    group: int
    pairs: int = 1

    @classmethod
    def read(cls, text: str) -> Case:
        """From its four numbers, or the first three, with strokes between them."""
        return cls(*map(int, text.split("/")))

    def __str__(self) -> str:
        return "/".join(map(str, (self.prompt, self.completion, self.group, self.pairs)))

    @property
    def rows(self) -> int:
        """Completions of a step."""
        return self.group * self.pairs


@dataclass(frozen=True)
class Question:
    """What `training.samples.Sample` is to an update, with a prompt of its own."""

    asked: Prompt
    number: int
    label: str = "none"

    @property
    def key(self) -> tuple[str, str, tuple[int, int]]:
        return "document", str(self.number), (0, 1)

    def prompt(self, schema: Schema, form: PromptForm) -> Prompt:
        return self.asked


def write_model(folder: str) -> None:
    """Random weights in the proportions of Qwen2.5-VL-7B: grouped queries, one block in four of the vision tower sees all.

    The end of sequence is a token that neither side draws, so that every completion is as long as it may be.
    """
    tiny = build_tiny([f"w{number}" for number in range(WORDS)], seed=0)
    config = tiny.model.config.to_dict()
    config["text_config"] |= {"hidden_size": 320, "intermediate_size": 1696, "num_hidden_layers": 3, "layer_types": None}
    config["text_config"] |= {"num_attention_heads": 5, "num_key_value_heads": 1, "initializer_range": 0.02}
    config["text_config"]["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    config["vision_config"] |= {"depth": 4, "hidden_size": 112, "intermediate_size": 304, "num_heads": 4}
    config["vision_config"] |= {"fullatt_block_indexes": [3], "out_hidden_size": 320, "initializer_range": 0.02}
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration._from_config(
        Qwen2_5_VLConfig.from_dict(config), attn_implementation=ATTENTIONS
    ).eval()
    processor = tiny.encoder.processor
    processor.tokenizer.eos_token = "<|video_pad|>"
    model.generation_config = tiny.model.generation_config
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    save_backbone(Backbone(model, Encoder(processor), PromptForm()), folder)


def questions(case: Case, encoder: Encoder, seed: int) -> list[Question]:
    """Of one document, each of exactly `case.prompt` tokens; other seeds show other pictures and words."""
    rng = random.Random(seed)
    scale = case.prompt / (INSTRUCTION + WHOLE + HEADLINE + CROP + QUESTION)
    whole = _noise(rng, round((WHOLE * scale) ** 0.5))
    headline = _words(rng, round(HEADLINE * scale))
    crops = [_noise(rng, max(2, round((CROP * scale) ** 0.5))) for _ in range(case.pairs)]
    asked = [_words(rng, round(QUESTION * scale)) for _ in range(case.pairs)]

    def prompt(instruction: str, number: int) -> Prompt:
        last: tuple[Part, ...] = (crops[number], asked[number])
        return Prompt(((instruction + "\n",), (whole, headline + "\n"), last))

    # Template, line ends and marks of the pictures are the instruction's loss.
    left = case.prompt - sum(len(segment.ids) for segment in encoder.prompt(prompt("", 0)))
    if left < 0:
        raise SystemExit(f"{case}: a prompt has at least {case.prompt - left} tokens")
    instruction = _words(random.Random(0), left)
    return [Question(prompt(instruction, number), number) for number in range(case.pairs)]


def _noise(rng: random.Random, side: int) -> Picture:
    """A picture of side x side tokens, which needs no resizing."""
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (side * PATCH, side * PATCH, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Picture(file.getvalue(), None, (side * PATCH) ** 2)


def _words(rng: random.Random, count: int) -> str:
    """Of one token each."""
    return " ".join(f"w{rng.randrange(WORDS)}" for _ in range(count))


def recipe(case: Case, forest: Literal["packed", "recursive"] = "packed", chunk_tokens: int = 16384) -> UpdateRecipe:
    """Ours; theirs is made from it."""
    weights = RewardWeights(length_characters=round(LETTERS_A_TOKEN * case.completion), plain_length=True)
    return UpdateRecipe(
        out=Path("unused"),
        group=case.group,
        max_new_tokens=case.completion,
        rewards=weights,
        beta=BETA,
        forest=forest,
        chunk_tokens=chunk_tokens,
    )


Seconds = np.ndarray[tuple[int, int], np.dtype[np.float64]]
"""[3, 2]: of rollout (with the rewards on our side), reference, training; CPU and wall."""


class Watch:
    """Takes the time of a step by when the reference model is called in it, which both sides do in between."""

    def __init__(self, reference: Any) -> None:
        self.marks: list[tuple[float, float]] = []
        reference.model.register_forward_pre_hook(lambda *_: self._mark())
        reference.model.register_forward_hook(lambda *_: self._mark())

    def _mark(self) -> None:
        self.marks.append((time.process_time(), time.perf_counter()))

    def start(self) -> None:
        self.marks = []
        self._mark()

    def stop(self) -> Seconds:
        self._mark()
        return np.diff([self.marks[at] for at in (0, 1, -2, -1)], axis=0)


class Ours:
    """Our update, as `training.learner.learn` calls it."""

    def __init__(self, folder: str, told: UpdateRecipe) -> None:
        backbone = load_backbone(folder, device="cpu")
        backbone.model.model.visual.requires_grad_(False)
        reference = frozen_copy(backbone.model)
        accelerator = Accelerator(cpu=True)
        policy = Policy(backbone.model)
        optimizer = torch.optim.AdamW(
            [p for p in policy.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0, fused=True
        )
        self.optimizer = accelerator.prepare(optimizer)
        self.trainer = Trainer(backbone, accelerator, accelerator.prepare(policy), self.optimizer, told.clip)
        self.update = GrpoUpdate(told, Schema.more(), reference)
        self.watch = Watch(reference)
        self.events: list[dict[str, Any]] = []

    def step(self, asked: Sequence[Question], number: int) -> Seconds:
        self.watch.start()
        groups = Groups(tuple(Asked(question, question.number, False) for question in asked), number, 1.0)  # type: ignore[arg-type]
        self.events.append(self.update(self.trainer, groups))
        return self.watch.stop()


class Theirs:
    """Stock TRL. Its training loop drives; `between` is called at the start and after each step, with the step's time."""

    def __init__(self, folder: str, case: Case, batches: Sequence[Sequence[Question]]) -> None:
        told = recipe(case)
        processor = ImageTextProcessor.from_pretrained(folder)
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
        model.model.visual.requires_grad_(False)
        functions = rewards(Schema.more(), "steps", told.rewards)
        banned = [model.config.video_token_id, model.config.vision_start_token_id, model.config.vision_end_token_id]
        config = GRPOConfig(
            output_dir=f"{folder}-trl",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            shuffle_dataset=False,
            max_steps=len(batches),
            per_device_train_batch_size=case.group,
            gradient_accumulation_steps=case.pairs,
            num_generations=case.group,
            max_completion_length=case.completion,
            # As ours; the picture's token it bans by itself.
            generation_kwargs={"suppress_tokens": [model.config.image_token_id, *banned]},
            reward_weights=[getattr(told.rewards, name) for name in functions],
            learning_rate=RATE,
            lr_scheduler_type="constant",
            max_grad_norm=told.clip,
            loss_type="grpo",
            epsilon=told.epsilon,
            beta=told.beta,
            use_bias_correction_kl=False,
        )
        self.trainer = GRPOTrainer(
            model,
            list(functions.values()),
            args=config,
            train_dataset=Dataset.from_list([_row(question) for batch in batches for question in batch]),
            processing_class=processor,
        )
        self.trainer.remove_callback(PrinterCallback)
        self.watch = Watch(self.trainer.ref_model)

    def run(self, between: Callable[[int, Seconds | None], None]) -> list[dict[str, Any]]:
        """Train on all batches; what it logged of each."""
        watch = self.watch

        class Turns(TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                between(0, None)
                watch.start()

            def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
                between(state.global_step, watch.stop())
                watch.start()

        self.trainer.add_callback(Turns())
        self.trainer.train()
        return [event for event in self.trainer.state.log_history if "loss" in event]


def _row(question: Question) -> dict[str, Any]:
    """A message with places for the pictures, the pictures, and what rewards are told."""
    (message,) = question.asked.messages()
    content = [{name: part[name] for name in ("type", "text") if name in part} for part in message["content"]]
    images = [picture.load() for picture in question.asked.pictures]
    return {"prompt": [{**message, "content": content}], "images": images, "label": question.label}
