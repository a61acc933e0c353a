"""Rollouts: completions drawn from the model, several a prompt, each with what it needs to be learned from.

A rollout is a function of model, prompt and its own seed: neither the other prompts of the batch nor the number of processes
changes it, but for a draw that falls within rounding of the border between two tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from more_r1.models.decode import decode, stop_ids, vision_ids
from more_r1.models.load import Backbone
from more_r1.reasoning.prompt import Prompt

STOP = "</answer>"


class Sampling(BaseModel):
    """How to draw. Tokens that stand for pictures are never drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=1.0, gt=0)
    """Logits are divided by it."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the likeliest tokens are drawn, as few as have this probability together (Holtzman et al. 2020)."""


@dataclass(frozen=True)
class Rollout:
    """A drawn completion. It ends with `</answer>`, with the end of sequence, or for want of room."""

    text: str
    """Without the end of sequence."""
    ids: tuple[int, ...]
    """Its tokens, the last one included, whatever that is."""
    logprobs: tuple[float, ...]
    """Of each token, under the model at the temperature, before `top_p` and the ban on picture tokens (vLLM's after it)."""
    ended: bool
    """False where `max_new_tokens` cut it off."""


def rollout_seed(seed: int, epoch: int, key: Hashable, index: int) -> int:
    """The seed of the rollout `index` of the pair `key` in an epoch: 64 bits of a hash."""
    return int.from_bytes(hashlib.sha256(repr((seed, epoch, key, index)).encode()).digest()[:8], "little")


def sample(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    seeds: Sequence[Sequence[int]],
    sampling: Sampling,
    max_new_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> list[list[Rollout]]:
    """One rollout of each prompt for each of its seeds. `progress` is told how many rollouts are done."""
    encoder = backbone.encoder
    flat = [seed for group in seeds for seed in group]
    sampler = _Sampler(backbone, sampling, flat, max_new_tokens)
    asked = (
        segments for prompt, group in zip(prompts, seeds, strict=True) for segments in [encoder.prompt(prompt)] * len(group)
    )
    drawn = iter(zip(decode(backbone, asked, max_new_tokens, sampler, progress), sampler.logprobs, strict=True))

    def rollout(ids: list[int], logprobs: list[float]) -> Rollout:
        stopped = ids[-1] in sampler.stops
        text = encoder.decode(ids[:-1] if stopped else ids)
        return Rollout(text, tuple(ids), tuple(logprobs), stopped or sampler.closed(ids))

    return [[rollout(*next(drawn)) for _ in group] for group in seeds]


class _Sampler:
    """Draws each row's tokens by the inverse of the cumulative distribution, from numbers that its seed gives."""

    def __init__(self, backbone: Backbone, sampling: Sampling, seeds: Sequence[int], max_new_tokens: int) -> None:
        self.encoder, self.sampling = backbone.encoder, sampling
        self.stops, self.banned = stop_ids(backbone), vision_ids(backbone)
        self.numbers = [np.random.Generator(np.random.Philox(key=seed)).random(max_new_tokens) for seed in seeds]
        self.logprobs: list[list[float]] = [[] for _ in seeds]
        self.finished: set[int] = set()

    def choose(self, logits: Tensor, rows: Sequence[int]) -> list[int]:
        """As models.decode.Chooser has it."""
        scores = (logits.float() / self.sampling.temperature).log_softmax(-1)
        scores.index_fill_(1, torch.tensor(self.banned, device=scores.device), -torch.inf)
        # A row that has ended waits to be dropped: what it draws is not kept.
        numbers = [0.0 if row in self.finished else self.numbers[row][len(self.logprobs[row])] for row in rows]
        tokens = draw(scores, self.sampling.top_p, torch.tensor(numbers, dtype=torch.float64, device=logits.device))
        logprobs = scores.gather(1, tokens[:, None])[:, 0].tolist()
        for row, logprob in zip(rows, logprobs, strict=True):
            if row not in self.finished:
                self.logprobs[row].append(logprob)
                if len(self.logprobs[row]) == len(self.numbers[row]):
                    self.finished.add(row)
        return tokens.tolist()

    def ends(self, row: int, ids: Sequence[int]) -> bool:
        """As models.decode.Chooser has it."""
        if ids[-1] in self.stops or self.closed(ids):
            self.finished.add(row)
        return row in self.finished

    def closed(self, ids: Sequence[int]) -> bool:
        """Whether the text holds `</answer>`, which can only have come with the newest token."""
        # A mark of nine letters spans at most so many tokens, each of at least one letter.
        return ids[-1] in self.encoder.closing_ids and STOP in self.encoder.decode(list(ids[-len(STOP) :]))


def draw(scores: Tensor, top_p: float, numbers: Tensor) -> Tensor:
    """A token of each row [rows] from log-weights [rows, vocabulary] and numbers [rows] in [0, 1)."""
    weights = scores.double().softmax(-1)
    order = None
    if top_p < 1:
        weights, order = weights.sort(descending=True, stable=True)
        # A token stays if those before it are not enough; the first always does.
        weights = weights * (weights.cumsum(-1) - weights < top_p)
    sums = weights.cumsum(-1)
    places = torch.searchsorted(sums, numbers[:, None] * sums[:, -1:], right=True)
    return places[:, 0] if order is None else order.gather(1, places)[:, 0]
