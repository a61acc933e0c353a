"""Extraction: from pictures and text to relations and graphs, here or as a server."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from more_r1.cli.app import (
    TINY,
    ConfidenceOption,
    JointOption,
    ModelOption,
    SchemaOption,
    app,
    console,
    errors,
    load,
    quiet,
    schema_of,
    telling,
)
from more_r1.schema import Schema

if TYPE_CHECKING:
    from more_r1.extraction.archive import Archive
    from more_r1.extraction.job import Job
    from more_r1.extraction.raw import Source
    from more_r1.models.engine import Model
    from more_r1.reasoning.prediction import Prediction


OutOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--out",
        help="File to write: .jsonl, .parquet (predictions), .ttl, .jsonld, .graphml, .triples.parquet; without a suffix a "
        "folder for Neo4j; may be repeated",
    ),
]
MergeOption = Annotated[Literal["name", "none"], typer.Option(help="Whether entities of one name and type are one, in graphs")]
# Documents that are answered before they are shown.
FEW = 8


@app.command()
def extract(
    source: Annotated[
        Path | None, typer.Argument(help="A picture, its text beside it or in --text; or many, see docs/extract.md")
    ] = None,
    text: Annotated[str | None, typer.Option(help="The picture's headline")] = None,
    object: Annotated[list[str] | None, typer.Option(help="Box of an object: cx,cy,w,h as fractions; may be repeated")] = None,
    entity: Annotated[list[str] | None, typer.Option(help="An entity, as it stands in the text; may be repeated")] = None,
    documents: Annotated[Path | None, typer.Option(help="The same as SOURCE")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a MORE folder")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many documents")] = None,
    find_entities: Annotated[str | None, typer.Option(help="Who finds them: gazetteer[:FILE], spacy[:MODEL], lvlm")] = None,
    find_objects: Annotated[str | None, typer.Option(help="Who finds them: embedded, faces, detector:MODEL, lvlm")] = None,
    model: ModelOption = TINY,
    engine: Annotated[Literal["local", "vllm"], typer.Option(help="What computes: PyTorch in this process, or vLLM")] = "local",
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
    if text is None and (object or entity):
        raise typer.BadParameter("--object and --entity are of one picture; give its --text, too")
    if ray is not None and engine != "local":
        raise typer.BadParameter("a Ray cluster computes with --engine local")
    outs = out or []
    how = {"types": types, "joint": joint, "confidence": confidence, "samples": samples, "min_confidence": min_confidence}
    job = Job(
        source=given,
        split=split,
        limit=limit,
        model=model,
        engine=engine,
        relations=None if schema is None else schema_of(schema),
        entities=find_entities,
        objects=find_objects,
        options={key: value for key, value in how.items() if value},
    )
    if outs and text is None:
        if as_json:
            raise typer.BadParameter("--json prints; with --out the predictions go to the file, as a .jsonl")
        with telling("asking") as tell:
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
    asked = _load_for(job, threads)
    worker, kept = job.worker(asked), []
    while some := list(islice(records, FEW)):
        answers = worker(some)
        for fault in answers.faults:
            errors.print(Text(f"left out: {fault}", style="yellow"), soft_wrap=True)
        for prediction in answers.predictions:
            if as_json:
                print(prediction.model_dump_json(), flush=True)
            else:
                _show(prediction, job.relations or asked.schema, asked)
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
def serve(
    model: ModelOption = TINY,
    schema: SchemaOption = None,
    host: Annotated[str | None, typer.Option(help="Address to serve at; by default this machine alone, 127.0.0.1")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free")] = 8000,
    queue: Annotated[int, typer.Option(min=1, help="Documents that may wait; to more the answer is 429")] = 64,
    find_entities: Annotated[str | None, typer.Option(help="Who finds them: gazetteer[:FILE], spacy[:MODEL], lvlm")] = None,
    find_objects: Annotated[str | None, typer.Option(help="Who finds them: embedded, faces, detector:MODEL, lvlm")] = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch")] = None,
) -> None:
    """Serve the page and the API, see docs/serve.md."""
    try:
        from more_r1.serve.app import create_app
        from more_r1.serve.run import serve as run
    except ImportError as error:
        from more_r1.serve.errors import extra_missing

        extra_missing(error)
    from more_r1.extraction.proposers import usual

    entities, objects = usual(model)
    asked = load(model, threads)
    served = create_app(
        asked,
        schema_of(schema, asked),
        model=model,
        objects=find_objects or objects,
        entities=find_entities or entities,
        room=queue,
        local=host is None,
    )
    run(served, host or "127.0.0.1", port, lambda address: console.print(f"{address}  (Ctrl-C stops it)"), open_page=open_page)


def _show(prediction: Prediction, schema: Schema, model: Model) -> None:
    box = ",".join(f"{value:.3g}" for value in prediction.box)
    start, end = prediction.span
    words = [*prediction.tokens[:start], "[", *prediction.tokens[start:end], "]", *prediction.tokens[end:]]
    console.rule(Text(f"{prediction.document}  {prediction.object} ({box})"), align="left")
    console.print(Text(" ".join(words), style="bold"))
    trace = prediction.trace(schema, model.form)
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
            work_through(source, archive, job.worker(_load_for(job, threads)), tell)

    def there(source: Source, archive: Archive) -> None:
        from more_r1.extraction.cluster import work_on_cluster

        work_on_cluster(job, source.size, archive, ray or "", processes, tell)

    return here if ray is None else there


def _load_for(job: Job, threads: int | None) -> Model:
    quiet(threads)
    return job.load()
