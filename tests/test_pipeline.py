"""All stages of one recipe in a row, through the command."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.state import AcceleratorState
from halves import Halfway
from transformers import Qwen2_5_VLForConditionalGeneration
from typer.testing import CliRunner

from more_r1 import pipeline
from more_r1.cli import app
from more_r1.formats import load_documents
from more_r1.pipeline import TrainRecipe
from more_r1.training.recipe import RecipeError, load_recipe

STAGES = {
    "sft": {"share": 0.5, "epochs": 1, "batch_pairs": 6, "valid_pairs": 2, "max_new_tokens": 8, "draw_seed": 4},
    "difficulty": {"limit": 6},
    "grpo": {
        "mixing": {"preset": "raw"},
        "epochs": 1,
        "batch_pairs": 6,
        "group": 2,
        "valid_pairs": 2,
        "rewards": {"format": 0, "length": 0},
    },
    "test": "valid",
}


def recipe(halfway: Halfway, folder: Path) -> Path:
    base = halfway.model.parent.parent / "base"
    given = {"out": str(folder / "run"), "model": str(base), "data": str(halfway.data), "seed": 3, "threads": 1, **STAGES}
    file = folder / "all.yaml"
    file.write_text(yaml.safe_dump(given))
    return file


def test_what_stages_share_is_handed_on(halfway: Halfway, tmp_path: Path) -> None:
    found = load_recipe(recipe(halfway, tmp_path), ["grpo.seed=5"], TrainRecipe)
    out = tmp_path / "run"
    assert found.difficulty.model == found.grpo.model == str(out / "sft" / "best")
    assert found.grpo.difficulty == found.difficulty.out == out / "difficulty"
    assert (found.difficulty.share, found.difficulty.draw_seed, found.grpo.draw_seed) == (0.5, 4, 4)
    assert (found.sft.seed, found.difficulty.seed, found.grpo.seed) == (3, 3, 5)
    assert found.sft.data == found.difficulty.data == found.grpo.data == halfway.data
    # A stage may have a folder of its own; what comes after it looks there.
    elsewhere = [f"{name}.out={tmp_path / 'own' / name}" for name in ("sft", "difficulty", "annotate")]
    found = load_recipe(recipe(halfway, tmp_path), [*elsewhere, "annotate.expert.kind=oracle"], TrainRecipe)
    assert found.difficulty.model == found.grpo.model == str(tmp_path / "own" / "sft" / "best")
    assert found.grpo.difficulty == tmp_path / "own" / "difficulty"
    assert Path(found.sft.traces) == tmp_path / "own" / "annotate" / "traces.jsonl"


def test_a_mistake_in_a_stage_is_named(halfway: Halfway, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"unknown key grpo\.grup; did you mean grpo\.group\?"):
        load_recipe(recipe(halfway, tmp_path), ["grpo.grup=2"], TrainRecipe)
    with pytest.raises(RecipeError, match="model: Field required"):
        load_recipe(_without(recipe(halfway, tmp_path), "model"), [], TrainRecipe)


def test_a_stage_1_that_stage_2_cannot_go_on_from_is_refused(halfway: Halfway, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"sft\.head=true ends in a model that writes no words"):
        load_recipe(recipe(halfway, tmp_path), ["sft.head=true", "sft.form={reasoning: none}"], TrainRecipe)


def test_all_stages_run_once(halfway: Halfway, tmp_path: Path) -> None:
    command = ["train", str(recipe(halfway, tmp_path))]
    first = CliRunner().invoke(app, command, catch_exceptions=False)
    assert first.exit_code == 0
    out = tmp_path / "run"
    assert "report.html" in first.output
    done = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file() and file.suffix != ".html"}
    names = {str(file.relative_to(out)) for file in done}
    assert {"sft/result.json", "difficulty/difficulty.jsonl", "grpo/result.json", "grpo/metrics.json"} <= names
    assert (out / "grpo" / "report.html").is_file()
    # What is complete is left alone: the second time nothing is written but the report.
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    again = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file() and file.suffix != ".html"}
    assert {file for file in again if again[file] != done.get(file)} <= {out / "difficulty" / name for name in _FIGURES}
    # Another split is another evaluation, on the same model.
    other = CliRunner().invoke(app, [*command, "test=train"], catch_exceptions=False)
    assert other.exit_code == 0
    asked = {json.loads(line)["document"] for line in (out / "grpo" / "predictions.jsonl").read_text().splitlines()}
    assert asked == {document.id for document in load_documents(halfway.data, "train")}
    assert (out / "grpo" / "result.json").stat().st_mtime_ns == done[out / "grpo" / "result.json"]


def test_no_stage_keeps_the_model_of_another(halfway: Halfway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def models() -> int:
        return sum(issubclass(type(one), Qwen2_5_VLForConditionalGeneration) for one in gc.get_objects())

    gc.collect()
    before, found = models(), []
    for name in ("run_difficulty", "run_grpo", "evaluate"):
        whole = getattr(pipeline, name)

        def begin(*arguments: Any, whole: Any = whole, **named: Any) -> Any:
            found.append(models() - before)
            return whole(*arguments, **named)

        monkeypatch.setattr(pipeline, name, begin)
    # In half precision accelerate makes what is trained refer to itself.
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    command = ["train", str(recipe(halfway, tmp_path))]
    AcceleratorState._reset_state(True)
    gc.disable()
    try:
        assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    finally:
        gc.enable()
        AcceleratorState._reset_state(True)
    assert found == [0, 0, 1]  # the evaluation has been given its own


def test_where_no_step_of_stage_2_was_better_the_figures_are_said_to_be_of_its_start(halfway: Halfway, tmp_path: Path) -> None:
    command = ["train", str(recipe(halfway, tmp_path)), "grpo.lr=1.0e-12"]
    told = "best checkpoint: step 0, that is the model that stage 2 began from"
    assert told in CliRunner().invoke(app, command, catch_exceptions=False).output
    file = tmp_path / "run" / "grpo" / "result.json"
    result = json.loads(file.read_text())
    assert result["best_step"] == 0
    file.write_text(json.dumps(result | {"best_step": 1}))
    assert told not in CliRunner().invoke(app, command, catch_exceptions=False).output


_FIGURES = ("difficulty.json", "difficulty.jsonl")  # written anew with the threshold, the answers being the same


def _without(file: Path, key: str) -> Path:
    given = yaml.safe_load(file.read_text())
    del given[key]
    file.write_text(yaml.safe_dump(given))
    return file
