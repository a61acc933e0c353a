"""Recipes: what a run is, in one YAML file, read into a pydantic model; every field can be set on the command line.

`load_recipe("recipes/sft.yaml", ["lr=1e-4", "form.order=paper"], SftRecipe)`. A mistake costs one line that names the
file, the key and the mend.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from more_r1.reasoning.prompt import PromptForm
from more_r1.schema import Schema


class RecipeError(ValueError):
    """A recipe that cannot be run; the message names the file, the key and the mend."""


GivenForm = Annotated[
    PromptForm, PlainSerializer(lambda form: form.model_dump(mode="json", exclude_unset=True), return_type=dict[str, Any])
]
"""How a recipe says to ask; fields that are not given stay as the model was asked before."""


def _schema(given: Any) -> Schema:
    if given is None:
        return Schema.more()
    if isinstance(given, str | Path):
        return Schema.load(given)
    return given if isinstance(given, Schema) else Schema.of(given, "the recipe's schema")


def _content(schema: Schema) -> dict[str, Any] | None:
    return None if schema == Schema.more() else schema.plain


GivenSchema = Annotated[Schema, BeforeValidator(_schema), PlainSerializer(_content, return_type=dict[str, Any] | None)]
"""How a recipe says which relations there are, under its key `schema`: by a file, or as the file's content; none is MORE's.

A run's own recipe has the content, so that a run is the same only while that is. Fields are named `relations`, for pydantic has
something else under the name of the key.
"""


class Recipe(BaseModel):
    """Base of all recipes: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)


R = TypeVar("R", bound=Recipe)


def load_recipe(path: str | Path, overrides: Sequence[str], model: type[R]) -> R:
    """Read the YAML file at `path`, then apply `overrides`, each `key=value`, nested keys dotted (`stages.0.lr=1e-3`).

    Values on the command line are YAML too. Raises RecipeError for a file or value that cannot be read and for unknown keys.
    """
    data = load_yaml(Path(path))
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: expected `key: value` lines")
    for override in overrides:
        _override(data, override)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{path}: {_first_fault(error, model)}") from error


def load_yaml(file: Path) -> Any:
    """As `read_yaml`, of a file. Raises RecipeError where it cannot be read, too."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: cannot be read ({error})") from error
    return read_yaml(text, str(file))


def read_yaml(text: str, source: str) -> Any:
    """Plain data. A fault is told by its place alone, as RecipeError: the line may hold what must not be seen."""
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise RecipeError(f"{source}: {error.problem or error.context}{place}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-13-45
        raise RecipeError(f"{source}: {' '.join(str(error).split())}") from error


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip("."):
        raise RecipeError(f"{override!r}: write key=value")
    value = read_yaml(text, f"{key}=")
    place: Any = data
    *path, last = key.split(".")
    for name in path:
        if isinstance(place, dict):
            # A copy: where the file has an alias, the same section stands in another place, too.
            place[name] = copy({} if place.get(name) is None else place[name])
            place = place[name]
        elif isinstance(place, list):
            number = _index(place, name, override)
            place[number] = copy(place[number])
            place = place[number]
        else:
            raise RecipeError(f"{override!r}: there is nothing under {name!r} to set")
    if isinstance(place, dict):
        place[last] = value
    elif isinstance(place, list):
        place[_index(place, last, override)] = value
    else:
        raise RecipeError(f"{override!r}: there is nothing under {'.'.join(path)!r} to set")


def _index(items: list[Any], name: str, override: str) -> int:
    if not name.isdecimal() or int(name) >= len(items):
        raise RecipeError(f"{override!r}: {name!r} is no number of an entry; there are {len(items)}, counted from 0")
    return int(name)


def _first_fault(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault as one line; unknown keys first, since a misspelt key often makes another one missing."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in faults[0]["loc"])
    if faults[0]["type"] != "extra_forbidden":
        given = faults[0]["input"]
        value = "" if isinstance(given, dict | list) else f" (given: {given!r})"
        named = f"{key}: " if key else ""  # a fault of the recipe as a whole has no key
        return f"{named}{faults[0]['msg'].removeprefix('Value error, ')}{value}"
    known = list(_keys(model))
    *path, last = (part for part in faults[0]["loc"] if isinstance(part, str))
    place: list[str] = []
    for part in path:
        if ".".join([*place, part]) in known:  # not the kind of a section that has several
            place.append(part)
    key = ".".join([*(str(part) for part in faults[0]["loc"][:-1] if part in place or isinstance(part, int)), last])
    # A right key at a wrong depth is as near as a misspelt one at the right depth.
    siblings = [name for name in known if name.split(".")[:-1] == place]
    near = get_close_matches(".".join([*place, last]), siblings, 1) or [name for name in known if name.split(".")[-1] == last]
    near = near or get_close_matches(last, known, 1)
    return f"unknown key {key}; " + (f"did you mean {near[0]}?" if near else f"the keys are {', '.join(siblings)}")


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All keys of a recipe, dotted, without the numbers of list entries."""
    for name, field in model.model_fields.items():
        name = field.alias or name
        yield prefix + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _keys(kind, f"{prefix}{name}.")
