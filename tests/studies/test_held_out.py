"""The data and the table of studies/held_out.py."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from more_r1.formats import load_documents
from more_r1.formats.check import check_more
from more_r1.reasoning.scoring import score
from more_r1.schema import Schema

HELD_OUT = ["/per/per/opponent", "/org/org/subsidiary"]


@pytest.fixture(scope="module")
def study() -> dict[str, Any]:
    return runpy.run_path(str(Path(__file__).parents[2] / "studies" / "held_out.py"))


def labels(folder: Path, split: str) -> list[str | None]:
    return [pair.label for document in load_documents(folder, split) for pair in document.pairs]


def test_only_the_pairs_of_the_labels_are_gone(study: dict[str, Any], benchmark_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for _ in range(2):  # a second time nothing changes
        study["without"](benchmark_dir, folder, HELD_OUT)
    assert labels(folder, "test") == labels(benchmark_dir, "test")
    whole = labels(benchmark_dir, "train")
    assert labels(folder, "train") == [label for label in whole if label not in HELD_OUT] != whole
    traces = [json.loads(line)["label"] for line in (folder / "oracle" / "train.jsonl").read_text().splitlines()]
    assert traces and not {*traces} & {*HELD_OUT}
    assert load_documents(folder, "train")[0].open_image().size[0] > 0
    assert check_more(folder, Schema.more()).sound


def test_the_figures_are_those_of_the_benchmark_on_these_labels(study: dict[str, Any]) -> None:
    """F1 over some labels is the benchmark's where only these occur."""
    gold = ["/a/a/x"] * 6 + ["/a/a/y"] * 5 + ["none"] * 4
    predicted = ["/a/a/x"] * 4 + ["/a/a/y"] * 5 + ["none"] * 2 + ["/a/a/x"] * 2 + ["none"] * 2
    from more_r1.evaluation.metrics import measure

    found = measure({"gold": g, "predicted": p} for g, p in zip(gold, predicted, strict=True)).model_dump()["labels"]
    assert study["f1"](found, ["/a/a/x", "/a/a/y"]) == pytest.approx(score(gold, predicted).f1)
    table = study["table"]({"held out": found, "trained": found}, ["/a/a/x"])
    assert table.splitlines()[0] == "| model | /a/a/x | these 1 | the others |"
    assert table.splitlines()[2] == f"| held out | {100 * 8 / 12:.1f} | {100 * 8 / 12:.1f} | {100 * 6 / 10:.1f} |"
