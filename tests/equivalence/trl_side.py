"""Stock TRL's GRPOTrainer on given completions: what stage 2's update is compared with.

TRL is told all through public arguments: a model folder, a data set with the pictures, our processor, our reward functions,
and `rollout_func` in place of drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from more_r1.models.families.qwen import ImageTextProcessor
from more_r1.models.lora import Lora
from more_r1.reasoning.prompt import Prompt
from more_r1.schema import Schema
from more_r1.training.rewards import rewards
from more_r1.training.samples import Sample
from more_r1.training.update import UpdateRecipe

LOSSES = {"token": "dapo", "sequence": "grpo"}
# TRL's names of what our log has too, of a round and of each optimizer step. The latter are means over all tokens: with beta 0
# ours leaves out the groups of equal rewards, and has others.
ROUND = {"reward": "reward", "equal_groups": "frac_reward_zero_std", "length": "completions/mean_length"}
STEP = {"kl": "kl", "entropy": "entropy", "clipped": "clip_ratio/region_mean"}
# Of a round that another sampler drew.
_OFF, _RATIO = "sampling/sampling_logp_difference", "sampling/importance_sampling_ratio"
SAMPLER = {"sampler_difference": f"{_OFF}/mean", "sampler_difference_max": f"{_OFF}/max"}
SAMPLER |= {"importance_min": f"{_RATIO}/min", "importance_max": f"{_RATIO}/max"}


@dataclass(frozen=True)
class Question:
    """A sample, the prompt that asks about it, and the ids of its group's completions."""

    sample: Sample
    prompt: Prompt
    completions: tuple[tuple[int, ...], ...]
    off: tuple[tuple[float, ...], ...]
    """How far another sampler's log-probabilities are off."""


@dataclass(frozen=True)
class Steps:
    """Loss and gradient norm of each optimizer step; figures of each round by our names; the trained weights at the end."""

    losses: list[float]
    norms: list[float]
    figures: dict[str, list[float]]
    weights: dict[str, Tensor]


def trl_steps(
    folder: Path,
    rounds: Sequence[Sequence[Question]],
    schema: Schema,
    recipe: UpdateRecipe,
    rate: float,
    lora: Lora | None,
    start: Mapping[str, Tensor],
    sampler: Callable[[Question, float], list[list[float]]],
) -> Steps:
    """Train the model in `folder` on these rounds of questions. `start`: with LoRA, what its adapters are to begin with;
    `sampler`: the log-probabilities of the completions of a question where vLLM is said to have drawn them."""
    vllm = recipe.rollout == "vllm"
    processor = ImageTextProcessor.from_pretrained(folder)
    (most,) = {picture.pixels for questions in rounds for question in questions for picture in question.prompt.pictures}
    processor.image_processor.size["longest_edge"] = most
    functions = rewards(schema, "steps", recipe.rewards)
    given = iter(rounds)

    def rollout(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        asked = processor.apply_chat_template(prompts, add_generation_prompt=True, tokenize=True, return_dict=True)
        questions = next(given)
        completions = [list(ids) for question in questions for ids in question.completions]
        said = [own for question in questions for own in sampler(question, recipe.sampling.temperature)] if vllm else None
        return {"prompt_ids": asked["input_ids"], "completion_ids": completions, "logprobs": said}

    config = GRPOConfig(
        output_dir=str(recipe.out.with_name("trl")),
        model_init_kwargs={"dtype": "float32", "attn_implementation": "sdpa"},
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_dropout=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1,
        shuffle_dataset=False,
        max_steps=len(rounds) * recipe.passes,
        per_device_train_batch_size=len(rounds[0]) * recipe.group,
        num_generations=recipe.group,
        num_iterations=recipe.passes,
        learning_rate=rate,
        lr_scheduler_type="constant",
        adam_beta1=recipe.betas[0],
        adam_beta2=recipe.betas[1],
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.clip,
        reward_weights=[getattr(recipe.rewards, name) for name in functions],
        scale_rewards="group",
        loss_type=LOSSES[recipe.average],
        epsilon=recipe.epsilon,
        beta=recipe.beta,
        use_bias_correction_kl=False,  # TRL's default multiplies the divergence by the ratio (DeepSeek-V3.2); GRPO does not
        temperature=recipe.sampling.temperature,
        **({"vllm_importance_sampling_mode": recipe.importance} if vllm else {}),
        **({"vllm_importance_sampling_clip_max": recipe.most_importance} if vllm else {}),
    )
    trainer = GRPOTrainer(
        model=str(folder),
        reward_funcs=list(functions.values()),
        args=config,
        train_dataset=Dataset.from_list([_row(question) for questions in rounds for question in questions]),
        processing_class=processor,
        peft_config=lora and LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=r".*language_model.*_proj"),
        rollout_func=rollout,
    )
    if vllm:
        # It starts one where it is told of it at first; all that it would be asked here is to take new weights.
        trainer.use_vllm, trainer.vllm_generation, trainer._last_loaded_step = True, Mock(), -1
    parameters = {name.removeprefix("base_model.model."): parameter for name, parameter in trainer.model.named_parameters()}
    trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    assert trained.keys() == start.keys()
    if lora is not None:
        for name, parameter in trained.items():
            parameter.data.copy_(start[name])
    assert all(torch.equal(parameter, start[name]) for name, parameter in trained.items())
    trainer.train()
    events = [event for event in trainer.state.log_history if "loss" in event]
    by_round = [events[first : first + recipe.passes] for first in range(0, len(events), recipe.passes)]
    figures = {ours: [passes[0][theirs] for passes in by_round] for ours, theirs in ROUND.items()}
    if recipe.beta > 0:
        figures |= {ours: [passes[0][theirs] for passes in by_round] for ours, theirs in SAMPLER.items() if vllm}
        means = {
            ours: [sum(event[theirs] for event in passes) / len(passes) for passes in by_round] for ours, theirs in STEP.items()
        }
        figures |= means
    losses, norms = ([event[name] for event in events] for name in ("loss", "grad_norm"))
    return Steps(losses, norms, figures, {name: parameter.detach() for name, parameter in trained.items()})


def _row(question: Question) -> dict[str, Any]:
    """A row of TRL's data set: a message with places for the pictures, the pictures, and what rewards are told."""
    (message,) = question.prompt.messages()
    content = [{name: part[name] for name in ("type", "text") if name in part} for part in message["content"]]
    images = [picture.load() for picture in question.prompt.pictures]
    return {"prompt": [{**message, "content": content}], "images": images, "label": question.sample.label}
