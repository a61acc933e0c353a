"""A check's report as tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from more_r1.formats.check import BUCKETS, CheckReport, Counts


def render(report: CheckReport) -> RenderableType:
    """The figures, the labels, the buckets, then all faults; print it with `rich.console.Console().print`."""
    columns = [*report.splits, report.total]
    size = _table("", columns)
    rows: list[tuple[str, Callable[[Counts], str]]] = [
        ("facts", lambda c: f"{c.facts:,}"),
        ("documents", lambda c: f"{c.documents:,}"),
        ("images", lambda c: f"{c.images:,}"),
        ("objects", lambda c: f"{c.objects:,}"),
        ("objects per image", lambda c: f"{c.objects_per_image:.2f}"),
        ("pairs left out", lambda c: f"{c.left_out:,}"),
    ]
    for name, figure in rows:
        size.add_row(name, *(figure(counts) for counts in columns))

    labels = _table("label", columns)
    for label in report.labels:
        labels.add_row(_plain(label), *(f"{counts.labels[label]:,}" for counts in columns))

    buckets = _table("share of none with", columns)
    for bucket, name in BUCKETS.items():
        shares = [counts.none_share(bucket) for counts in columns]
        buckets.add_row(name, *("-" if share is None else f"{share:.1%}" for share in shares))

    if report.sound:
        return Group(size, labels, buckets, Text("No faults.", style="green"))
    faults = Table(title=f"{len(report.faults):,} faults, {report.total.left_out:,} pairs left out", title_justify="left")
    for column in ("place", "record", "what is wrong", "mend"):
        faults.add_column(column, overflow="fold")
    for fault in report.faults:
        path = Path(fault.file)
        file = path.relative_to(report.folder) if path.is_relative_to(report.folder) else path
        place = str(file) if fault.line is None else f"{file}:{fault.line}"
        faults.add_row(*(_plain(text) for text in (place, fault.record, fault.what, fault.mend)))
    return Group(size, labels, buckets, faults)


def _table(first: str, columns: list[Counts]) -> Table:
    table = Table(first)
    for counts in columns:
        table.add_column(_plain(counts.split), justify="right")
    return table


def _plain(text: str) -> Text:
    """Text of a stranger: no markup, and no codes that a terminal would act on."""
    return Text("".join(character if character.isprintable() else "?" for character in text))
