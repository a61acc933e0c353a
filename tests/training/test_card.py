"""The model card: what a hub reads of it, and that it tells the recipe and the choice of the checkpoint as they were."""

from __future__ import annotations

import json
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
    assert yaml.safe_load(best.split("```yaml\n")[1].split("```")[0]) == yaml.safe_load((run / "recipe.yaml").read_text())
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
