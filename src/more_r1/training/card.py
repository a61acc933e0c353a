"""The model card: README.md in the model folders of a run, in the form of the Hugging Face hub (card.md is its template)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from more_r1.formats.paths import replacing
from more_r1.training.recipe import load_yaml, read_yaml

if TYPE_CHECKING:
    from more_r1.training.learner import TrainingRecipe

# The model folders of a run.
RESULTS = ("best", "final")


def write_card(folder: Path, recipe: TrainingRecipe, step: int, steps: int, valid: Mapping[str, float] | None) -> None:
    """Write the card of a model folder, which names no place on this machine. `valid` are the figures, as fractions of 1, by
    which the checkpoint after `step` of `steps` was chosen; None for the last one, which nothing chose."""
    told = _placeless(recipe.model_dump(mode="json"), recipe.model_dump())
    base = hub = None
    if "model" in told:
        root = _root(told["model"])
        told["model"], base = _public(told["model"]), _public(root)
        hub = root if _of_hub(root) else None  # nothing else may stand in the head
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
        hub=hub,
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


def _root(model: str) -> str:
    """What the first of the runs began from that led to this model, one after another."""
    seen: set[str] = set()
    while model not in seen and (before := _before(model)) is not None:
        seen.add(model)
        model = before
    return model


def _before(model: str) -> str | None:
    """What the run began from that wrote this folder: by its recipe or, if the folder was moved, its card. None if none did."""
    folder = Path(model).absolute()
    recipe, card = folder.parent / "recipe.yaml", folder / "README.md"
    try:
        if folder.name in RESULTS and recipe.is_file():
            found = load_yaml(recipe).get("model")
        else:
            head = read_yaml(card.read_text(encoding="utf-8").split("---\n")[1], str(card))
            found = head.get("base_model") if "more-r1" in head["tags"] else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # no card, or one of another kind
        return None
    return found if isinstance(found, str) else None


def _of_hub(model: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", model) is not None and not Path(model).exists()


def _public(model: str) -> str:
    """The name of a model, without the place of its folder."""
    path = Path(model).absolute()
    if _of_hub(model):
        return model
    return f"{path.parent.name}, {path.name}" if path.name in RESULTS else path.name


def _placeless(told: Any, given: Any) -> Any:
    """Settings as they are told, of those that are given as paths the last part."""
    if isinstance(given, Path):
        return given.name
    return {key: _placeless(value, given.get(key)) for key, value in told.items()} if isinstance(given, dict) else told
