"""A plan and the figures of an annotation as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from more_r1.experts.desk import Figures
from more_r1.experts.money import Plan


def render_plan(plan: Plan) -> Table:
    """What is still to be asked and what it may cost; print it with `rich.console.Console().print`."""
    table = Table(f"{plan.pairs:,} pairs to ask about")
    for column in ("each once", "at most, all tries"):
        table.add_column(column, justify="right")
    rows = [("calls", plan.calls), ("tokens in, about", plan.tokens_in), ("tokens out, at most", plan.tokens_out)]
    for name, counts in rows:
        table.add_row(name, *(f"{count:,}" for count in counts))
    costs = ("no prices in the recipe",) * 2 if plan.cost is None else tuple(f"{cost:,.2f}" for cost in plan.cost)
    table.add_row("cost, at most", *costs)
    table.add_row("cost so far", f"{plan.spent:,.2f}", "")
    table.add_row("max_cost", "none" if plan.max_cost is None else f"{plan.max_cost:,.2f}", "")
    return table


def render(figures: Figures) -> Table:
    """Pairs and calls by verdict, tokens and cost."""
    table = Table("verdict")
    for column in ("pairs", "calls"):
        table.add_column(column, justify="right")
    for verdict, calls in figures.calls.most_common():
        table.add_row(verdict, f"{figures.final[verdict]:,}", f"{calls:,}")
    table.add_row("all", f"{figures.done:,} of {figures.pairs:,}", f"{figures.calls.total():,}", end_section=True)
    if figures.tokens_in or figures.tokens_out:
        table.add_row("tokens in, out", f"{figures.tokens_in:,}", f"{figures.tokens_out:,}")
    if figures.cost is not None:
        table.add_row("cost", f"{figures.cost:,.4f}", "")
    return table
