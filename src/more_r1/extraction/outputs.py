"""Predictions of an archive, or of a few documents, into the files that a user names: by the suffix predictions or graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from more_r1.extraction.archive import Archive, write_faults
from more_r1.extraction.graph import Graph, GraphError, Merge, build_graph
from more_r1.extraction.graph_files import WRITERS, writer_for
from more_r1.extraction.job import Job
from more_r1.extraction.predictions import SUFFIXES, write_predictions
from more_r1.extraction.raw import Source
from more_r1.formats.fault import Fault
from more_r1.reasoning.prediction import Prediction


@dataclass(frozen=True)
class Done:
    """What an archive came to."""

    predictions: int
    left_out: int
    """Records without an answer."""
    side_file: Path
    """Says of each of them why; there is none where all were answered."""


def extract_archive(job: Job, outs: Sequence[Path], merge: Merge, work: Callable[[Source, Archive], None]) -> Done:
    """Answer all records of the job and write the outputs. `work` does the parts that are missing: archive.work_through, or
    cluster.work_on_cluster.

    Parts and side file lie beside the first output. Raises GraphError for an output that cannot be written, before anything
    is asked; and what reading, proposing and the archive raise.
    """
    check_outputs(outs, job.source)
    source, first = job.open(), outs[0]
    with Archive(first.with_name(f"{first.name}.parts"), job.identity(source)) as archive:
        work(source, archive)
        count = write_outputs(
            lambda: (each for each in archive.answers(source.size) if isinstance(each, Prediction)), outs, merge
        )
        side_file = first.with_name(f"{first.name}.left-out.jsonl")
        left_out = write_faults((each for each in archive.answers(source.size) if isinstance(each, Fault)), side_file)
        archive.discard()
    return Done(count, left_out, side_file)


def check_outputs(outs: Sequence[Path], source: Path) -> None:
    """Raises GraphError for a name that is no output's, that is the source's, or that is taken by something of another kind."""
    for out in outs:
        if out.suffix not in SUFFIXES and writer_for(out) is None:
            kinds = ", ".join([*SUFFIXES, *(suffix for suffix in WRITERS if suffix)])
            raise GraphError(f"{out}: unknown kind of output {out.suffix!r}; there are {kinds}, and a folder for Neo4j")
        if out.resolve() == source.resolve():
            raise GraphError(f"{out}: is what is read; give another name")
        if out.exists() and out.is_dir() != (out.suffix == ""):
            raise GraphError(f"{out}: is there already and {'a folder' if out.is_dir() else 'no folder'}; give another name")


def write_outputs(predictions: Callable[[], Iterable[Prediction]], outs: Sequence[Path], merge: Merge) -> int:
    """Write each output, going through the predictions anew for each; how many there are."""
    count = sum(1 for _ in predictions())
    graph: Graph | None = None
    for out in outs:
        writer = writer_for(out)
        if writer is None:
            write_predictions(predictions(), out)
        else:
            graph = graph or build_graph(predictions(), merge)
            writer(graph, out)
    return count
