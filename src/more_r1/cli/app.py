"""What the verbs share: the app, its two consoles, options of the same meaning, bars, and loading a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from more_r1.schema import Schema

if TYPE_CHECKING:
    from more_r1.models.classifier import Classifier
    from more_r1.models.engine import Model
    from more_r1.models.load import Backbone

app = typer.Typer(no_args_is_help=True, add_completion=False, help="How what is seen relates to what is named.")
console = Console()
errors = Console(stderr=True)

ModelOption = Annotated[str, typer.Option("--model", help="Model folder or hub name; by default the shipped one")]
SchemaOption = Annotated[
    Path | None, typer.Option("--schema", help="Relations of your own (YAML); by default the model's, or MORE's")
]
JointOption = Annotated[bool, typer.Option("--joint", help="Read the pairs of a document together, under the schema's rules")]
ConfidenceOption = Annotated[bool, typer.Option("--confidence", help="Say how probable each label is given the trace")]
TINY = "tiny"


def schema_of(path: Path | None, model: Model | None = None) -> Schema:
    """The relations that are given; else those that the model was trained for, and MORE's where none is asked."""
    if path is not None:
        return Schema.load(path)
    return Schema.more() if model is None else model.schema


def load(model: str, threads: int | None) -> Backbone | Classifier:
    from more_r1.models.classifier import load_model

    quiet(threads)
    return load_model(model)


def quiet(threads: int | None) -> None:
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=console.quiet or not errors.is_terminal) as bar:
        yield bar


@contextmanager
def telling(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told how many are done, and of how many."""
    with progress_bar() as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
