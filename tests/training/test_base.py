"""The base stage through its public verb, on a few of the real lessons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from more_r1.models.load import load_backbone
from more_r1.reasoning.prompt import PromptForm
from more_r1.training.base import BaseRecipe, Lessons, run_base

FORM = {"wording": "short", "whole_pixels": 112 * 112, "crop_pixels": 56 * 56}
STAGES = [{"name": "captions", "documents": 5, "lr": 2e-3}, {"name": "matching", "documents": 2, "lr": 1e-3}]


def run(out: Path, **settings: Any) -> list[dict[str, Any]]:
    recipe = {"out": out, "form": FORM, "stages": STAGES, "batch_documents": 2, "threads": 1, "schedule": "constant"}
    run_base(BaseRecipe.model_validate(recipe | settings))
    lines = (out / "log.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


def test_stages_come_in_turn_and_workers_change_nothing(tmp_path: Path) -> None:
    log = run(tmp_path / "run")
    assert [(event["stage"], event["epoch"]) for event in log] == [
        ("captions", 0.4), ("captions", 0.8), ("captions", 1.0), ("matching", 1.0)
    ]  # fmt: skip
    assert [event["lr"] for event in log] == [2e-3, 2e-3, 2e-3, 1e-3]
    assert log[2]["loss"] < log[0]["loss"]
    assert load_backbone(tmp_path / "run" / "final").form == PromptForm.model_validate(FORM)
    assert run(tmp_path / "again", workers=1) == log


def test_no_document_comes_twice() -> None:
    batches = Lessons(BaseRecipe.model_validate({"out": "x", "stages": STAGES, "batch_documents": 2}))
    pictures = [{picture.source for e in batches[i].examples for picture in e.prompt.pictures} for i in range(len(batches))]
    assert sum(map(len, pictures)) == len(set().union(*pictures)) == 7
