"""Data: make it, check it, convert it, and write it for the trainers of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from more_r1.cli.app import SchemaOption, app, console, progress_bar, schema_of, telling

data = typer.Typer(no_args_is_help=True, help="Make, check and convert data.")
app.add_typer(data, name="data")


@data.command("synth")
def data_synth(
    directory: Path,
    documents: Annotated[int, typer.Option(min=3, help="Documents of train, valid and test together")] = 3559,
    seed: int = 0,
) -> None:
    """Draw the embedded benchmark in the MORE layout: the same numbers give the same bytes."""
    from more_r1.synthetic.benchmark import sizes, write_benchmark

    total = sum(sizes(documents).values())
    with progress_bar() as bar:
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
        report = check_more(directory, schema_of(schema))
    console.print(render(report))
    if strict and not report.sound:
        raise typer.Exit(1)


@data.command("convert")
def data_convert(
    source: Annotated[Path, typer.Argument(help="MORE folder, .jsonl or .parquet")],
    target: Annotated[Path, typer.Argument(help=".jsonl, .parquet or a MORE folder to be")],
    split: Annotated[str | None, typer.Option(help="Split to read, and to write into a MORE folder")] = None,
    schema: SchemaOption = None,
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
        write_more({split or "train": documents}, target, schema_of(schema))
    console.print(f"{target}: {len(documents)} documents", soft_wrap=True)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of `more-r1 annotate`")],
    to: Annotated[Literal["trl", "llamafactory", "ms-swift", "verl"], typer.Option(help="The trainer that is to read it")],
    out: Annotated[Path, typer.Option(help="Folder to be")],
    model: Annotated[str | None, typer.Option(help="Ask as this model folder is asked; by default in full words")] = None,
) -> None:
    """Write accepted traces for SFT, and the pairs that stage 1 left for RL, as another trainer reads them."""
    from more_r1.export.export import export_run
    from more_r1.models.manner import read_form

    form = None if model is None else read_form(model)
    with telling("exporting") as tell:
        exported = export_run(run, to, out, form, tell)
    console.print(f"{out}: {exported.sft} traces for SFT, {exported.rl} pairs for RL", soft_wrap=True)
