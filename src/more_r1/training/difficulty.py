"""How hard the pairs that stage 1 left are to its model: it answers each of them, and what it answered is kept.

difficulty.jsonl has one line a pair, difficulty.json the figures; both are there only once all pairs have been asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from random import Random

import torch
from accelerate.utils import gather_object
from pydantic import Field
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from more_r1.formats.paths import replacing
from more_r1.models.generate import generate
from more_r1.models.load import Backbone, fingerprint, load_backbone
from more_r1.models.sampling import Sampling, rollout_seed, sample
from more_r1.reasoning.prompt import PromptForm
from more_r1.reasoning.trace import read_answer
from more_r1.schema import Schema
from more_r1.training.examples import draw, launched, share
from more_r1.training.measured import (
    FIGURES,
    LINES,
    PART,
    Difficulty,
    Measured,
    figures,
    line,
    read_difficulty,
    read_figures,
    read_line,
)
from more_r1.training.recipe import GivenForm, GivenSchema, Recipe, RecipeError
from more_r1.training.samples import Sample, read_samples

# Completions that a process makes at a time: enough to fill the machine, few enough to lose little to a kill.
CHUNK = 192


class DifficultyRecipe(Recipe):
    """Whom to ask, about which pairs, and how."""

    out: Path
    """The folder of difficulty.jsonl and difficulty.json."""
    model: str
    """The model after stage 1."""
    data: Path
    """A directory in the MORE layout."""
    relations: GivenSchema = Field(default_factory=Schema.more, alias="schema")
    """The labels of the data: a YAML file (`schema: my.yaml`); by default MORE's."""
    share: float = Field(default=0.25, gt=0, le=1)
    """Stage 1's share of every class of the training pairs: the others are asked about."""
    draw_seed: int = 0
    """Stage 1's seed of the draw; of `limit`, too."""
    form: GivenForm = PromptForm()
    samples: int = Field(default=0, ge=0)
    """0: one greedy answer, right or wrong, as in the paper. Else so many drawn completions, for a pass rate."""
    sampling: Sampling = Sampling()
    """How to draw them."""
    threshold: float = Field(default=0.5, gt=0, le=1)
    """A pair is easy if at least this share of its answers is right. With another one nothing is asked again."""
    max_new_tokens: int = Field(default=512, ge=1)
    limit: int | None = Field(default=None, ge=1)
    """Only so many pairs, those of documents that are drawn by `draw_seed`; fewer are a part of more."""
    seed: int = 0
    """Of the drawn completions."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of torch. Without it, torch's own choice."""


def run_difficulty(recipe: DifficultyRecipe, progress: Callable[[int, int], None] | None = None) -> Difficulty:
    """Ask `recipe.model` about every pair that stage 1 did not draw and write what it answers to the folder `recipe.out`.

    A run that was killed goes on after the last chunk that it wrote, a finished one asks nothing. `progress` is told (pairs
    done, pairs in all). Raises RecipeError where no pair is left and where the folder has answers to other questions.
    """
    processes = launched()
    console = Console(quiet=not processes.is_main_process)
    schema, pool = recipe.relations, _pool(recipe)
    disable_progress_bar()  # transformers' own; it would tear ours
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    backbone = load_backbone(recipe.model)
    weights = fingerprint(backbone)
    backbone = replace(backbone, form=recipe.form.over(backbone.form))
    key = _key(recipe, weights, backbone.form, schema, pool)

    complete = (recipe.out / LINES).exists()
    processes.wait_for_everyone()  # nobody writes before all have looked
    if complete:
        _same(read_figures(recipe.out).fingerprint, key, recipe.out)
        measured = read_difficulty(recipe.out)
        if [one.key for one in measured] != [one.key for one in pool]:
            raise RecipeError(f"{recipe.out / LINES}: pairs are missing or moved; delete it and run `more-r1 difficulty` again")
        console.print(f"{recipe.out} has all answers already; nothing to ask", soft_wrap=True)
    else:
        documents = len({one.document.id for one in pool})
        console.print(f"{len(pool)} pairs of {documents} documents to ask about", soft_wrap=True)
        measured = _ask(recipe, backbone, schema, pool, key, progress)
    found = figures(measured, recipe.threshold, recipe.model, weights, key)
    if processes.is_main_process:
        _write(recipe.out / FIGURES, found.model_dump_json(indent=2) + "\n")
        _write(recipe.out / LINES, "".join(map(line, measured)))  # last: where the lines are, the figures are
        (recipe.out / PART).unlink(missing_ok=True)
    processes.wait_for_everyone()
    return found


def measure(
    backbone: Backbone,
    schema: Schema,
    samples: Sequence[Sample],
    count: int,
    sampling: Sampling,
    max_new_tokens: int,
    seed: int,
    epoch: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[Measured]:
    """Answers of a model in evaluation mode: greedy ones with `count` 0, else `count` drawn ones a pair.

    The samples are split among the processes, each of which gets all answers. `epoch` sets the draws of one measurement apart
    from those of another. `progress` is told how many of this process's own samples are done.
    """
    form, mine = backbone.form, share(samples, launched())
    prompts = [one.prompt(schema, form) for one in mine]
    if count == 0:
        texts = [[text] for text in generate(backbone, prompts, max_new_tokens, progress)]
    else:
        seeds = [[rollout_seed(seed, epoch, ("difficulty", *one.key), index) for index in range(count)] for one in mine]
        told = None if progress is None else lambda done: progress(done // count)
        rollouts = sample(backbone, prompts, seeds, sampling, max_new_tokens, told)
        texts = [[rollout.text for rollout in group] for group in rollouts]
    answers = gather_object([tuple(read_answer(text, schema, form.reasoning) for text in group) for group in texts])
    return [
        Measured(document=document, object=object, span=span, label=one.label, predicted=predicted)
        for one, predicted in zip(samples, answers, strict=True)
        for document, object, span in [one.key]
    ]


def _pool(recipe: DifficultyRecipe) -> list[Sample]:
    """What stage 1 did not draw; with `limit`, of documents in a random order, the last of them cut; as the files have them."""
    train = read_samples(recipe.data, "train", recipe.relations)
    drawn = set(draw([one.label for one in train], recipe.share, recipe.draw_seed))
    pool = [one for index, one in enumerate(train) if index not in drawn]
    if not pool:
        raise RecipeError(f"share={recipe.share:g}: stage 1 has drawn all {len(train)} pairs; none is left to ask about")
    if recipe.limit is None:
        return pool
    names = list(dict.fromkeys(one.document.id for one in pool))
    Random(f"{recipe.draw_seed} limit").shuffle(names)
    place = {name: number for number, name in enumerate(names)}
    taken = sorted(range(len(pool)), key=lambda index: place[pool[index].document.id])[: recipe.limit]
    return [pool[index] for index in sorted(taken)]


def _chunks(pool: Sequence[Sample], least: float) -> list[list[Sample]]:
    """Runs of whole documents with `least` pairs or a few more; a resumed run has the same, and so the same rounding."""
    chunks: list[list[Sample]] = [[]]
    for _, document in groupby(pool, lambda one: one.document.id):
        if len(chunks[-1]) >= least:
            chunks.append([])
        chunks[-1] += document
    return chunks


def _ask(
    recipe: DifficultyRecipe,
    backbone: Backbone,
    schema: Schema,
    pool: Sequence[Sample],
    key: str,
    progress: Callable[[int, int], None] | None,
) -> list[Measured]:
    """Ask chunk by chunk, each written as it comes, after what a killed run has written."""
    processes = launched()
    count, file = processes.num_processes, recipe.out / PART
    chunks = _chunks(pool, CHUNK * count / max(recipe.samples, 1))
    kept = _kept(file, key, chunks)
    measured = [one for chunk in kept for one in chunk]
    processes.wait_for_everyone()  # nobody writes before all have read
    if processes.is_main_process:
        _write(file, _header(key) + "".join(map(line, measured)))

    def tell(done: int) -> None:
        if progress is not None and processes.is_main_process:
            progress(min(len(measured) + done * count, len(pool)), len(pool))

    for chunk in chunks[len(kept) :]:
        tell(0)
        answers = measure(
            backbone, schema, chunk, recipe.samples, recipe.sampling, recipe.max_new_tokens, recipe.seed, progress=tell
        )
        if processes.is_main_process:
            with file.open("a", encoding="utf-8", newline="\n") as part:
                part.write("".join(map(line, answers)))
        measured += answers
    return measured


def _kept(file: Path, key: str, chunks: Sequence[Sequence[Sample]]) -> list[list[Measured]]:
    """What a killed run has written of these chunks, as far as they are whole."""
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []  # a last line without its end was cut short
    if not lines:
        return []
    try:
        theirs = str(json.loads(lines[0])["fingerprint"])
    except (ValueError, TypeError, KeyError) as error:
        raise RecipeError(f"{file}:1: not begun by `more-r1 difficulty`; delete it") from error
    _same(theirs, key, file.parent)
    kept: list[list[Measured]] = []
    start = 1
    for chunk in chunks:
        if start + len(chunk) > len(lines):
            break
        kept.append([read_line(lines[number], file, number + 1) for number in range(start, start + len(chunk))])
        start += len(chunk)
    return kept


def _key(recipe: DifficultyRecipe, weights: str, form: PromptForm, schema: Schema, pool: Sequence[Sample]) -> str:
    """What the answers depend on: weights, form, schema, pairs, and how they are asked."""
    drawing = "" if recipe.samples == 0 else f"{recipe.samples} {recipe.sampling.model_dump_json()} {recipe.seed}"
    asking = f"{form.model_dump_json()} {schema.model_dump_json()} {recipe.max_new_tokens} {drawing}"
    digest = hashlib.sha256(f"{weights} {asking}".encode())
    for one in pool:
        about = f"{one.key} {one.label} {one.document.tokens} {one.document.object(one.pair.object).box}"
        digest.update(about.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _same(theirs: str, mine: str, folder: Path) -> None:
    if theirs != mine:
        raise RecipeError(f"out={folder}: has answers of another model or to other questions; give another out= or delete them")


def _header(key: str) -> str:
    return json.dumps({"fingerprint": key}) + "\n"


def _write(file: Path, text: str) -> None:
    with replacing(file) as fresh:
        fresh.write_text(text, encoding="utf-8", newline="\n")
