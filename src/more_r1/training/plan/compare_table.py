"""A plan as tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from more_r1.training.plan.compare import Plan
from more_r1.training.plan.layouts import LAYOUTS, Layout
from more_r1.training.plan.memory import PARTS
from more_r1.training.plan.phases import Phase
from more_r1.training.plan.recipe import PlanRecipe

TITLES: dict[Layout, str] = {"repeated": "nothing shared", "group": "pair's prompt shared", "document": "document shared too"}
PUBLISHED = "For orientation only: the authors give 24 hours on eight A100 for 4 epochs, but not G, batch, lengths or software."


def render(plan: Plan, recipe: PlanRecipe) -> RenderableType:
    """The hours of all epochs, the costs of the first one, the memory; print it with `rich.console.Console().print`.

    Units are decimal: 1 GB is 1e9 bytes, 1 PFLOP 1e15 operations.
    """
    size = f"{plan.parameters:,} parameters, {plan.trained:,} trained; G {recipe.group}, {recipe.pairs_at_once} pairs at once"
    epochs = _table("epoch", [*TITLES.values(), "samples", "pairs of a document met"], title=size)
    for epoch in plan.epochs:
        hours = [f"{epoch.hours(layout):.2f} h" for layout in LAYOUTS]
        epochs.add_row(f"{epoch.number}", *hours, f"{epoch.samples:,}", f"{epoch.pairs_met:.2f}")
    samples = f"{sum(epoch.samples for epoch in plan.epochs):,}"
    epochs.add_row("all", *(f"{plan.hours(layout):.2f} h" for layout in LAYOUTS), samples, "", style="bold")
    return Group(epochs, _costs(plan, recipe), _memory(plan, recipe), Text(PUBLISHED))


def _costs(plan: Plan, recipe: PlanRecipe) -> Table:
    phases = plan.epochs[0].phases
    table = _table("epoch 1", list(TITLES.values()), title=f"{recipe.devices.count} x {recipe.devices.flops / 1e12:g} TFLOP/s")

    def row(name: str, figures: list[float], form: str, total: bool = False) -> None:
        """A total says how many times less it is than without sharing."""
        times = [f"{figures[0] / figure:.2f}x less   " if total and index else "" for index, figure in enumerate(figures)]
        shown = [f"{less}{figure:{form}}" for less, figure in zip(times, figures, strict=True)]
        table.add_row(name, *shown, style="bold" if total else None, end_section=total)

    units: list[tuple[str, Callable[[Phase], float], str]] = [
        ("M tokens", lambda phase: phase.tokens / 1e6, ",.1f"),
        ("M image tokens", lambda phase: phase.image_tokens / 1e6, ",.1f"),
        ("PFLOP", lambda phase: phase.flops.total / 1e15, ",.0f"),
        ("hours", lambda phase: phase.seconds / 3600, ",.2f"),
    ]
    for unit, of, form in units:
        for index, phase in enumerate(phases["repeated"]):
            row(f"{unit}: {phase.name}", [of(phases[layout][index]) for layout in LAYOUTS], form)
        row(f"{unit}: all", [sum(map(of, phases[layout])) for layout in LAYOUTS], form, total=True)
    for part in ("matrices", "attention", "head", "vision"):
        row(f"PFLOP of {part}", [sum(getattr(p.flops, part) for p in phases[a]) / 1e15 for a in LAYOUTS], ",.0f")
    row("PFLOP of the head in training", [phases[layout][-1].flops.head / 1e15 for layout in LAYOUTS], ",.0f")
    row("the same for all tokens' logits", [plan.head_for_all[layout] / 1e15 for layout in LAYOUTS], ",.0f")
    row("TB read in decoding", [phases[layout][1].bytes_read / 1e12 for layout in LAYOUTS], ",.0f")
    return table


def _memory(plan: Plan, recipe: PlanRecipe) -> Table:
    names = [*TITLES.values(), "document shared, recursive"][: len(plan.memory)]
    table = _table("GB a device", names, title=f"of {recipe.devices.memory / 1e9:g} GB")
    for part, name in {**PARTS, "peak": "peak"}.items():
        figures = [getattr(each, part) for each in plan.memory.values()]
        marks = ["too much   " if part == "peak" and figure > recipe.devices.memory else "" for figure in figures]
        shown = [f"{mark}{figure / 1e9:,.1f}" for mark, figure in zip(marks, figures, strict=True)]
        table.add_row(name, *shown, style="bold" if part == "peak" else None)
    return table


def _table(first: str, columns: list[str], title: str) -> Table:
    table = Table(first, title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table
