"""The table and the picture of studies/mixing.py, from run folders as a training leaves them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from more_r1.formats.oracle import read_oracle

STUDY = Path(__file__).parents[2] / "studies" / "mixing.py"


@pytest.fixture
def study(benchmark_dir: Path, tmp_path: Path) -> Any:
    return runpy.run_path(str(STUDY))["Study"](benchmark_dir, tmp_path / "mixing")


def _evaluated(study: Any, arm: str, seed: int, f1: float) -> None:
    """A run evaluated on test: the oracle's own completions, but for the first, whose steps are those of the second."""
    facts = [fact for fact in read_oracle(study.oracle("test")) if fact.completion is not None]
    folder = study.folder(arm, seed) / "test"
    folder.mkdir(parents=True)
    lines = []
    for number, fact in enumerate(facts):
        said = facts[1].completion if number == 0 else fact.completion
        lines.append({"document": fact.img_id, "object": fact.object, "span": list(fact.span), "completion": said})
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    figures = {"accuracy": 0.9, "precision": 0.5, "recall": 0.7, "f1": f1, "hops": {"1": {"recall": 0.25}}}
    (folder / "metrics.json").write_text(json.dumps(figures))


def _row(table: str, arm: str) -> dict[str, str]:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line]
    return dict(zip(lines[0], next(line for line in lines if line[0] == arm), strict=True))


def test_means_deviations_and_gains_over_the_seeds_that_are_there(study: Any) -> None:
    for seed, before, after in ((0, 0.5, 0.6), (1, 0.52, 0.68), (2, 0.6, None)):
        _evaluated(study, "stage 1 only", seed, before)
        if after is not None:
            _evaluated(study, "progressive", seed, after)
    table = study.table(["stage 1 only", "raw", "progressive"], [0, 1, 2])
    assert "| raw |" not in table
    assert table.count("| seeds |") == 1
    first, row = _row(table, "stage 1 only"), _row(table, "progressive")
    assert (first["seeds"], row["seeds"]) == ("3", "2")
    assert first["f1"] == "54.0 ± 5.3"
    assert row["f1"] == "64.0 ± 5.7"
    assert row["gain in F1"] == "13.0 ± 4.2"
    assert row["1 hops"] == "25.0 ± 0.0"


def test_steps_are_counted_against_the_oracle(study: Any) -> None:
    _evaluated(study, "stage 1 only", 0, 0.5)
    row = _row(study.table(["stage 1 only"], [0]), "stage 1 only")
    pairs = sum(fact.completion is not None for fact in read_oracle(study.oracle("test")))
    shares = [float(row[f"step {number}"]) for number in range(1, 7)]
    assert all(share >= 100 * (pairs - 1) / pairs - 0.06 for share in shares)
    assert min(shares) < 100


def test_the_courses_are_drawn(study: Any, tmp_path: Path) -> None:
    run = study.folder("raw", 0)
    run.mkdir(parents=True)
    events = [{"step": step, "reward_answer": 0.5, "accuracy_easy": 0.9} for step in range(30)] + [
        {"step": 30, "valid_f1": 0.5}
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    study.draw(["raw", "progressive"], [0, 1], tmp_path / "courses.png")
    assert (tmp_path / "courses.png").read_bytes().startswith(b"\x89PNG")
