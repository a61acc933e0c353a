"""The model card: README.md in the model folders of a run, in the form of the Hugging Face hub (card.md is its template)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from more_r1.formats.paths import replacing

if TYPE_CHECKING:
    from more_r1.training.learner import TrainingRecipe


def write_card(folder: Path, recipe: TrainingRecipe, step: int, steps: int, valid: Mapping[str, float] | None) -> None:
    """Write the card of a model folder. `valid` are the figures, as fractions of 1, by which the checkpoint after `step` of
    `steps` was chosen; None for the last one, which nothing chose."""
    told = recipe.model_dump(mode="json")
    base = told.get("model")
    text = yaml.safe_dump(told, sort_keys=False, allow_unicode=True).rstrip()
    environment = Environment(
        loader=PackageLoader("more_r1", "training"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown; all of it is the user's own
    )
    card = environment.get_template("card.md").render(
        name=f"{folder.parent.name}, {folder.name}",
        # Only a name of the hub may stand in its head.
        hub=base if isinstance(base, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).exists() else None,
        stage=recipe.purpose,
        version=version("more-r1"),
        step=step,
        steps=steps,
        valid=valid,
        recipe=text,
        # Longer than any fence in the text.
        fence="`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0)),
        base=base,
        data=told.get("data"),
        relations=(told.get("schema") or {}).get("relations"),
    )
    with replacing(folder / "README.md") as fresh:
        fresh.write_text(card, encoding="utf-8", newline="\n")
