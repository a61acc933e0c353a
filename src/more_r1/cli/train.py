"""Training: traces for it, its stages one by one or in a row, and what they would cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from more_r1.cli.app import app, console, errors, load, progress_bar, telling
from more_r1.cli.recipes import FieldsOption, RecipeFile, read_recipe

if TYPE_CHECKING:
    from more_r1.experts.desk import Figures
    from more_r1.training.learner import Learned

Overrides = Annotated[list[str] | None, typer.Argument(help="Recipe fields to set, as key=value", metavar="[KEY=VALUE]...")]


@app.command()
def base(recipe: RecipeFile, overrides: Overrides = None, fields: FieldsOption = False) -> None:
    """Teach a tiny model from random weights to see and read the embedded world."""
    from more_r1.training.base import BaseRecipe, run_base

    _one_speaks()
    _told(run_base(read_recipe(recipe, overrides, BaseRecipe)))


@app.command()
def annotate(
    recipe: RecipeFile,
    overrides: Overrides = None,
    show: Annotated[int | None, typer.Option(min=1, help="Only print what would be sent about so many pairs")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only print calls, tokens and cost")] = False,
    max_cost: Annotated[float | None, typer.Option(min=0, help="Make no call that could take the cost above this")] = None,
    fields: FieldsOption = False,
) -> None:
    """Let an expert write the traces of stage 1, and keep those that the filter accepts."""
    from more_r1.experts import annotate as room
    from more_r1.experts.keys import scrub
    from more_r1.experts.shown import render, render_plan
    from more_r1.training.recipe import RecipeError

    limit = [] if max_cost is None else [f"max_cost={max_cost}"]
    try:
        settings = read_recipe(recipe, [*(overrides or []), *limit], room.AnnotateRecipe)
    except RecipeError as error:
        raise RecipeError(scrub(str(error))) from None  # a recipe that cannot be read may hold a key
    if show is not None:
        for number, text in enumerate(room.show(settings, show), 1):
            console.rule(f"pair {number}", align="left")
            console.print(Text(text), soft_wrap=True)
    elif plan:
        console.print(render_plan(room.plan(settings)))
    else:
        with progress_bar() as bar:
            task = bar.add_task("annotating", total=None)

            def tell(now: Figures) -> None:
                bar.update(task, completed=now.done, total=now.pairs, description=now.line)

            figures = room.run_annotate(settings, tell)
        console.print(render(figures))
        console.print(f"{settings.out / 'traces.jsonl'}: {figures.accepted} of {figures.pairs} pairs accepted", soft_wrap=True)
        if figures.stopped:
            errors.print(Text(f"more-r1: {figures.stopped}", style="red"), soft_wrap=True)
            raise typer.Exit(1)


@app.command()
def sft(recipe: RecipeFile, overrides: Overrides = None, fields: FieldsOption = False) -> None:
    """Stage 1: fine-tune on reasoning traces (or on answers alone)."""
    from more_r1.training.sft import SftRecipe, run_sft

    _one_speaks()
    _told(run_sft(read_recipe(recipe, overrides, SftRecipe)))


@app.command()
def difficulty(recipe: RecipeFile, overrides: Overrides = None, fields: FieldsOption = False) -> None:
    """Ask the stage-1 model about the training pairs that stage 1 left: right is easy, wrong is hard."""
    from more_r1.training.difficulty import DifficultyRecipe, run_difficulty

    _one_speaks()
    settings = read_recipe(recipe, overrides, DifficultyRecipe)
    with telling("asking") as tell:
        figures = run_difficulty(settings, tell)
    console.print(f"{settings.out / 'difficulty.jsonl'}: {figures.easy} easy, {figures.hard} hard", soft_wrap=True)


@app.command("plan")
def plan_run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines")] = False,
    fields: FieldsOption = False,
) -> None:
    """Say what a recipe of `train` will cost by stage: steps, tokens, FLOPs, hours, memory of a rank, what to set where it does
    not fit; of a recipe like plan-7b.yaml, what sharing prefixes saves in stage 2. Reads no data and no weights."""
    from dataclasses import asdict

    from more_r1.training.plan import compare, compare_table, stages_table
    from more_r1.training.plan.recipe import PlanRecipe, has_stages

    if has_stages(recipe):
        from more_r1.pipeline import TrainRecipe, planned

        settings = read_recipe(recipe, overrides, TrainRecipe)
        costed = planned(settings)
        told = [asdict(one) | {"hours": one.hours, "peak": one.memory.peak} for one in costed]
        if as_json:
            print(json.dumps(told, indent=2, default=dict))
        else:
            assert settings.plan is not None
            console.print(stages_table.render(costed, settings.plan.devices))
        return
    asked = read_recipe(recipe, overrides, PlanRecipe)
    made = compare.plan(asked)
    if as_json:
        print(json.dumps(asdict(made), indent=2))
    else:
        console.print(compare_table.render(made, asked))


@app.command()
def grpo(recipe: RecipeFile, overrides: Overrides = None, fields: FieldsOption = False) -> None:
    """Stage 2: GRPO with progressive sample mixing, from the model after stage 1."""
    from more_r1.training.grpo import GrpoRecipe, run_grpo

    _one_speaks()
    _told(run_grpo(read_recipe(recipe, overrides, GrpoRecipe)))


@app.command()
def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all stages on data and model, train nothing")] = False,
    until: Annotated[
        Literal["annotate", "sft", "difficulty", "grpo"] | None,
        typer.Option(help="End after this stage; the others come later"),
    ] = None,
    fields: FieldsOption = False,
) -> None:
    """All stages of one recipe in a row: annotate, sft, difficulty, grpo, evaluate, report; what is complete is skipped."""
    from more_r1.evaluation.metrics import render
    from more_r1.pipeline import TrainRecipe, lacking, rehearsed
    from more_r1.pipeline import train as run
    from more_r1.training.plan import stages_table

    _one_speaks()
    settings = read_recipe(recipe, overrides, TrainRecipe)
    if dry_run:
        found, costed = rehearsed(settings)
        for split, pairs in found.pairs.items():
            console.print(f"{split}: {pairs:,} pairs of {found.documents[split]:,} documents")
        missing = f", {found.without_trace:,} more have no usable trace" if found.without_trace else ""
        console.print(f"stage 1: {found.counts.taught:,} pairs{missing}; {found.counts.pool:,} left to stage 2")
        console.print(f"{settings.model}: {found.parameters:,} parameters", soft_wrap=True)
        if costed:
            console.print(stages_table.render(costed, None if settings.plan is None else settings.plan.devices))
        else:
            console.print("no estimate of memory and hours for this family; there is one for Qwen2.5-VL alone", soft_wrap=True)
        for line in lacking(settings, until):
            console.print(f"here it could not be trained: {line}", soft_wrap=True)
    elif (ended := run(settings, telling, until)) is not None:
        console.print(render(ended.metrics))
        if ended.learned.best_step == 0:
            told = "best checkpoint: step 0, that is the model that stage 2 began from; the figures are its own"
            console.print(told, soft_wrap=True)
        console.print(f"{ended.page}", soft_wrap=True)


@app.command("copy-model")
def copy_model(
    model: Annotated[str, typer.Argument(help="Model folder or hub name")],
    folder: Annotated[Path, typer.Argument(help="Model folder to be")],
    dtype: Annotated[Literal["float32", "float16", "bfloat16"], typer.Option(help="Precision of the weights")] = "float16",
) -> None:
    """Write a model folder anew in another precision, as the shipped ones were."""
    import torch

    from more_r1.models.classifier import Classifier, save_classifier
    from more_r1.models.load import save_backbone

    found = load(model, None)
    if isinstance(found, Classifier):
        save_classifier(found, folder, getattr(torch, dtype))
    else:
        save_backbone(found, folder, getattr(torch, dtype))
    console.print(f"{folder}", soft_wrap=True)


def _one_speaks() -> None:
    """Of several processes of a run the first."""
    from more_r1.training.examples import launched

    console.quiet = not launched().is_main_process


def _told(learned: Learned) -> None:
    began = ", the model that it began from" if learned.best_step == 0 else ""
    best = "" if learned.best is None else f", best at step {learned.best_step}{began}: " + json.dumps(dict(learned.best))
    console.print(f"{learned.model}: {learned.steps} steps{best}", soft_wrap=True)
