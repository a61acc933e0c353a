"""Recipes: every field settable, every mistake one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Discriminator, Field

from more_r1.training.recipe import Recipe, RecipeError, load_recipe


class Part(Recipe):
    name: str
    lr: float = 1.0


class Inner(Recipe):
    order: Literal["shared", "paper"] = "shared"
    pixels: int = 10


class Square(Recipe):
    kind: Literal["square"] = "square"
    side: int = 1


class Circle(Recipe):
    kind: Literal["circle"] = "circle"
    radius: int = 1


class Outer(Recipe):
    lr: float = Field(default=0.1, gt=0)
    out: Path = Path("runs/x")
    data: Path | None = None
    inner: Inner = Inner()
    parts: tuple[Part, ...] = ()
    form: Annotated[Square | Circle, Discriminator("kind")] = Square()


def write(folder: Path, text: str) -> Path:
    file = folder / "r.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_file_and_overrides(tmp_path: Path) -> None:
    file = write(tmp_path, "# a comment\nlr: 0.5\nparts:\n- {name: a}\n- {name: b, lr: 2}\n")
    recipe = load_recipe(file, ["lr=1e-4", "inner.order=paper", "parts.1.lr=3", "out=here/there", "data=some dir"], Outer)
    assert recipe.lr == 1e-4 and recipe.inner == Inner(order="paper") and recipe.out == Path("here/there")
    assert recipe.data == Path("some dir")
    assert recipe.parts == (Part(name="a"), Part(name="b", lr=3))


def test_later_override_wins_and_lists_can_be_given_whole(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "lr: 1"), ["lr=2", "lr=3", "parts=[{name: z}]"], Outer)
    assert recipe.lr == 3 and recipe.parts == (Part(name="z"),)


def test_what_an_alias_names_is_set_in_one_place(tmp_path: Path) -> None:
    file = write(tmp_path, "parts:\n- &a {name: a}\n- *a\ninner: &i {pixels: 3}\n")
    recipe = load_recipe(file, ["parts.1.lr=3"], Outer)
    assert recipe.parts == (Part(name="a"), Part(name="a", lr=3))


@given(value=st.floats(min_value=1e-12, max_value=1e12))
def test_any_number_comes_back_from_the_command_line(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    file = write(tmp_path_factory.mktemp("recipe"), "lr: 1")
    assert load_recipe(file, [f"lr={value!r}"], Outer).lr == value


@pytest.mark.parametrize(
    ("text", "overrides", "parts"),
    [
        ("lr: 1\nouts: x", [], ["r.yaml", "unknown key outs", "did you mean out?"]),
        ("lr: 1", ["inner.oder=paper"], ["r.yaml", "unknown key inner.oder", "did you mean inner.order?"]),
        ("lr: 1", ["order=paper"], ["unknown key order", "did you mean inner.order?"]),
        ("parts: [{nme: a}]", [], ["unknown key parts.0.nme", "did you mean parts.name?"]),
        ("lr: 1", ["zzzzzz=1"], ["unknown key zzzzzz", "the keys are lr, out, data, inner, parts, form"]),
        ("form: {kind: circle, radus: 2}", [], ["unknown key form.radus", "did you mean form.radius?"]),
        ("lr: fast", [], ["r.yaml", "lr:", "'fast'"]),
        ("lr: -1", [], ["lr:", "greater than 0", "-1"]),
        ("inner: {order: sideways}", [], ["inner.order", "'shared' or 'paper'", "sideways"]),
        ("inner: 3", [], ["inner:"]),
        ("- lr", [], ["r.yaml", "key: value"]),
        ("lr: [", [], ["r.yaml", "line 1"]),
        ("lr: 1", ["lr"], ["'lr'", "key=value"]),
        ("lr: 1", ["=3"], ["'=3'", "key=value"]),
        ("lr: 1", ["lr.deep=3"], ["'lr.deep=3'", "nothing under"]),
        ("lr: 1", ["lr.more.deep=3"], ["'lr.more.deep=3'", "nothing under"]),
        ("parts: [{name: a}]", ["parts.1.lr=3"], ["'parts.1.lr=3'", "there are 1"]),
        ("parts: [{name: a}]", ["parts.x=3"], ["'parts.x=3'", "no number"]),
        ("lr: 1", ["lr=["], ["lr=: ", "line 1"]),
        ("lr: 2024-13-45", [], ["r.yaml", "month"]),
        ("lr: " + "[" * 5000, [], ["r.yaml"]),
    ],
)
def test_mistakes_cost_one_clear_line(tmp_path: Path, text: str, overrides: list[str], parts: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, text), overrides, Outer)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_line_that_cannot_be_read_is_not_shown(tmp_path: Path) -> None:
    """A key has no place in a recipe, but who has put it there by mistake must not find it in a log."""
    for text, overrides in (("lr: 1\nout: sk-secret: x", []), ("lr: 1", ["out=sk-secret: x: y"]), ("lr: 'sk-secret", [])):
        with pytest.raises(RecipeError, match=r"line \d+, column \d+") as caught:
            load_recipe(write(tmp_path, text), overrides, Outer)
        assert "secret" not in str(caught.value)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: cannot be read"):
        load_recipe(tmp_path / "nowhere.yaml", [], Outer)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"b\.yaml"):
        load_recipe(tmp_path / "b.yaml", [], Outer)


def test_objects_of_python_are_not_made(tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        load_recipe(write(tmp_path, f"out: !!python/object/apply:os.mkdir ['{tmp_path}/made']"), [], Outer)
    assert not (tmp_path / "made").exists()
