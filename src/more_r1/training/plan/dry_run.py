"""What a recipe of `more-r1 train` would do, found out on its own data and model, with nothing trained and no weights read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import AutoModelForImageTextToText

from more_r1.models.manner import Manner, load_manner
from more_r1.models.processor import Encoder
from more_r1.models.vllm.start import settings
from more_r1.schema import Schema
from more_r1.training.difficulty import DifficultyRecipe
from more_r1.training.examples import draw, pack
from more_r1.training.grpo import GrpoRecipe
from more_r1.training.plan.layouts import Lengths
from more_r1.training.plan.train import Counts
from more_r1.training.recipe import RecipeError
from more_r1.training.rewards import rewards
from more_r1.training.run import Run
from more_r1.training.samples import Sample, read_samples
from more_r1.training.sft import SftRecipe, completions

# Documents whose prompts are measured; pictures must be decoded for it.
MEASURED = 100


@dataclass(frozen=True)
class Found:
    """What was found out."""

    parameters: int
    """Of the model, as transformers builds it."""
    documents: dict[str, int]
    """By split."""
    pairs: dict[str, int]
    """By split."""
    without_trace: int
    """Pairs that stage 1 draws and cannot learn from."""
    counts: Counts


def dry_run(
    sft: SftRecipe,
    difficulty: DifficultyRecipe,
    grpo: GrpoRecipe,
    test: str,
    hard_share: float,
    completion: float | None,
) -> Found:
    """Check model, data, folders and rewards of all stages and count what they will do.

    `hard_share` of the pool is taken to be hard. `completion` is the mean length of a completion where there are no traces yet;
    None: there must be traces. Raises what the stages would raise.
    """
    for stage in (sft, grpo):
        Run(stage, stage.out)  # refuses a folder that holds another run
    manner = load_manner(sft.model).worded()
    manner = replace(manner, form=sft.form.over(manner.form))
    schema = sft.relations
    rewards(schema, manner.form.reasoning, grpo.rewards)
    if grpo.rollout == "vllm":
        settings(manner)  # refuses a family that vLLM is not tried with
    splits = {split: read_samples(sft.data, split, schema) for split in dict.fromkeys(("train", "valid", test))}
    train = splits["train"]
    drawn = [train[index] for index in draw([one.label for one in train], sft.share, sft.draw_seed)]
    pool = len(train) - len(drawn)
    if not pool:
        raise RecipeError(f"sft.share={sft.share:g}: stage 1 draws all {len(train)} pairs; none is left for stage 2")
    pool = min(pool, difficulty.limit or pool)
    # None where the traces are still to be written.
    lacking = manner.form.reasoning == "steps" and completion is not None and not sft.trace_file.exists()
    texts = None if lacking else completions(sft, drawn, manner.form)
    taught = drawn if texts is None else [one for one in drawn if one.key in texts]
    sizes = list(Counter(map(_document, taught)).values())  # in the order of the files, as stage 1 has them
    steps = sum(len(pack(sizes, sft.batch_pairs, sft.seed, epoch)) for epoch in range(sft.epochs))
    mean, most = _lengths(manner, schema, train, list((texts or {}).values()), completion)
    documents = {split: len({one.document.id for one in found}) for split, found in splits.items()}
    counts = Counts(
        train_pairs=len(train),
        pairs_per_document=len(train) / documents["train"],
        taught=len(taught),
        sft_steps=steps,
        pool=pool,
        hard=max(round(pool * hard_share), 1),  # of few pairs too, or nothing of stage 2 would be costed
        lengths=mean,
        longest=most,
    )
    pairs = {split: len(found) for split, found in splits.items()}
    return Found(_parameters(manner), documents, pairs, len(drawn) - len(taught), counts)


def _parameters(manner: Manner) -> int:
    """Of the model, built without a byte of its weights."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(manner.config, trust_remote_code=False)
    return sum(parameter.numel() for parameter in model.parameters())


def _lengths(
    manner: Manner, schema: Schema, train: Sequence[Sample], texts: Sequence[str], completion: float | None
) -> tuple[Lengths, Lengths]:
    """Means and maxima, measured on documents spread over the split."""
    names = list(dict.fromkeys(map(_document, train)))
    taken = set(names[:: max(len(names) // MEASURED, 1)])
    rows = [_parts(manner.encoder, schema, manner, one) for one in train if one.document.id in taken]
    tokens = [len(manner.encoder.completion(text)) for text in texts[:: max(len(texts) // (10 * MEASURED), 1)]]
    ends = (sum(tokens) / len(tokens), max(tokens)) if tokens else (completion or 2, completion or 2)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    mean = Lengths(**{name: max(sum(column) / len(column), 1) for name, column in columns.items()}, completion=max(ends[0], 2))
    most = Lengths(**{name: max(1, *column) for name, column in columns.items()}, completion=max(ends[1], 2))
    return mean, most


def _parts(encoder: Encoder, schema: Schema, manner: Manner, one: Sample) -> dict[str, float]:
    """Tokens of the parts of a prompt."""
    instruction, document, pair = encoder.prompt(one.prompt(schema, manner.form))
    whole, crop = (float(segment.ids.count(encoder.image_id)) for segment in (document, pair))
    return {
        "instruction": float(len(instruction.ids)),
        "whole": whole,
        "headline": len(document.ids) - whole,
        "crop": crop,
        "question": len(pair.ids) - crop,
    }


def _document(one: Sample) -> str:
    return one.document.id
