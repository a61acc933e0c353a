"""The recipes of the verbs of training: which class is whose, what is said of one that is another verb's, their fields."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.table import Table
from rich.text import Text

from more_r1.cli.app import console
from more_r1.schema import Schema

if TYPE_CHECKING:
    from more_r1.training.recipe import R

# By verb; what they import is heavy.
_CLASSES = {
    "base": "more_r1.training.base.BaseRecipe",
    "annotate": "more_r1.experts.annotate.AnnotateRecipe",
    "sft": "more_r1.training.sft.SftRecipe",
    "difficulty": "more_r1.training.difficulty.DifficultyRecipe",
    "grpo": "more_r1.training.grpo.GrpoRecipe",
    "train": "more_r1.pipeline.TrainRecipe",
    "plan": "more_r1.training.plan.recipe.PlanRecipe",
}


def read_recipe(file: Path, overrides: Sequence[str] | None, kind: type[R]) -> R:
    """As `load_recipe`; of another verb's recipe the RecipeError names the verb."""
    from more_r1.training.recipe import RecipeError, load_recipe

    try:
        return load_recipe(file, overrides or [], kind)
    except RecipeError as error:
        if verbs := _verbs_of(file, kind):
            raise RecipeError(f"{file}: is a recipe of `more-r1 {'` or `more-r1 '.join(verbs)}`; run that with it") from error
        raise


def _verbs_of(file: Path, kind: type[BaseModel]) -> list[str]:
    """Those whose recipes have all keys of the file, if `kind` has not."""
    from more_r1.training.recipe import RecipeError, load_yaml

    try:
        given = load_yaml(file)
    except RecipeError:
        return []
    if not isinstance(given, dict) or given.keys() <= _names(kind):
        return []
    return [verb for verb in _CLASSES if given.keys() <= _names(_class(verb))]


def _class(verb: str) -> type[BaseModel]:
    module, _, name = _CLASSES[verb].rpartition(".")
    found: type[BaseModel] = getattr(import_module(module), name)
    return found


def _names(kind: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in kind.model_fields.items()}


def _list_fields(context: typer.Context, asked: bool) -> None:
    if asked:
        table = Table(
            "field", "default", "", title=f"more-r1 {context.info_name}: what its recipe may have", title_justify="left"
        )
        for row in _rows(_class(str(context.info_name)), ""):
            table.add_row(*map(Text, row))
        console.print(table)
        raise typer.Exit


def _rows(kind: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    """Key, default, choices and docstring of each field; sections are gone into, but for those that another verb lists."""
    texts, verbs = _texts(kind), {_class(verb): verb for verb in _CLASSES}
    for name, field in kind.model_fields.items():
        key, text = f"{prefix}{field.alias or name}", texts.get(name, "")
        sections = [one for one in _models(field.annotation) if one is not Schema]
        listed = [f"see more-r1 {verbs[one]} --fields" for one in sections if one in verbs]
        choices = ", ".join(_choices(field.annotation))
        yield key, _default(field), " ".join([*([f"{choices}."] if choices else []), text, *listed]).strip()
        for section in sections:
            if section not in verbs:
                yield from _rows(section, f"{key}.")


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The classes of a section: one, one or none, one of several kinds, or a list's."""
    kinds = (annotation, *get_args(annotation))
    return [one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)]


def _choices(annotation: Any) -> list[str]:
    return [str(one) for kind in (annotation, *get_args(annotation)) if get_origin(kind) is Literal for one in get_args(kind)]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    default = field.get_default(call_default_factory=True)
    return "" if default is None or isinstance(default, BaseModel) else json.dumps(default, default=str)


def _texts(kind: type[BaseModel]) -> dict[str, str]:
    """The docstrings below fields, those of base classes among them."""
    found = {}
    for one in reversed([one for one in kind.__mro__ if issubclass(one, BaseModel) and one is not BaseModel]):
        (body,) = ast.parse(dedent(inspect.getsource(one))).body
        for line, text in pairwise(getattr(body, "body", [])):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(text, ast.Expr):
                found[line.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


RecipeFile = Annotated[Path, typer.Argument(help="A YAML file; --fields lists what it may have")]
FieldsOption = Annotated[
    bool, typer.Option("--fields", is_eager=True, callback=_list_fields, help="List all fields of a recipe")
]
