"""GRPO's update: draw groups of rollouts, reward them, and learn from what sets the completions of a group apart.

Prefixes that completions share are computed once, in the drawing as in the learning. With beta 0 a group whose rewards are all
equal has nothing to teach: it counts in the averages, but is not computed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from pydantic import Field, model_validator
from torch import Tensor

from more_r1.models import recursive
from more_r1.models.forest import Forest, Sample
from more_r1.models.lora import without_lora
from more_r1.models.sampling import Rollout, Sampling, rollout_seed, sample
from more_r1.models.vision import remembered
from more_r1.schema import Schema
from more_r1.training.balance import balanced
from more_r1.training.examples import share
from more_r1.training.figures import figures, mean, records, sampler_figures
from more_r1.training.learner import Policy, Trainer, TrainingRecipe
from more_r1.training.objective import Average, Importance, Objective, advantages, importance_weights, k3, token_weights
from more_r1.training.rewards import RewardWeights, rewards, total
from more_r1.training.rollouts import Elsewhere, VllmRecipe
from more_r1.training.samples import Asked
from more_r1.training.split import splits

# Numbers of gradients that are added up over processes in one call: 4 MiB in float32, enough to keep a link busy.
_BUCKET = 2**20


class UpdateRecipe(TrainingRecipe):
    """What an update is told; the defaults are the paper's where it gives them."""

    group: int = Field(default=8, ge=2)
    """G, rollouts of a pair."""
    sampling: Sampling = Sampling()
    max_new_tokens: int = Field(default=512, ge=1)
    rewards: RewardWeights = RewardWeights()
    passes: int = Field(default=1, ge=1)
    """Optimizer steps on one set of rollouts."""
    epsilon: float = Field(default=0.2, gt=0, lt=1)
    beta: float = Field(default=0.001, ge=0)
    """Weight of the divergence from the reference."""
    average: Average = "sequence"
    """How the loss is averaged over a step, see `objective.token_weights`."""
    rollout: Literal["local", "vllm"] = "local"
    """Who draws the rollouts: the model in this process, or vLLM."""
    vllm: VllmRecipe = VllmRecipe()
    importance: Importance = "sequence_mask"
    """How vLLM's rollouts are weighted, for its kernels do not draw from quite the policy; `objective.importance_weights`."""
    most_importance: float = Field(default=3.0, gt=0, allow_inf_nan=False)
    """Weights above it are cut off, or their rollouts are."""
    forest: Literal["packed", "recursive"] = "packed"
    """Packed: whole groups in one call of the model. Recursive: least memory, see models/recursive.py."""
    chunk_tokens: int = Field(default=16384, ge=1)
    """Most tokens of one call, but for a group (packed) or a segment (recursive) that has more by itself."""

    @model_validator(mode="after")
    def _drawn(self) -> Self:
        if self.rollout == "local" and self.vllm != VllmRecipe():
            raise ValueError("vllm.* are of rollout=vllm; set that, too, or leave them out")
        if self.rollout == "vllm" and (self.sampling.top_p < 1 or self.sampling.temperature < 0.01):
            # Log-probabilities of a nucleus are of another distribution than the policy's: no weight would be left of a text.
            raise ValueError("rollout=vllm needs sampling.top_p=1 and a sampling.temperature of 0.01 or more")
        if self.forest == "recursive" and self.attention == "flex":
            raise ValueError("attention=flex is for forest=packed; leave one of the two out")
        return self


@dataclass(frozen=True)
class Groups:
    """The pairs of one step, over all processes. `round` counts the epochs from 1, `epoch` says where in the run it ends."""

    asked: tuple[Asked, ...]
    round: int
    epoch: float


@dataclass(frozen=True)
class _Chunk:
    """A forest of whole groups and what it is to be trained towards."""

    forest: Forest
    objective: Objective
    differences: Tensor | None
    """How far the sampler's log-probabilities are from the policy's [K]; None where the policy drew itself."""


class GrpoUpdate:
    """An update of `training.learner.learn`. `reference` is a frozen model; None: the policy without its adapters.

    `elsewhere` draws the rollouts; without it the policy does.
    """

    def __init__(self, recipe: UpdateRecipe, schema: Schema, reference: Any = None, elsewhere: Elsewhere | None = None) -> None:
        self.recipe, self.schema, self.reference, self.elsewhere = recipe, schema, reference, elsewhere

    def __call__(self, trainer: Trainer, batch: Groups) -> dict[str, Any]:
        """Train on the batch and say what is to be logged of it. A recursive forest needs a model that is not split, see
        `launch.needs_whole`."""
        with remembered(trainer.backbone.model):
            return self._update(trainer, batch)

    def _update(self, trainer: Trainer, batch: Groups) -> dict[str, Any]:
        backbone, recipe = trainer.backbone, self.recipe
        times = [time.perf_counter()]
        asked = share(batch.asked, trainer.accelerator)
        prompts = [one.sample.prompt(self.schema, backbone.form) for one in asked]
        # A pair that comes again in an epoch is answered anew.
        drawn = [(one.sample.key, range(one.turn * recipe.group, (one.turn + 1) * recipe.group)) for one in asked]
        seeds = [[rollout_seed(recipe.seed, batch.round, key, i) for i in numbers] for key, numbers in drawn]
        if self.elsewhere is not None:
            rollouts = self.elsewhere.sample(trainer, prompts, seeds, recipe.sampling, recipe.max_new_tokens)
        else:
            with trainer.whole(), trainer.accelerator.autocast():
                rollouts = sample(backbone, prompts, seeds, recipe.sampling, recipe.max_new_tokens)
        times.append(time.perf_counter())
        values, earned = self._reward(asked, rollouts, backbone.form.reasoning)
        times.append(time.perf_counter())
        told = gather_object(records(asked, rollouts, values, earned, self.schema, backbone.form.reasoning))
        everyone, advantage = gather_object(rollouts), advantages(torch.cat(gather_object([earned])))
        chunks = self._chunks(trainer, batch.asked, everyone, advantage)
        sampler = _sampler(chunks) if self.elsewhere is not None else {}  # before anything is learnt from another model
        steps = [self._optimise(trainer, chunks) for _ in range(recipe.passes)]
        times.append(time.perf_counter())
        event: dict[str, Any] = {"epoch": round(batch.epoch, 4)}
        event |= {name: mean([s[name] for s in steps]) for name in steps[0]}
        event |= figures(told, recipe.group) | sampler
        spans = zip(("rollout", "reward", "train"), times, times[1:], strict=False)
        event |= {f"seconds_{name}": round(end - start, 4) for name, start, end in spans}
        event["passed"] = [[record["number"], record["passed"]] for record in told]
        event["sample"] = told[0]["sample"]
        return event

    def _reward(
        self, asked: Sequence[Asked], rollouts: Sequence[Sequence[Rollout]], reasoning: Literal["steps", "none"]
    ) -> tuple[dict[str, list[float]], Tensor]:
        """Each reward of each rollout, flat, and their weighted sums [pairs, G]."""
        texts = [rollout.text for group in rollouts for rollout in group]
        labels = [one.sample.label for one in asked for _ in range(self.recipe.group)]
        functions = rewards(self.schema, reasoning, self.recipe.rewards)
        values = {name: reward(texts, label=labels) for name, reward in functions.items()}
        return values, torch.tensor(total(values, self.recipe.rewards)).view(len(asked), self.recipe.group)

    def _chunks(
        self, trainer: Trainer, asked: Sequence[Asked], rollouts: Sequence[Sequence[Rollout]], advantage: Tensor
    ) -> list[_Chunk]:
        """This process's part of what the rollouts of all pairs [pairs][G] have to teach, about as many tokens as the others'.

        Every process takes part in every step, and calls a model that is split as often as the others do.
        """
        recipe, encoder = self.recipe, trainer.backbone.encoder
        form = trainer.backbone.form
        lengths = [sum(len(rollout.ids) for rollout in group) for group in rollouts]
        worth = [n for n in range(len(asked)) if recipe.beta > 0 or bool(advantage[n].any())]
        questions = [asked[n].sample.prompt(self.schema, form) for n in worth]
        taught = balanced(worth, questions, [lengths[n] for n in worth], encoder, trainer.accelerator)
        prompts = [encoder.prompt(asked[n].sample.prompt(self.schema, form)) for n in taught]
        samples = [[(prompt, rollout.ids) for rollout in rollouts[n]] for prompt, n in zip(prompts, taught, strict=True)]
        cuts = list(_cut(samples, recipe.chunk_tokens if recipe.forest == "packed" else None))
        # How often the others call the model must be known before it is called.
        calls = max(1, *gather_object([len(cuts)])) if splits(trainer.accelerator) else max(1, len(cuts))
        chunks = []
        for first, last in cuts:
            members = [rollout for n in taught[first:last] for rollout in rollouts[n]]
            sizes = [len(rollout.ids) for rollout in members]
            each = advantage[taught[first:last]].flatten().repeat_interleave(torch.tensor(sizes))
            weight = token_weights(sizes, recipe.average, len(asked) * recipe.group, sum(lengths))
            flat = [pair for group in samples[first:last] for pair in group]
            chunks.append(self._chunk(trainer, flat, [p for r in members for p in r.logprobs], each, weight))
        while len(chunks) < calls:
            idle, zero = encoder.prompt(asked[0].sample.prompt(self.schema, form)), torch.zeros(1)
            chunks.append(self._chunk(trainer, [(idle, (encoder.eos_id,))], [0.0], zero, zero))
        return chunks

    def _chunk(
        self,
        trainer: Trainer,
        samples: Sequence[Sample],
        drawn: Sequence[float],
        advantage: Tensor,
        weight: Tensor,
    ) -> _Chunk:
        """The forest of these completions; their log-probabilities under the reference, if it counts, and under the policy, if
        another sampler drew them."""
        recipe, device = self.recipe, trainer.accelerator.device
        forest = Forest.build(samples, trainer.backbone.encoder)
        old = reference = importance = differences = None
        with torch.no_grad(), trainer.accelerator.autocast():
            if recipe.beta > 0:
                with without_lora(trainer.backbone.model) if self.reference is None else nullcontext():
                    reference = self._scored(trainer, forest, self.reference)
            if self.elsewhere is not None:
                sampler, old = torch.tensor(drawn).to(device), self._scored(trainer, forest, None)
                lengths = [len(ids) for _, ids in samples]
                importance = importance_weights(old, sampler, lengths, recipe.importance, recipe.most_importance)
                differences = (old - sampler).abs()
        # The policy's own draws are scored by the first pass over them, not by the drawing, whose kernels round otherwise.
        tensors = (advantage.to(device), weight.to(device))
        objective = Objective(old, *tensors, reference, recipe.epsilon, recipe.beta, importance)
        return _Chunk(forest, objective, differences)

    def _scored(self, trainer: Trainer, forest: Forest, model: Any) -> Tensor:
        """Log-probabilities [K] under a model, None being the policy."""
        recipe, temperature = self.recipe, self.recipe.sampling.temperature
        if recipe.forest == "recursive":
            whole = trainer.backbone.model if model is None else model
            return recursive.scored(whole, forest, recipe.chunk_tokens, temperature=temperature)[0]
        # A policy that is split can be called as a whole only.
        call = trainer.policy if model is None else Policy(model, recipe.attention)
        found: Tensor = call(forest, temperature=temperature)[0]
        return found

    def _optimise(self, trainer: Trainer, chunks: list[_Chunk]) -> dict[str, float]:
        """One optimizer step on all chunks. The loss is the sum over processes, and so is its gradient.

        What the first pass finds the log-probabilities to be is what later ones compare theirs with.
        """
        accelerator, temperature = trainer.accelerator, self.recipe.sampling.temperature
        # loss; divergence, entropy, clipped and number of tokens; tokens of the calls, and without sharing
        sums = torch.zeros(7, dtype=torch.float64)
        for number, chunk in enumerate(chunks):
            forest, objective = chunk.forest, chunk.objective
            last = number == len(chunks) - 1
            with nullcontext() if self._syncs(accelerator, last) else accelerator.no_sync(trainer.policy):
                if self.recipe.forest == "packed":
                    logprobs, entropies = trainer.policy(forest, temperature, True)
                    loss = objective(logprobs)
                    trainer.backward(loss, last)
                    logprobs = logprobs.detach()
                else:
                    model, most = trainer.backbone.model, self.recipe.chunk_tokens
                    with accelerator.autocast():
                        logprobs, entropies = recursive.scored(model, forest, most, objective, temperature, True)
                    loss = objective(logprobs)
            if objective.old is None:
                chunks[number] = replace(chunk, objective=replace(objective, old=logprobs))
            if not bool(objective.weight.any()):
                continue
            distance = torch.zeros(1) if objective.reference is None else k3(logprobs, objective.reference)
            parts = map(float, (loss.detach(), distance.sum(), entropies.sum(), objective.clipped(logprobs).sum()))
            tokens = (len(logprobs), forest.tokens, forest.repeated_tokens)
            sums += torch.tensor([*parts, *tokens], dtype=torch.float64)
        if self.recipe.forest == "recursive":
            _add_up(trainer.policy, accelerator)
        loss, distance, entropy, clipped, count, computed, repeated = accelerator.reduce(sums.to(accelerator.device)).tolist()
        norm = trainer.step(loss)
        count = max(count, 1.0)
        found = {"loss": loss, "grad_norm": norm, "entropy": entropy / count, "clipped": clipped / count}
        found |= {"kl": distance / count} if self.recipe.beta > 0 else {}
        return found | {"tokens": computed, "repeated_tokens": repeated}

    def _syncs(self, accelerator: Accelerator, last: bool) -> bool:
        """Whether gradients are added up over processes in this backward pass: in the last, and where they are split."""
        return splits(accelerator) or (self.recipe.forest == "packed" and last)


def _cut(groups: Sequence[Sequence[Sample]], most: int | None) -> Iterator[tuple[int, int]]:
    """Runs [first, last) of groups of at most so many tokens; one run if that is None."""
    first = held = 0
    for number, group in enumerate(groups):
        size = sum(len(segment.ids) for segment in group[0][0]) + sum(len(ids) for _, ids in group)
        if most is not None and number > first and held + size > most:
            yield first, number
            first, held = number, 0
        held += size
    if first < len(groups):
        yield first, len(groups)


def _add_up(policy: torch.nn.Module, accelerator: Accelerator) -> None:
    """Sum the gradients over the processes: in few calls, and never all copied at a time."""
    if accelerator.num_processes == 1:
        return
    bucket: list[torch.nn.Parameter] = []
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    for number, parameter in enumerate(trained, 1):
        bucket.append(parameter)
        if number < len(trained) and sum(p.numel() for p in bucket) < _BUCKET:
            continue
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
        parts = accelerator.reduce(flat).split([p.numel() for p in bucket])
        for one, part in zip(bucket, parts, strict=True):
            one.grad = part.view_as(one)
        bucket = []


def _sampler(chunks: Sequence[_Chunk]) -> dict[str, float]:
    """How far the sampler was from the policy, by all processes."""
    nothing = torch.zeros(0)
    found = [(nothing, nothing)]
    for chunk in chunks:
        weights, differences = chunk.objective.importance, chunk.differences
        if weights is not None and differences is not None and bool(chunk.objective.weight.any()):
            found.append((differences.cpu(), weights.cpu()))
    all_differences, all_weights = zip(*gather_object(found), strict=True)
    return sampler_figures(torch.cat(all_differences), torch.cat(all_weights))
