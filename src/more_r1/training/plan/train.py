"""The stages of a recipe of `more-r1 train` as plans have them: from its sections, and from counts, assumed or of real data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from more_r1.training.difficulty import DifficultyRecipe
from more_r1.training.grpo import GrpoRecipe
from more_r1.training.launch import needs_whole
from more_r1.training.plan.layouts import Lengths
from more_r1.training.plan.memory import Precision, Sharding
from more_r1.training.plan.recipe import Assumed, met
from more_r1.training.plan.stages import Stage
from more_r1.training.sft import SftRecipe


@dataclass(frozen=True)
class Counts:
    """What the data decide."""

    train_pairs: int
    pairs_per_document: float
    taught: int
    """Pairs of stage 1, those with a trace."""
    sft_steps: int
    pool: int
    """Pairs to ask about before stage 2."""
    hard: int
    """Those that stage 1 will get wrong, which nobody knows yet."""
    lengths: Lengths
    longest: Lengths

    def met(self, pairs: float) -> float:
        """Mean pairs of a document among so many drawn at random, as `Assumed.met`."""
        return met(pairs / self.train_pairs, self.pairs_per_document)


def assumed_counts(sft: SftRecipe, difficulty: DifficultyRecipe, assumed: Assumed) -> Counts:
    """Counts without data; all lengths are taken for what is assumed."""
    taught = round(assumed.train_pairs * sft.share)
    pool = max(min(assumed.train_pairs - taught, difficulty.limit or assumed.train_pairs), 1)
    hard = round(pool * assumed.hard / max(assumed.hard + assumed.easy, 1))
    steps = sft.epochs * math.ceil(taught / sft.batch_pairs)
    lengths = assumed.lengths
    return Counts(assumed.train_pairs, assumed.pairs_per_document, taught, steps, pool, hard, lengths, lengths)


def stages_of(
    sft: SftRecipe,
    difficulty: DifficultyRecipe,
    grpo: GrpoRecipe,
    counts: Counts,
    precision: Precision,
    sharding: Sharding,
    ranks: int,
) -> tuple[Stage, Stage, Stage]:
    """The three stages that need the model."""

    def longest(room: float) -> Lengths:
        return counts.longest.model_copy(update={"completion": room})

    first = Stage(
        "sft",
        (counts.taught,) * sft.epochs,
        counts.sft_steps,
        counts.met(counts.taught),
        counts.lengths,
        longest(max(sft.max_new_tokens, counts.longest.completion)),
        sft.batch_pairs,
        passes=1,
        lora_rank=_rank(sft),
        freeze_vision=sft.freeze_vision,
        checkpointing=sft.checkpointing,
    )
    asked = Stage(
        "difficulty",
        (counts.pool,),
        0,
        counts.met(counts.pool),
        counts.lengths,
        longest(difficulty.max_new_tokens),
        batch_pairs=max(32 * ranks, 1),
        group=max(difficulty.samples, 1),
        draws=True,
    )
    hard, easy = counts.hard, counts.pool - counts.hard
    epochs = range(1, grpo.epochs + 1)
    pairs = [counts.pool if grpo.mixing.preset == "raw" else hard + grpo.mixing.easy_drawn(hard, easy, t) for t in epochs]
    most = math.inf if grpo.most_steps is None else grpo.most_steps
    kept, steps = [], 0
    for each in pairs:
        of_epoch = min(math.ceil(each / grpo.batch_pairs), most - steps)
        kept.append(int(min(each, of_epoch * grpo.batch_pairs)))
        steps += int(of_epoch)
    last = Stage(
        "grpo",
        tuple(kept),
        steps * grpo.passes,
        counts.met(max(pairs)),
        counts.lengths,
        longest(grpo.max_new_tokens),
        grpo.batch_pairs,
        group=grpo.group,
        passes=grpo.passes,
        draws=True,
        beta=grpo.beta,
        lora_rank=_rank(grpo),
        freeze_vision=grpo.freeze_vision,
        checkpointing=grpo.checkpointing,
        recursive=grpo.forest == "recursive",
        chunk_tokens=grpo.chunk_tokens,
        packed=grpo.attention == "flex",
        vllm=grpo.vllm.gpu_share if grpo.rollout == "vllm" else None,
    )
    common: dict[str, Any] = {"precision": precision, "sharding": sharding, "ranks": ranks}
    common["unsplit"] = needs_whole(grpo) is not None
    return replace(first, **common), replace(asked, **common), replace(last, **common)


def _rank(recipe: SftRecipe | GrpoRecipe) -> int | None:
    return None if recipe.lora is None else recipe.lora.rank
