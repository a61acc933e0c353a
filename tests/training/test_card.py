"""The model card: what a hub reads of it, and that it tells the recipe and the choice of the checkpoint as they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from halves import Halfway

from more_r1.training.card import write_card
from more_r1.training.sft import SftRecipe


def head(card: str) -> dict[str, Any]:
    _, between, _ = card.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(between)
    return found


def recipe(**settings: Any) -> SftRecipe:
    return SftRecipe.model_validate({"model": "Qwen/Qwen2.5-VL-7B-Instruct", "data": "MORE", "out": "runs/x"} | settings)


def test_a_run_leaves_a_card_that_says_how_it_ended(halfway: Halfway) -> None:
    run = halfway.model.parent
    best, final = ((run / name / "README.md").read_text(encoding="utf-8") for name in ("best", "final"))
    result = json.loads((run / "result.json").read_text())
    assert f"after step {result['best_step']} of {result['steps']}" in best
    assert f"| f1 | {100 * result['best']['f1']:.2f} |" in best
    assert "no validation chose it" in final and "| f1 |" not in final
    kept = yaml.safe_load((run / "recipe.yaml").read_text())
    told = yaml.safe_load(best.split("```yaml\n")[1].split("```")[0])
    assert told == kept | {name: Path(kept[name]).name for name in ("model", "data", "out")}
    assert "began from `base`" in best and str(run.parent) not in best + final, "where it was made is nobody's business"
    assert "base_model" not in head(final), "a folder's name leads nowhere"
    assert head(final)["pipeline_tag"] == "image-text-to-text"


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-VL-7B-Instruct", "a/b\nlicense: mit", "here/there/model", "tiny"])
def test_only_a_name_of_the_hub_gets_into_the_head(tmp_path: Path, model: str) -> None:
    write_card(tmp_path, recipe(model=model), 1, 2, {"f1": 0.5})
    found = head((tmp_path / "README.md").read_text(encoding="utf-8"))
    assert found.get("base_model") == (model if model.startswith("Qwen") else None)
    assert "license" not in found


def test_text_that_looks_like_a_fence_stays_inside(tmp_path: Path) -> None:
    write_card(tmp_path, recipe(data="x````y"), 1, 2, None)
    assert "`````yaml\n" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """The model of a run that began from a model of the hub."""
    folder = tmp_path / "me" / "sft" / "best"
    folder.mkdir(parents=True)
    (folder.parent / "recipe.yaml").write_text("model: Qwen/Qwen2.5-VL-7B-Instruct\n")
    write_card(folder, recipe(), 1, 2, {"f1": 0.5})
    return folder


def card_after(model: Path) -> str:
    """Of a second run, from this model."""
    folder = model.parents[1] / "grpo" / "best"
    folder.mkdir(parents=True, exist_ok=True)
    there = {name: model.parents[1] / name for name in ("data", "out", "traces")}
    write_card(folder, recipe(model=str(model), **there), 1, 2, {"f1": 0.5})
    return (folder / "README.md").read_text(encoding="utf-8")


def test_a_second_stage_names_the_model_that_the_first_began_from(first: Path) -> None:
    card = card_after(first)
    assert head(card)["base_model"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert "began from `Qwen/Qwen2.5-VL-7B-Instruct` and are under its licence" in card
    assert "model: sft, best\ndata: data\n" in card and str(first.parents[1]) not in card


def test_so_it_does_from_a_copy_of_the_folder_alone(first: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(first, tmp_path / "me" / "there" / "stage1")
    assert head(card_after(moved))["base_model"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    card = (moved / "README.md").read_text(encoding="utf-8")
    # A card that others wrote tells of their model, which is the one that this began from.
    for other in (card.replace("more-r1, ", ""), "no card", card.replace("tags:", "tags: ["), "---\n[]\n---\n"):
        (moved / "README.md").write_text(other, encoding="utf-8")
        after = card_after(moved)
        assert "base_model" not in head(after) and "began from `stage1`" in after


def test_a_run_that_has_not_ended_has_its_recipe_alone(first: Path) -> None:
    (first / "README.md").unlink()
    assert head(card_after(first))["base_model"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    for broken in ("[", "- model", "model: 3", ""):
        (first.parent / "recipe.yaml").write_text(broken)
        assert "began from `sft, best`" in card_after(first)


def test_a_folder_that_is_no_longer_there_is_not_taken_for_a_model_of_the_hub(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "base").mkdir(parents=True)
    write_card(first, recipe(model="runs/base"), 1, 2, None)
    (first.parent / "recipe.yaml").write_text("model: runs/base")
    (tmp_path / "runs" / "base").rmdir()
    card = card_after(first)
    assert "base_model" not in head(card) and "began from `runs/base`" in card


def test_runs_that_name_each_other_come_to_an_end(first: Path) -> None:
    (first / "README.md").unlink()
    (first.parent / "recipe.yaml").write_text(f"model: {first}\n")
    assert "began from `sft, best`" in card_after(first)
