"""Stage 2's update takes the steps that stock TRL's GRPOTrainer takes: loss, divergence, norm of the gradient, weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor
from trl_side import Question, Steps, trl_steps

import more_r1.training.figures as figures
import more_r1.training.update as update
from more_r1.formats.oracle import read_oracle
from more_r1.models.forest import Forest, logprobs
from more_r1.models.load import Backbone, load_backbone
from more_r1.models.lora import Lora, add_lora
from more_r1.models.sampling import Rollout, Sampling
from more_r1.reasoning.prompt import Prompt, PromptForm
from more_r1.reasoning.trace import Trace, parse_trace
from more_r1.schema import NONE, Schema
from more_r1.training.learner import Trainer, learn
from more_r1.training.objective import Average, Importance
from more_r1.training.rewards import RewardWeights
from more_r1.training.run import Run
from more_r1.training.samples import Asked, Sample, read_samples
from more_r1.training.update import Groups, GrpoUpdate, UpdateRecipe

TINY = Path(str(resources.files("more_r1") / "assets" / "tiny"))
FORM = PromptForm(wording="short", whole_pixels=112 * 112, crop_pixels=112 * 112)
# A few labels, for short prompts.
SCHEMA = Schema(relations=Schema.more().relations[15:])
LORA = Lora(rank=4, alpha=12.0)
ROUNDS, GROUP = 3, 4
# Of each figure. Of the weights: of the length of their way in all, and of each tensor's own length.
TOLERANCE = 1e-4
# A loss is a mean of advantages of about 1 and -1. Where they cancel, what is left has only so much of their precision.
ZERO = 1e-6
# So low that AdamW's constant of 1e-8 hides gradients that are nothing but rounding; without it each of them moves a weight by
# the full learning rate.
CLIP = 0.01
# beta, passes, average, temperature, LoRA, and how the draws of another sampler are weighted
CASES: dict[str, tuple[float, int, Average, float, bool, Importance | None]] = {
    "plain": (0.0, 1, "token", 1.0, False, None),
    "divergence": (0.001, 1, "token", 1.0, False, None),
    "two-passes": (0.0, 2, "sequence", 1.0, False, None),
    "both": (0.001, 2, "sequence", 0.7, False, None),
    "lora": (0.0, 1, "sequence", 0.7, True, None),
    "lora-both": (0.001, 2, "token", 1.0, True, None),
    "sequence-mask": (0.001, 1, "sequence", 1.0, False, "sequence_mask"),
    "token-mask": (0.0, 1, "token", 0.7, False, "token_mask"),
    "sequence-truncate": (0.001, 2, "token", 1.0, False, "sequence_truncate"),
    "lora-token-truncate": (0.001, 1, "sequence", 1.0, True, "token_truncate"),
}
# Above it a draw's weight is cut off: some are, of sequences and of tokens.
MOST = 1.1


def completion(gold: Trace, kind: str, random: Random, backbone: Backbone) -> tuple[int, ...]:
    """A trace with shortened steps: right, right but too brief, wrong, or cut off; with or without the end of sequence."""
    words = 1 if kind == "brief" else random.randint(2, 6)
    steps = tuple(" ".join(step.split()[:words]) for step in gold.steps)
    wrong = SCHEMA.labels[1] if gold.answer == NONE else NONE
    ids = backbone.encoder.completion(Trace(steps, wrong if kind == "wrong" else gold.answer).render())
    return ids[: random.randint(1, 20)] if kind == "cut" else ids[: len(ids) - random.randint(0, 1)]


@pytest.fixture(scope="module")
def rounds(benchmark_dir: Path) -> list[list[Question]]:
    """Of three pairs each, two of them of one document; the second group has equal rewards."""
    backbone, random = load_backbone(TINY, device="cpu"), Random(1)
    gold = {(f.img_id, f.object, f.span): f.completion or "" for f in read_oracle(benchmark_dir / "oracle" / "train.jsonl")}
    by_document: dict[str, list[Sample]] = {}
    for sample in read_samples(benchmark_dir, "train"):
        if sample.label in SCHEMA.labels:
            by_document.setdefault(sample.document.id, []).append(sample)
    documents = iter([samples for samples in by_document.values() if len(samples) > 1])
    found = []
    for _ in range(ROUNDS):
        questions = []
        for number, sample in enumerate((*next(documents)[:2], next(documents)[0])):
            kinds = ["brief"] * GROUP if number == 1 else random.sample(["right", "brief", "wrong", "cut"], GROUP)
            trace = parse_trace(gold[sample.key], SCHEMA)
            completions = tuple(completion(trace, kind, random, backbone) for kind in kinds)
            off = tuple(tuple(random.gauss(0, 0.1) for _ in ids) for ids in completions)
            questions.append(Question(sample, sample.prompt(SCHEMA, FORM), completions, off))
        found.append(questions)
    return found


def fresh(lora: bool) -> Backbone:
    """What training begins with. Adapters that are not 0, so that all of them have gradients and the reference is another."""
    backbone = replace(load_backbone(TINY, device="cpu"), form=FORM)
    if lora:
        torch.manual_seed(0)
        add_lora(backbone.model, LORA)
        for name, parameter in backbone.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    return backbone


def trained(backbone: Backbone) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in backbone.model.named_parameters() if parameter.requires_grad}


def our_steps(
    rounds: Sequence[Sequence[Question]], recipe: UpdateRecipe, rate: float, lora: bool, monkeypatch: pytest.MonkeyPatch
) -> Steps:
    """`learn` with the completions of the questions in place of drawn ones."""
    backbone = fresh(lora)
    reference = deepcopy(backbone.model).requires_grad_(False) if recipe.beta > 0 and not lora else None
    given = {question.prompt: question for questions in rounds for question in questions}

    def group(backbone: Backbone, prompt: Prompt, temperature: float) -> list[Rollout]:
        encoder, completions = backbone.encoder, given[prompt].completions
        drawn = zip(completions, under(backbone, given[prompt], temperature), strict=True)
        return [Rollout(encoder.decode(ids), ids, tuple(old), True) for ids, old in drawn]

    def sample(
        backbone: Backbone, prompts: Sequence[Prompt], seeds: Sequence[Sequence[int]], sampling: Sampling, limit: int
    ) -> list[list[Rollout]]:
        return [group(backbone, prompt, sampling.temperature) for prompt in prompts]

    class Sampler:
        """What draws elsewhere, by other log-probabilities."""

        def sample(
            self, trainer: Trainer, prompts: Sequence[Prompt], seeds: Any, sampling: Sampling, limit: int
        ) -> list[list[Rollout]]:
            groups = [group(trainer.backbone, prompt, sampling.temperature) for prompt in prompts]
            said = [by_sampler(given[prompt], sampling.temperature) for prompt in prompts]
            pairs = zip(groups, said, strict=True)
            return [[replace(one, logprobs=tuple(its)) for one, its in zip(*both, strict=True)] for both in pairs]

    losses: list[float] = []
    norms: list[float] = []
    plain = Trainer.step

    def step(trainer: Trainer, loss: float) -> float:
        losses.append(loss)
        norms.append(plain(trainer, loss))
        return norms[-1]

    batches = [Groups(tuple(Asked(question.sample, 0, False) for question in questions), 1, 1.0) for questions in rounds]
    with monkeypatch.context() as patch:
        patch.setattr(update, "sample", sample)
        patch.setattr(Trainer, "step", step)
        patch.setattr(figures, "_TWO_MODELS", math.inf)
        elsewhere: Any = Sampler() if recipe.rollout == "vllm" else None
        learned = GrpoUpdate(recipe, SCHEMA, reference, elsewhere)
        learn(backbone, recipe, Run(recipe, recipe.out), batches, [rate] * ROUNDS, learned)
    events = [json.loads(line) for line in (recipe.out / "log.jsonl").read_text().splitlines()]
    logged = {name: [event[name] for event in events] for name in events[0]}
    return Steps(losses, norms, logged, trained(backbone))


def under(backbone: Backbone, question: Question, temperature: float) -> list[list[float]]:
    """Log-probabilities of the completions' tokens."""
    encoder = backbone.encoder
    forest = Forest.build([(encoder.prompt(question.prompt), ids) for ids in question.completions], encoder)
    with torch.no_grad():
        return [one.tolist() for one in logprobs(backbone.model, forest, temperature=temperature)]


@cache
def start_says(question: Question, temperature: float) -> list[list[float]]:
    return under(fresh(False), question, temperature)


def by_sampler(question: Question, temperature: float) -> list[list[float]]:
    """Another sampler's log-probabilities: those of the model before training, and a bit off."""
    pairs = zip(start_says(question, temperature), question.off, strict=True)
    return [[own + off for own, off in zip(*both, strict=True)] for both in pairs]


def assert_equal(ours: Steps, theirs: Steps, start: Mapping[str, Tensor]) -> None:
    assert ours.losses == pytest.approx(theirs.losses, rel=TOLERANCE, abs=ZERO)
    assert ours.norms == pytest.approx(theirs.norms, rel=TOLERANCE)
    for name, values in theirs.figures.items():
        assert ours.figures[name] == pytest.approx(values, rel=TOLERANCE, abs=ZERO), name
    assert ours.weights.keys() == theirs.weights.keys() == start.keys()
    off = {name: float((ours.weights[name] - theirs.weights[name]).norm()) for name in start}
    way = {name: float((theirs.weights[name] - start[name]).norm()) for name in start}
    far = {name for name in start if off[name] > TOLERANCE * float(theirs.weights[name].norm())}
    assert not far
    assert total(off) < TOLERANCE * total(way)


def total(lengths: Mapping[str, float]) -> float:
    return float(torch.tensor(list(lengths.values())).norm())


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL's, of what transformers has renamed
@pytest.mark.parametrize("case", CASES)
def test_steps_equal_trl(case: str, rounds: list[list[Question]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    beta, passes, average, temperature, lora, importance = CASES[case]
    weighted = {"rollout": "vllm", "importance": importance, "most_importance": MOST} if importance else {}
    recipe = UpdateRecipe(
        out=tmp_path / "packed",
        group=GROUP,
        sampling=Sampling(temperature=temperature),
        # Eighths: the means of a group's rewards are exact, in TRL's single precision too.
        rewards=RewardWeights(format=0.5, length=0.25, answer=1.0, length_characters=60),
        passes=passes,
        epsilon=0.1,
        beta=beta,
        average=average,
        betas=(0.9, 0.98),
        clip=CLIP,
        chunk_tokens=300,
        **weighted,
    )
    rate = 5e-4 if lora else 1e-4
    start = trained(fresh(lora))
    theirs = trl_steps(TINY, rounds, SCHEMA, recipe, rate, LORA if lora else None, start, by_sampler)
    # What is to agree is there: steps that differ, clipped tokens and divergence where there can be any.
    assert len(theirs.losses) == ROUNDS * passes and len(set(theirs.norms)) == ROUNDS * passes
    if beta > 0:
        assert theirs.figures["kl"][-1] > 0.1 and (min(theirs.figures["clipped"]) > 0.01) == (passes == 2)
    ours = our_steps(rounds, recipe, rate, lora, monkeypatch)
    if importance:
        weights = {name: ours.figures[f"importance_{name}"] for name in ("min", "max")}
        assert min(weights["min"]) == 0 if importance.endswith("mask") else max(weights["max"]) == pytest.approx(MOST)
        assert max(weights["max"]) > 0.5, "not all are cut off"
    assert_equal(ours, theirs, start)
    pieces = recipe.model_copy(update={"out": tmp_path / "recursive", "forest": "recursive", "chunk_tokens": 60})
    assert_equal(our_steps(rounds, pieces, rate, lora, monkeypatch), theirs, start)
