"""What stock TRL makes of an export: the same ids and pixels as our own stage 1, and rewards that get the gold labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from annotated import FORM, oracle_run
from datasets import Dataset, load_dataset
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from more_r1.export.export import export_run
from more_r1.models.families.qwen import ImageTextProcessor
from more_r1.models.load import Backbone
from more_r1.reasoning.trace import Trace
from more_r1.schema import Schema
from more_r1.training.rewards import RewardWeights, rewards
from more_r1.training.samples import Sample

Run = tuple[Path, list[tuple[Sample, str]], list[Sample]]
STILL: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}


@pytest.fixture(scope="module")
def exported(benchmark_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("trl")
    run, accepted, rest = oracle_run(folder / "run", benchmark_dir)
    export_run(run, "trl", folder / "out", FORM)
    return folder / "out", accepted, rest


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    yield


def load(folder: Path, name: str, cache: Path) -> Dataset:
    return load_dataset(str(folder), name, split="train", cache_dir=str(cache))


def test_sft_trains_on_the_ids_and_pixels_of_our_own_stage_1(
    exported: Run, random_tiny: Backbone, random_tiny_dir: Path, tmp_path: Path
) -> None:
    folder, accepted, _ = exported
    config = SFTConfig(str(tmp_path / "sft"), max_length=None, per_device_train_batch_size=4, max_steps=1, **STILL)
    data = load(folder, "sft", tmp_path)
    trainer = SFTTrainer(str(random_tiny_dir), config, train_dataset=data, processing_class=processor(random_tiny_dir))
    assert len(data) == len(accepted)
    encoder = random_tiny.encoder
    for index in range(0, len(accepted), 5):
        sample, completion = accepted[index]
        batch = trainer.data_collator([trainer.train_dataset[index]])
        prompt = sample.prompt(Schema.more(), FORM)
        asked = [id for segment in encoder.prompt(prompt) for id in segment.ids]
        learnt = list(encoder.completion(completion))
        ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        assert ids[: len(asked) + len(learnt)] == asked + learnt
        assert labels[: len(asked) + len(learnt)] == [-100] * len(asked) + learnt
        pixels = torch.cat([encoder.pixels(picture)[0] for picture in prompt.pictures])
        assert torch.equal(batch["pixel_values"], pixels)
        whole, part = (int(encoder.pixels(picture)[1].prod()) for picture in prompt.pictures)
        assert batch["image_grid_thw"].prod(-1).tolist() == [whole, part] and whole > part
    assert torch.isfinite(torch.tensor(trainer.train().training_loss))


def test_grpo_asks_the_prompt_with_both_pictures_and_rewards_by_the_label(
    exported: Run, random_tiny: Backbone, random_tiny_dir: Path, tmp_path: Path
) -> None:
    folder, _, rest = exported
    ours = processor(random_tiny_dir)
    found = rewards(Schema.more(), "steps", RewardWeights(length=0))
    steps = ("seen", "said", "who", "a (per) and an (org)", "none", "so")
    answers = [rest[0].label, "none", rest[1].label, "/loc/loc/contain"]
    told: list[tuple[Any, ...]] = []
    asked: list[Any] = []

    def seen(completions: list[Any], label: list[str], document: list[str], object: list[str], **_: Any) -> list[float]:
        told.extend(zip(label, document, object, strict=True))
        return [0.0] * len(completions)

    def rollout(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        asked.extend(prompts)
        ids = ours.apply_chat_template(prompts, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
        return {
            "prompt_ids": ids,
            "completion_ids": [list(random_tiny.encoder.completion(Trace(steps, one).render())) for one in answers],
            "logprobs": None,
        }

    config = GRPOConfig(
        str(tmp_path / "grpo"),
        max_steps=1,
        num_generations=2,
        per_device_train_batch_size=4,
        shuffle_dataset=False,
        logging_steps=1,
        **STILL,
    )
    data = load(folder, "rl", tmp_path)
    assert len(data) == len(rest) and data["label"] == [sample.label for sample in rest]
    functions = [*found.values(), seen]
    trainer = GRPOTrainer(str(random_tiny_dir), functions, config, data, processing_class=ours, rollout_func=rollout)
    trainer.train()

    pairs = [rest[0], rest[0], rest[1], rest[1]]
    assert told == [(sample.label, *sample.key[:2]) for sample in pairs]
    right = sum(sample.label == answer for sample, answer in zip(pairs, answers, strict=True))
    assert trainer.state.log_history[0]["rewards/answer/mean"] == right / 4
    for sample, messages in zip(pairs, asked, strict=True):
        prompt = sample.prompt(Schema.more(), FORM)
        (content,) = (message["content"] for message in messages)
        assert [part.get("text") for part in content] == [
            part if isinstance(part, str) else None for segment in prompt.segments for part in segment
        ]
        images = [part["image"] for part in content if part["type"] == "image"]
        pixels = [ours.image_processor(image, return_tensors="pt")["pixel_values"] for image in images]
        assert all(
            torch.equal(one, random_tiny.encoder.pixels(picture)[0])
            for one, picture in zip(pixels, prompt.pictures, strict=True)
        )


def processor(folder: Path) -> ImageTextProcessor:
    return ImageTextProcessor.from_pretrained(folder)
