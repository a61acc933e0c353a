"""The costs of a recipe's stages as a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from more_r1.training.plan.memory import PARTS
from more_r1.training.plan.recipe import Devices
from more_r1.training.plan.stages import Costed


def render(costed: Sequence[Costed], devices: Devices | None) -> RenderableType:
    """Sizes, hours and memory of each stage; what to set where one does not fit. 1 GB is 1e9 bytes; a row without as many
    is in MB."""
    table = Table("", title=_machine(costed, devices), title_justify="left")
    for one in costed:
        table.add_column(one.stage.name, justify="right")

    def row(name: str, of: Callable[[Costed], str], style: str | None = None, end: bool = False) -> None:
        table.add_row(name, *map(of, costed), style=style, end_section=end)

    row("pairs, all epochs", lambda one: f"{sum(one.stage.pairs):,}")
    row("steps", lambda one: f"{one.stage.steps:,}" if one.stage.steps else "")
    row("pairs of a step", lambda one: f"{one.stage.batch_pairs}" if one.stage.steps else "", end=devices is None)
    if devices is not None:
        row("M tokens", lambda one: f"{sum(phase.tokens for phase in one.phases) / 1e6:,.1f}")
        row("PFLOP", lambda one: f"{sum(phase.flops.total for phase in one.phases) / 1e15:,.0f}")
        row("hours", lambda one: f"{one.hours:,.2f}", style="bold", end=True)
    for part, name in PARTS.items():
        unit, cells = _sized([getattr(one.memory, part) for one in costed])
        table.add_row(f"{unit} {name}", *cells)
    unit, cells = _sized([one.memory.peak for one in costed])
    peaks = (cell if one.fits else f"too much  {cell}" for cell, one in zip(cells, costed, strict=True))
    table.add_row(f"{unit} peak", *peaks, style="bold")
    if devices is not None and any(one.stage.vllm for one in costed):
        unit, cells = _sized([devices.memory - one.room for one in costed])
        table.add_row(f"{unit} vLLM, beside it", *cells)
    told = [Text(line) for one in costed for line in _ways(one, devices)]
    return Group(table, *told)


def _machine(costed: Sequence[Costed], devices: Devices | None) -> str:
    stage = costed[0].stage
    of = "" if devices is None else f" of {devices.memory / 1e9:g} GB, {devices.flops / 1e12:g} TFLOP/s"
    return f"{stage.ranks} x one rank{of}; {stage.sharding}, {stage.precision}"


def _ways(one: Costed, devices: Devices | None) -> list[str]:
    if one.fits or devices is None:
        return []
    beside = " that vLLM leaves it" if one.stage.vllm else ""
    over = f"{one.stage.name} does not fit into {one.room / 1e9:g} GB{beside}"
    if not one.ways:
        least = one.memory.drawing > one.room
        return [f"{over}, nor with fewer tokens at a time: " + ("drawing alone takes more" if least else "take larger devices")]
    return [f"{over}; it would with {', or with '.join(one.ways)}"]


def _sized(figures: Sequence[float]) -> tuple[str, list[str]]:
    """A unit, and so many bytes in it; nothing for none."""
    unit, size = ("MB", 1e6) if 0 < max(figures) < 1e9 else ("GB", 1e9)
    return unit, [f"{figure / size:,.1f}" if figure else "" for figure in figures]
