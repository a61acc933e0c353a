"""Measuring: a model on a split, any predictions, its confidence; and the report of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from more_r1.cli.app import (
    TINY,
    ConfidenceOption,
    JointOption,
    ModelOption,
    SchemaOption,
    app,
    console,
    load,
    schema_of,
    telling,
)


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
    asked = load(model, threads)
    with telling("asking") as tell:
        metrics = run(
            asked, documents, schema_of(schema, asked), out, max_new_tokens=max_new_tokens, progress=tell, reading=how
        )
    console.print(render(metrics))
    console.print(f"{out / 'predictions.jsonl'}, {out / 'metrics.json'}", soft_wrap=True)


@app.command()
def calibrate(
    data: Annotated[Path, typer.Option(help="MORE folder, .jsonl or .parquet, that the model was not trained on")],
    model: Annotated[str, typer.Option("--model", help="Model folder; its calibration.json is written")],
    split: Annotated[str, typer.Option(help="Split of a MORE folder")] = "valid",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many documents")] = None,
    schema: SchemaOption = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch")] = None,
) -> None:
    """Fit the temperature at which a model's confidence is what it says, and keep it beside the weights."""
    from more_r1.evaluation.calibrate import calibrate as run
    from more_r1.formats import load_documents
    from more_r1.models.manner import save_calibration

    documents = load_documents(data, split if data.is_dir() else None)[:limit]
    asked = load(model, threads)
    with telling("asking") as tell:
        fitted = run(asked, documents, schema_of(schema, asked), f"{data} {split}", progress=tell)
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


@app.command("compare")
def compare_systems(
    systems: Annotated[list[str], typer.Argument(help="NAME=RUN, a folder with predictions.jsonl, or a pattern of several")],
    against: Annotated[str | None, typer.Option(help="The system to compare with; by default the first")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="For a paper's table or a README")] = False,
) -> None:
    """Systems side by side on the same pairs: means over their runs, and a paired bootstrap of the difference in F1."""
    from more_r1.evaluation.compare import compare, markdown, render, runs_of

    runs = runs_of(systems)
    against = against or next(iter(runs))
    with console.status("drawing"):
        rows = compare(runs, against)
    if as_markdown:
        print(markdown(rows, against))
    else:
        console.print(render(rows, against))


@app.command()
def report(run: Path, browse: Annotated[int, typer.Option(min=0, help="How many predictions can be browsed")] = 300) -> None:
    """Make one HTML file of a run folder: figures, curves, confusions, and predictions to browse."""
    from more_r1.evaluation.report import write_report

    console.print(f"{write_report(run, browse)}", soft_wrap=True)
