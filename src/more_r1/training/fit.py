"""The update of fine-tuning: the mean log-probability of the completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from more_r1.models.forest import Forest
from more_r1.training.balance import balanced
from more_r1.training.examples import Batch, Example
from more_r1.training.learner import Trainer


def fit(trainer: Trainer, batch: Batch) -> dict[str, Any]:
    """An update of `training.learner.learn`: one step on the batch."""
    accelerator, encoder = trainer.accelerator, trainer.backbone.encoder
    prompts = [example.prompt for example in batch.examples]
    completions = [encoder.completion(example.completion) for example in batch.examples]
    # DDP needs a backward pass of every process, if only one that counts for nothing.
    nothing = [(replace(batch.examples[0], weight=0.0), completions[0])]
    items = list(zip(batch.examples, completions, strict=True))
    part = balanced(items, prompts, [len(ids) for ids in completions], encoder, accelerator) or nothing
    forest = Forest.build([(encoder.prompt(example.prompt), ids) for example, ids in part], encoder)
    total, count = token_mean(trainer.policy(forest)[0].split(forest.lengths), [example for example, _ in part])
    tokens = [total.new_tensor(float(n)) for n in (forest.tokens, forest.repeated_tokens)]
    all_total, all_count, computed, repeated = accelerator.reduce(torch.stack([total.detach(), count, *tokens])).tolist()
    trainer.backward(total / all_count)
    norm = trainer.step(all_total / all_count)
    event: dict[str, Any] = {"epoch": round(batch.epoch, 4)} | ({"stage": batch.stage} if batch.stage else {})
    event |= {"loss": all_total / all_count, "grad_norm": norm}
    return event | {"tokens": int(computed), "repeated_tokens": int(repeated)}


def token_mean(logprobs: Sequence[Tensor], examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Minus the mean log-probability of all completion tokens of the batch, as TRL's SFTTrainer has it, weighted by example."""
    pairs = zip(logprobs, examples, strict=True)
    weights = [tokens.new_tensor(example.weight).expand_as(tokens) for tokens, example in pairs]
    return -(torch.cat(list(logprobs)) * torch.cat(weights)).sum(), torch.cat(weights).sum()
