"""The command `more-r1`: each verb reads its inputs, calls one function of the library, and shows what came out.

Heavy imports are inside the verbs, so that `--help` and the light ones are quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from more_r1.schema import Schema

if TYPE_CHECKING:
    from more_r1.models.load import Backbone
    from more_r1.reasoning.prediction import Prediction
    from more_r1.training.learner import Learned

app = typer.Typer(no_args_is_help=True, add_completion=False, help="How what is seen relates to what is named.")
data = typer.Typer(no_args_is_help=True, help="Make, check and convert data.")
app.add_typer(data, name="data")
console = Console()
errors = Console(stderr=True)

Overrides = Annotated[list[str] | None, typer.Argument(help="Recipe fields to set, as key=value", metavar="[KEY=VALUE]...")]
ModelOption = Annotated[str, typer.Option("--model", help="Model folder or hub name; by default the shipped one")]
SchemaOption = Annotated[Path | None, typer.Option("--schema", help="Relations of your own, as YAML; by default MORE's")]
TINY = "tiny"


def main() -> None:
    """Run the command; what a user can mend costs one line and exit code 1."""
    try:
        app()
    except (ValueError, OSError) as error:
        # Our own errors are ValueErrors of one line that name file, record and mend; a bug's traceback is not to be hidden.
        if not type(error).__module__.startswith("more_r1") and not isinstance(error, OSError):
            raise
        errors.print(Text(f"more-r1: {error}", style="red"), soft_wrap=True)
        sys.exit(1)


@data.command("synth")
def data_synth(
    directory: Path,
    documents: Annotated[int, typer.Option(min=3, help="Documents of train, valid and test together")] = 3559,
    seed: int = 0,
) -> None:
    """Draw the embedded benchmark in the MORE layout: the same numbers give the same bytes."""
    from more_r1.synthetic.benchmark import sizes, write_benchmark

    total = sum(sizes(documents).values())
    with _bar() as bar:
        task = bar.add_task("drawing", total=total)
        for split, _ in write_benchmark(directory, documents, seed):
            bar.update(task, advance=1, description=split)
    counts = ", ".join(f"{count} {split}" for split, count in sizes(documents).items())
    console.print(f"{directory}: {counts} documents", soft_wrap=True)


@data.command("check")
def data_check(
    directory: Path, strict: Annotated[bool, typer.Option(help="Exit with 1 on any fault")] = False, schema: SchemaOption = None
) -> None:
    """Read a whole benchmark: its figures, and every fault with file, line and mend."""
    from more_r1.formats.check import check_more
    from more_r1.formats.check_table import render

    with console.status("reading"):
        report = check_more(directory, _schema(schema))
    console.print(render(report))
    if strict and not report.sound:
        raise typer.Exit(1)


@data.command("convert")
def data_convert(
    source: Annotated[Path, typer.Argument(help="MORE folder, .jsonl or .parquet")],
    target: Annotated[Path, typer.Argument(help=".jsonl, .parquet or a MORE folder to be")],
    split: Annotated[str | None, typer.Option(help="Split to read, and to write into a MORE folder")] = None,
) -> None:
    """Write documents in another format."""
    from more_r1.formats import load_documents
    from more_r1.formats.jsonl import write_jsonl
    from more_r1.formats.more import write_more
    from more_r1.formats.parquet import write_parquet

    documents = load_documents(source, split if source.is_dir() else None)
    if target.suffix == ".jsonl":
        write_jsonl(documents, target)
    elif target.suffix == ".parquet":
        write_parquet(documents, target)
    else:
        write_more({split or "train": documents}, target, Schema.more())
    console.print(f"{target}: {len(documents)} documents", soft_wrap=True)


@app.command()
def base(recipe: Path, overrides: Overrides = None) -> None:
    """Teach a tiny model from random weights to see and read the embedded world."""
    from more_r1.training.base import BaseRecipe, run_base
    from more_r1.training.recipe import load_recipe

    _told(run_base(load_recipe(recipe, overrides or [], BaseRecipe)))


@app.command()
def sft(recipe: Path, overrides: Overrides = None) -> None:
    """Stage 1: fine-tune on reasoning traces (or on answers alone)."""
    from more_r1.training.recipe import load_recipe
    from more_r1.training.sft import SftRecipe, run_sft

    _told(run_sft(load_recipe(recipe, overrides or [], SftRecipe)))


@app.command()
def difficulty(recipe: Path, overrides: Overrides = None) -> None:
    """Ask the stage-1 model about the training pairs that stage 1 left: right is easy, wrong is hard."""
    from more_r1.training.difficulty import DifficultyRecipe, run_difficulty
    from more_r1.training.recipe import load_recipe

    settings = load_recipe(recipe, overrides or [], DifficultyRecipe)
    with _telling("asking") as tell:
        figures = run_difficulty(settings, tell)
    console.print(f"{settings.out / 'difficulty.jsonl'}: {figures.easy} easy, {figures.hard} hard", soft_wrap=True)


@app.command("plan")
def plan_run(recipe: Path, overrides: Overrides = None, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Say what stage 2 will cost, with and without shared prefixes: tokens, FLOPs, memory, hours."""
    from dataclasses import asdict

    from more_r1.training.plan import PlanRecipe, plan
    from more_r1.training.plan_table import render
    from more_r1.training.recipe import load_recipe

    settings = load_recipe(recipe, overrides or [], PlanRecipe)
    made = plan(settings)
    if as_json:
        print(json.dumps(asdict(made), indent=2))
    else:
        console.print(render(made, settings))


@app.command()
def grpo(recipe: Path, overrides: Overrides = None) -> None:
    """Stage 2: GRPO with progressive sample mixing, from the model after stage 1."""
    from more_r1.training.grpo import GrpoRecipe, run_grpo
    from more_r1.training.recipe import load_recipe

    _told(run_grpo(load_recipe(recipe, overrides or [], GrpoRecipe)))


@app.command()
def train(recipe: Path, overrides: Overrides = None) -> None:
    """All stages of one recipe in a row: sft, difficulty, grpo, evaluate, report; what is complete is skipped."""
    from more_r1.evaluation.metrics import render
    from more_r1.pipeline import TrainRecipe
    from more_r1.pipeline import train as run
    from more_r1.training.recipe import load_recipe

    page, metrics = run(load_recipe(recipe, overrides or [], TrainRecipe), _telling)
    console.print(render(metrics))
    console.print(f"{page}", soft_wrap=True)


@app.command("copy-model")
def copy_model(
    model: Annotated[str, typer.Argument(help="Model folder or hub name")],
    folder: Annotated[Path, typer.Argument(help="Model folder to be")],
    dtype: Annotated[Literal["float32", "float16", "bfloat16"], typer.Option(help="Precision of the weights")] = "float16",
) -> None:
    """Write a model folder anew in another precision, as the shipped ones were."""
    import torch

    from more_r1.models.load import save_backbone

    save_backbone(_load(model, None), folder, getattr(torch, dtype))
    console.print(f"{folder}", soft_wrap=True)


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="MORE folder, .jsonl or .parquet")],
    model: ModelOption = TINY,
    split: Annotated[str | None, typer.Option(help="Split of a MORE folder")] = None,
    out: Annotated[Path, typer.Option(help="Folder for predictions.jsonl and metrics.json")] = Path("runs/evaluate"),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many documents")] = None,
    schema: SchemaOption = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 512,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch")] = None,
) -> None:
    """Ask a model for every pair of a split and measure its answers."""
    from more_r1.evaluation.evaluate import evaluate as run
    from more_r1.evaluation.metrics import render
    from more_r1.formats import load_documents

    documents = load_documents(data, split)[:limit]
    backbone = _load(model, threads)
    with _telling("asking") as tell:
        metrics = run(backbone, documents, _schema(schema), out, max_new_tokens=max_new_tokens, progress=tell)
    console.print(render(metrics))
    console.print(f"{out / 'predictions.jsonl'}, {out / 'metrics.json'}", soft_wrap=True)


@app.command()
def score(file: Path, as_json: Annotated[bool, typer.Option("--json", help="For machines")] = False) -> None:
    """Measure any JSONL file of `gold` and `predicted` as the MORE benchmark does."""
    from more_r1.evaluation.metrics import render, score_file

    metrics = score_file(file)
    if as_json:
        print(metrics.model_dump_json(indent=2))
    else:
        console.print(render(metrics))


@app.command()
def extract(
    image: Annotated[Path | None, typer.Argument(help="A picture")] = None,
    text: Annotated[str | None, typer.Option(help="Its headline")] = None,
    object: Annotated[list[str] | None, typer.Option(help="Box of an object: cx,cy,w,h as fractions; may be repeated")] = None,
    entity: Annotated[list[str] | None, typer.Option(help="An entity, as it stands in the text; may be repeated")] = None,
    documents: Annotated[Path | None, typer.Option(help="Many documents: .jsonl, .parquet or a MORE folder")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a MORE folder")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many documents")] = None,
    model: ModelOption = TINY,
    schema: SchemaOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch")] = None,
) -> None:
    """Say how objects relate to entities, and why."""
    from more_r1.extraction.extract import document_of
    from more_r1.extraction.extract import extract as run
    from more_r1.formats import load_documents

    if documents is not None:
        read = load_documents(documents, split)[:limit]
    elif image is not None and text is not None:
        read = [document_of(image, text, object or [], entity or [])]
    else:
        raise typer.BadParameter("give IMAGE with --text, --object and --entity, or --documents")
    relations, backbone = _schema(schema), _load(model, threads)
    for prediction in run(backbone, read, relations):
        if as_json:
            print(prediction.model_dump_json(), flush=True)
        else:
            _show(prediction, relations, backbone)


@app.command()
def report(run: Path, browse: Annotated[int, typer.Option(min=0, help="How many predictions can be browsed")] = 300) -> None:
    """Make one HTML file of a run folder: figures, curves, confusions, and predictions to browse."""
    from more_r1.evaluation.report import write_report

    console.print(f"{write_report(run, browse)}", soft_wrap=True)


def _show(prediction: Prediction, schema: Schema, backbone: Backbone) -> None:
    box = ",".join(f"{value:.3g}" for value in prediction.box)
    start, end = prediction.span
    words = [*prediction.tokens[:start], "[", *prediction.tokens[start:end], "]", *prediction.tokens[end:]]
    console.rule(Text(f"{prediction.document}  {prediction.object} ({box})"), align="left")
    console.print(Text(" ".join(words), style="bold"))
    trace = prediction.trace(schema, backbone.form)
    if trace is None:
        console.print(Text(f"the completion broke the form: {prediction.completion}", style="yellow"))
        return
    for number, step in enumerate(trace.steps, 1):
        console.print(Text.assemble((f"  {number} ", "cyan"), step))
    gold = "" if prediction.gold is None else f"   (gold: {prediction.gold})"
    console.print(Text.assemble("  => ", (trace.answer, "bold green"), gold))


def _told(learned: Learned) -> None:
    best = "" if learned.best is None else f", best at step {learned.best_step}: " + json.dumps(dict(learned.best))
    console.print(f"{learned.model}: {learned.steps} steps{best}", soft_wrap=True)


def _schema(path: Path | None) -> Schema:
    return Schema.more() if path is None else Schema.load(path)


def _load(model: str, threads: int | None) -> Backbone:
    import torch
    from transformers.utils import logging

    from more_r1.models.load import load_backbone

    logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    return load_backbone(model)


@contextmanager
def _bar() -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as bar:
        yield bar


@contextmanager
def _telling(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told how many are done, and of how many."""
    with _bar() as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
