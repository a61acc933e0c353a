"""The paper's table by studies/paper.py, all systems on a small task; the commands run in this process."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState
from halves import Halfway
from typer.testing import CliRunner

from more_r1.cli import app
from more_r1.evaluation.metrics import read_records

STUDY = Path(__file__).parents[2] / "studies" / "paper.py"


def test_all_systems_are_trained_and_compared_and_what_is_there_is_left_alone(
    halfway: Halfway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {
        "sft": {"share": 0.5, "epochs": 1, "batch_pairs": 6, "valid_pairs": 2, "max_new_tokens": 8, "draw_seed": 4},
        "difficulty": {"limit": 6},
        "grpo": {"mixing": {"preset": "raw"}, "epochs": 1, "batch_pairs": 6, "group": 2, "valid_pairs": 2},
        "test": "valid",
    }
    stages["grpo"] |= {"rewards": {"format": 0, "length": 0}, "max_new_tokens": 8}
    file, base = tmp_path / "all.yaml", halfway.model.parent.parent / "base"
    common = {"out": str(tmp_path / "unused"), "model": str(base), "data": str(halfway.data), "threads": 1}
    file.write_text(yaml.safe_dump(common | stages))
    asked: list[list[str]] = []

    def run(command: list[str], check: bool) -> None:
        asked.append(command)
        AcceleratorState._reset_state(True)  # as in a process of its own
        done = CliRunner().invoke(app, command[command.index("more_r1") + 1 :], catch_exceptions=False)
        assert done.exit_code == 0, done.output

    monkeypatch.setattr("subprocess.run", run)
    out = tmp_path / "paper"
    command = ["paper.py", str(file), "sft.lr=1e-3", "--seeds", "0", "1", "--out", str(out), "--launch", "python -X dev"]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(str(STUDY), run_name="__main__")
    # Zero-shot once; by seed answers and head (training, evaluation), stage 1 (the same), and all stages.
    assert [command[command.index("more_r1") + 1] for command in asked] == [
        "evaluate",
        *["sft", "evaluate", "sft", "evaluate", "train", "evaluate", "train"] * 2,
    ]
    assert all(command[:3] == ["python", "-X", "dev"] for command in asked if "evaluate" not in command)
    table = (out / "table.md").read_text()
    rows = {cells[1].strip(): cells for line in table.splitlines() if len(cells := line.split("|")) > 3}
    assert {"zero-shot", "answers", "head", "stage 1", "stage 2", "REMOTE", "MORE-R1"} <= rows.keys()
    assert "±" in rows["answers"][3] and "±" not in rows["zero-shot"][3]
    told = yaml.safe_load((out / "answers-1.yaml").read_text())
    assert (told["share"], told["lr"], told["form"]["reasoning"], told["seed"]) == (1.0, 1e-3, "none", 1)
    heads = [record["completion"] for _, record in read_records(out / "head-0" / "test" / "predictions.jsonl")]
    assert heads and all(text.startswith("<answer>") for text in heads)

    asked.clear()
    runpy.run_path(str(STUDY), run_name="__main__")
    assert asked == [] and (out / "table.md").read_text() == table
