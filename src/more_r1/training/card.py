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
from more_r1.training.recipe import RecipeError, load_yaml, read_yaml

if TYPE_CHECKING:
    from more_r1.training.learner import TrainingRecipe

# The model folders of a run.
RESULTS = ("best", "final")
_HUB = re.compile(r"[\w.-]+/[\w.-]+")


def write_card(folder: Path, recipe: TrainingRecipe, step: int, steps: int, valid: Mapping[str, float] | None) -> None:
    """Write the card of a model folder, which names no place on this machine. `valid` are the figures, as fractions of 1, by
    which the checkpoint after `step` of `steps` was chosen; None for the last one, which nothing chose."""
    told = _placeless(recipe.model_dump(mode="json"), recipe.model_dump())
    base = hub = None
    if "model" in told:
        root, hub = _root(told["model"])  # nothing but a name of the hub may stand in the head
        told["model"], base = _public(told["model"]), hub or _public(root)
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


def _root(model: str) -> tuple[str, str | None]:
    """What the first of the runs began from that led to this model, one after another; and its name if it is one of the hub.

    A card knows that for good. Recipes lead on to what no card names: a folder, or a model of a run that has not ended.
    """
    seen: set[str] = set()
    local = False
    while model not in seen:
        seen.add(model)
        folder = Path(model).absolute()
        if (head := _own_head(folder / "README.md")) is not None:
            if isinstance(base := head.get("base_model"), str):
                return base, base if _HUB.fullmatch(base) else None
            local = True
        model = _began_from(folder) or model
    return model, model if not local and _of_hub(model) else None


def _own_head(card: Path) -> dict[str, Any] | None:
    """The head of a card that more-r1 wrote."""
    try:
        head = read_yaml(card.read_text(encoding="utf-8").split("---\n")[1], str(card))
    except (OSError, ValueError, IndexError):
        return None
    tags = head.get("tags") if isinstance(head, dict) else None
    return head if isinstance(tags, list) and "more-r1" in tags else None


def _began_from(folder: Path) -> str | None:
    """The model in the recipe of the run that wrote this folder; None if none did."""
    file = folder.parent / "recipe.yaml"
    if folder.name not in RESULTS or not file.is_file():
        return None
    try:
        recipe = load_yaml(file)
    except RecipeError:
        return None
    model = recipe.get("model") if isinstance(recipe, dict) else None
    return model if isinstance(model, str) else None


def _of_hub(model: str) -> bool:
    return _HUB.fullmatch(model) is not None and not Path(model).exists()


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
