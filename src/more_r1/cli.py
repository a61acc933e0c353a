"""The command `more-r1`: each verb reads its inputs, calls one function of the library, and shows what came out.

Heavy imports are inside the verbs, so that `--help` and the light ones are quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from more_r1.schema import Schema

if TYPE_CHECKING:
    from more_r1.experts.desk import Figures
    from more_r1.extraction.archive import Archive
    from more_r1.extraction.job import Job
    from more_r1.extraction.raw import Source
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
OutOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--out",
        help="File to write: .jsonl, .parquet (predictions), .ttl, .jsonld, .graphml, .triples.parquet; without a suffix a "
        "folder for Neo4j; may be repeated",
    ),
]
MergeOption = Annotated[Literal["name", "none"], typer.Option(help="Whether entities of one name and type are one, in graphs")]
JointOption = Annotated[bool, typer.Option("--joint", help="Read the pairs of a document together, under the schema's rules")]
ConfidenceOption = Annotated[bool, typer.Option("--confidence", help="Say how probable each label is given the trace")]
TINY = "tiny"
# Documents that are answered before they are shown.
FEW = 8


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
def annotate(
    recipe: Path,
    overrides: Overrides = None,
    show: Annotated[int | None, typer.Option(min=1, help="Only print what would be sent about so many pairs")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only print calls, tokens and cost")] = False,
    max_cost: Annotated[float | None, typer.Option(min=0, help="Make no call that could take the cost above this")] = None,
) -> None:
    """Let an expert write the traces of stage 1, and keep those that the filter accepts."""
    from more_r1.experts import annotate as room
    from more_r1.experts.keys import scrub
    from more_r1.experts.shown import render, render_plan
    from more_r1.training.recipe import RecipeError, load_recipe

    limit = [] if max_cost is None else [f"max_cost={max_cost}"]
    try:
        settings = load_recipe(recipe, [*(overrides or []), *limit], room.AnnotateRecipe)
    except RecipeError as error:
        raise RecipeError(scrub(str(error))) from None  # a recipe that cannot be read may hold a key
    if show is not None:
        for number, text in enumerate(room.show(settings, show), 1):
            console.rule(f"pair {number}", align="left")
            console.print(Text(text), soft_wrap=True)
    elif plan:
        console.print(render_plan(room.plan(settings)))
    else:
        with _bar() as bar:
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
    joint: JointOption = False,
    confidence: ConfidenceOption = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch")] = None,
) -> None:
    """Ask a model for every pair of a split and measure its answers."""
    from more_r1.evaluation.evaluate import evaluate as run
    from more_r1.evaluation.metrics import render
    from more_r1.formats import load_documents
    from more_r1.models.predict import Reading

    documents, how = load_documents(data, split)[:limit], Reading(joint=joint, confidence=confidence)
    backbone = _load(model, threads)
    with _telling("asking") as tell:
        metrics = run(backbone, documents, _schema(schema), out, max_new_tokens=max_new_tokens, progress=tell, reading=how)
    console.print(render(metrics))
    console.print(f"{out / 'predictions.jsonl'}, {out / 'metrics.json'}", soft_wrap=True)


@app.command()
def calibrate(
    data: Annotated[Path, typer.Option(help="MORE folder, .jsonl or .parquet, that the model was not trained on")],
    model: Annotated[str, typer.Option("--model", help="Model folder; its calibration.json is written")] = TINY,
    split: Annotated[str, typer.Option(help="Split of a MORE folder")] = "valid",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many documents")] = None,
    schema: SchemaOption = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch")] = None,
) -> None:
    """Fit the temperature at which a model's confidence is what it says, and keep it beside the weights."""
    from more_r1.evaluation.calibrate import calibrate as run
    from more_r1.formats import load_documents
    from more_r1.models.load import save_calibration

    documents = load_documents(data, split if data.is_dir() else None)[:limit]
    backbone = _load(model, threads)
    with _telling("asking") as tell:
        fitted = run(backbone, documents, _schema(schema), f"{data} {split}", progress=tell)
    file = save_calibration(fitted, model)
    console.print(
        f"{file}: temperature {fitted.temperature:.4f} by {fitted.pairs} pairs; negative log-likelihood "
        f"{fitted.nll_before:.4f} before, {fitted.nll_after:.4f} after",
        soft_wrap=True,
    )


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
    source: Annotated[Path | None, typer.Argument(help="A picture; without --text a folder or file of many")] = None,
    text: Annotated[str | None, typer.Option(help="The picture's headline")] = None,
    object: Annotated[list[str] | None, typer.Option(help="Box of an object: cx,cy,w,h as fractions; may be repeated")] = None,
    entity: Annotated[list[str] | None, typer.Option(help="An entity, as it stands in the text; may be repeated")] = None,
    documents: Annotated[Path | None, typer.Option(help="The same as SOURCE")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a MORE folder")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many documents")] = None,
    find_entities: Annotated[str | None, typer.Option(help="Who finds them: gazetteer[:FILE], spacy[:MODEL], lvlm")] = None,
    find_objects: Annotated[str | None, typer.Option(help="Who finds them: embedded, faces, detector:MODEL, lvlm")] = None,
    model: ModelOption = TINY,
    schema: SchemaOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line")] = False,
    out: OutOption = None,
    merge: MergeOption = "name",
    types: Annotated[bool, typer.Option("--types", help="Answer only what the types of step 4 allow")] = False,
    joint: JointOption = False,
    confidence: ConfidenceOption = False,
    samples: Annotated[int, typer.Option(min=0, help="Draw so many traces more of each pair, and say how many agree")] = 0,
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="Withhold labels that are less probable")] = 0.0,
    ray: Annotated[str | None, typer.Option(help="Address of the Ray cluster to work on; `local` for one here")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes of the cluster, each with the model")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch")] = None,
) -> None:
    """Say how objects relate to entities, and why; into files with --out, where a killed run goes on."""
    from more_r1.extraction.extract import described
    from more_r1.extraction.job import Job
    from more_r1.extraction.outputs import check_outputs, extract_archive, write_outputs

    given = documents or source
    if given is None:
        raise typer.BadParameter("give a picture with --text, or a folder or file of many")
    outs, relations = out or [], _schema(schema)
    how = {"types": types, "joint": joint, "confidence": confidence, "samples": samples, "min_confidence": min_confidence}
    job = Job(
        source=given,
        split=split,
        limit=limit,
        model=model,
        relations=relations,
        entities=find_entities,
        objects=find_objects,
        options={key: value for key, value in how.items() if value},
    )
    if outs and text is None:
        with _telling("asking") as tell:
            done = extract_archive(job, outs, merge, _labour(job, threads, ray, processes, tell))
        if done.left_out:
            errors.print(Text(f"{done.left_out} records left out, see {done.side_file}", style="yellow"), soft_wrap=True)
        console.print(f"{', '.join(map(str, outs))}: {done.predictions} pairs asked", soft_wrap=True)
        return
    check_outputs(outs, given)
    if text is None:
        records = job.open().records()
    else:
        document = described(given, text, object or [], entity or [])
        document.open_image()
        records = iter([document])
    backbone = _load(model, threads)
    worker, kept = job.worker(backbone), []
    while some := list(islice(records, FEW)):
        answers = worker(some)
        for fault in answers.faults:
            errors.print(Text(f"left out: {fault}", style="yellow"), soft_wrap=True)
        for prediction in answers.predictions:
            if as_json:
                print(prediction.model_dump_json(), flush=True)
            else:
                _show(prediction, relations, backbone)
        kept += answers.predictions if outs else []
    if outs:
        write_outputs(lambda: kept, outs, merge)


@app.command()
def graph(
    predictions: Annotated[Path, typer.Argument(help="predictions.jsonl or .parquet of extract or evaluate")],
    out: OutOption = None,
    merge: MergeOption = "name",
) -> None:
    """Make graphs of predictions: .ttl, .jsonld, .graphml, .triples.parquet, or a folder for Neo4j."""
    from more_r1.extraction.outputs import check_outputs, write_outputs
    from more_r1.extraction.predictions import read_predictions

    if not out:
        raise typer.BadParameter("name what is to be written with --out")
    check_outputs(out, predictions)
    count = write_outputs(lambda: read_predictions(predictions), out, merge)
    console.print(f"{', '.join(map(str, out))}: {count} pairs", soft_wrap=True)


@app.command()
def report(run: Path, browse: Annotated[int, typer.Option(min=0, help="How many predictions can be browsed")] = 300) -> None:
    """Make one HTML file of a run folder: figures, curves, confusions, and predictions to browse."""
    from more_r1.evaluation.report import write_report

    console.print(f"{write_report(run, browse)}", soft_wrap=True)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of `more-r1 annotate`")],
    to: Annotated[Literal["trl", "llamafactory", "ms-swift", "verl"], typer.Option(help="The trainer that is to read it")],
    out: Annotated[Path, typer.Option(help="Folder to be")],
    model: Annotated[str | None, typer.Option(help="Ask as this model folder is asked; by default in full words")] = None,
) -> None:
    """Write accepted traces for SFT, and the pairs that stage 1 left for RL, as another trainer reads them."""
    from more_r1.export.export import export_run
    from more_r1.models.load import read_form

    form = None if model is None else read_form(model)
    with _telling("exporting") as tell:
        exported = export_run(run, to, out, form, tell)
    console.print(f"{out}: {exported.sft} traces for SFT, {exported.rl} pairs for RL", soft_wrap=True)


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
    known = {"confidence": prediction.confidence, "agreement": prediction.agreement}
    notes = [f"{name} {value:.3f}" for name, value in known.items() if value is not None]
    if prediction.predicted != trace.answer:
        notes.append(f"by itself: {trace.answer}")
    if prediction.gold is not None:
        notes.append(f"gold: {prediction.gold}")
    label = (prediction.predicted or "withheld", "bold green" if prediction.predicted else "yellow")
    console.print(Text.assemble("  => ", label, f"   ({', '.join(notes)})" if notes else ""))


def _labour(
    job: Job, threads: int | None, ray: str | None, processes: int, tell: Callable[[int, int], None]
) -> Callable[[Source, Archive], None]:
    """Who does the parts of an archive: this process, which loads the model if any is left, or a cluster."""

    def here(source: Source, archive: Archive) -> None:
        from more_r1.extraction.archive import work_through

        if archive.missing(source.size):
            work_through(source, archive, job.worker(_load(job.model, threads)), tell)

    def there(source: Source, archive: Archive) -> None:
        from more_r1.extraction.cluster import work_on_cluster

        work_on_cluster(job, source.size, archive, ray or "", processes, tell)

    return here if ray is None else there


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
