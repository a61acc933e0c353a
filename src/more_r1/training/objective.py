"""GRPO's loss: advantages within a group, the clipped ratio, and the distance to the reference model.

Shao et al. 2024 (DeepSeekMath, arXiv 2402.03300). Separable over completion tokens, so that a forest can be run in pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Average = Literal["token", "sequence"]
Importance = Literal["sequence_mask", "sequence_truncate", "token_mask", "token_truncate", "none"]

# As TRL has it: keeps a group of nearly equal rewards from blowing up.
STD_FLOOR = 1e-4


def advantages(rewards: Tensor) -> Tensor:
    """Rewards [groups, G] less their group's mean, over its standard deviation (of a sample, G - 1) plus STD_FLOOR.

    Exactly 0 where all rewards of a group are equal, whatever the rounding of their mean.
    """
    equal = (rewards == rewards[:, :1]).all(dim=1, keepdim=True)
    deviation = rewards - rewards.mean(dim=1, keepdim=True)
    scaled = deviation / (rewards.std(dim=1, keepdim=True) + STD_FLOOR) if rewards.shape[1] > 1 else deviation
    return scaled.masked_fill(equal, 0.0)


def token_weights(lengths: Sequence[int], average: Average, completions: int, tokens: int) -> Tensor:
    """The weight of each token of these completions in a mean over a batch of so many completions and tokens, [sum(lengths)].

    `sequence`: the mean over completions of the mean over their tokens (GRPO as published); `token`: the mean over all tokens
    (DAPO, Yu et al. 2025, arXiv 2503.14476), in which a long completion does not count less a token than a short one.
    """
    sizes = torch.tensor(lengths)
    each = torch.full((len(sizes),), 1 / tokens) if average == "token" else 1 / (sizes * completions)
    return each.repeat_interleave(sizes)


def importance_weights(policy: Tensor, sampler: Tensor, lengths: Sequence[int], how: Importance, most: float) -> Tensor:
    """The weight [K] of each token of completions of these lengths that a sampler drew which is not quite the policy.

    Both log-probabilities are [K], `sampler`'s those of the draw. The ratio of policy to sampler is taken of whole completions
    or of tokens; above `most` it is `most` (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
    training") or 0 (Liu et al. 2025, "When speed kills stability"). The names are TRL's `vllm_importance_sampling_mode`.
    """
    if how == "none":
        return torch.ones_like(policy)
    difference = policy - sampler
    if how.startswith("sequence"):
        sizes = torch.tensor(lengths, device=policy.device)
        sums = torch.stack([part.sum() for part in torch.split(difference, list(lengths))])
        difference = sums.repeat_interleave(sizes)
    ratio = difference.exp()
    return ratio.clamp(max=most) if how.endswith("truncate") else ratio.masked_fill(ratio > most, 0.0)


@dataclass(frozen=True)
class Objective:
    """What the tokens of a forest's completions are to be trained towards; all tensors [K], none with gradients."""

    old: Tensor | None
    """Log-probabilities under the model as it was when they were drawn; None: it still is that model, and all ratios are 1."""
    advantage: Tensor
    weight: Tensor
    reference: Tensor | None
    """Log-probabilities under the reference model; None if beta is 0."""
    epsilon: float
    beta: float
    importance: Tensor | None = None
    """Weights by which the draws of another sampler than that model count; they do not concern the divergence."""

    def __call__(self, logprobs: Tensor, at: Tensor | slice = slice(None)) -> Tensor:
        """The share of the loss of the tokens `at`, given their log-probabilities now.

        A token's loss is -min(r A, clip(r, 1 - epsilon, 1 + epsilon) A) + beta (exp(d) - d - 1) with r the ratio to `old` and
        d the log-ratio of the reference to the policy: k3 of Schulman 2020, http://joschu.net/blog/kl-approx.html.
        """
        old = logprobs.detach() if self.old is None else self.old[at]
        ratio, advantage = (logprobs - old).exp(), self.advantage[at]
        loss = -torch.min(ratio * advantage, ratio.clamp(1 - self.epsilon, 1 + self.epsilon) * advantage)
        if self.importance is not None:
            loss = loss * self.importance[at]
        if self.reference is not None:
            loss = loss + self.beta * k3(logprobs, self.reference[at])
        return (loss * self.weight[at]).sum()

    def clipped(self, logprobs: Tensor) -> Tensor:
        """Which tokens [K] the clipping keeps from moving on."""
        if self.old is None:
            return torch.zeros_like(logprobs, dtype=torch.bool)
        ratio = (logprobs - self.old).exp()
        return ((ratio < 1 - self.epsilon) & (self.advantage < 0)) | ((ratio > 1 + self.epsilon) & (self.advantage > 0))


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """An estimate of the divergence of the policy from the reference at each drawn token, never below 0."""
    difference = reference - logprobs
    return difference.exp() - difference - 1
