"""Systems side by side: figures as `measure` has them, a bootstrap that an independent one confirms, and clear refusals."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import run
from hypothesis import given, settings
from hypothesis import strategies as st

from more_r1.evaluation.compare import compare, markdown
from more_r1.evaluation.metrics import PredictionError, score_file

LABELS = ("none", "/per/org/member_of", "/per/loc/place_of_birth")
Line = dict[str, Any]


def line(document: int, number: int, gold: str, predicted: str | None) -> Line:
    return {"document": f"d{document}", "object": f"o{number}", "span": [0, 1], "gold": gold, "predicted": predicted}


def write(path: Path, lines: list[Line]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "predictions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def guessed(rng: random.Random, gold: list[Line], right: float) -> list[Line]:
    """Right answers with that probability, any label else."""
    return [{**each, "predicted": each["gold"] if rng.random() < right else rng.choice([*LABELS, None])} for each in gold]


@pytest.fixture
def gold() -> list[Line]:
    rng = random.Random(0)
    return [line(d, n, rng.choice(LABELS), None) for d in range(40) for n in range(rng.randint(1, 6))]


def test_figures_and_differences_are_those_of_each_run_measured_alone(gold: list[Line], tmp_path: Path) -> None:
    rng = random.Random(1)
    weak = [write(tmp_path / f"weak{i}", guessed(rng, gold, 0.5)) for i in range(2)]
    strong = [write(tmp_path / f"strong{i}", rng.sample(each := guessed(rng, gold, 0.8), len(each))) for i in range(3)]
    first, second = compare({"weak": weak, "strong": strong}, "weak", draws=500)
    for row, paths in ((first, weak), (second, strong)):
        alone = [score_file(path / "predictions.jsonl") for path in paths]
        for name, values in row.figures.items():
            assert values == tuple(getattr(metrics, name) for metrics in alone)
    assert first.difference is None and second.difference is not None
    gain = np.mean(second.figures["f1"]) - np.mean(first.figures["f1"])
    assert second.difference.f1 == pytest.approx(gain)
    assert second.difference.low < gain < second.difference.high
    assert second.difference.p < 0.01


def test_the_interval_is_that_of_documents_drawn_one_by_one(gold: list[Line], tmp_path: Path) -> None:
    rng = random.Random(2)
    one, other = guessed(rng, gold, 0.6), guessed(rng, gold, 0.65)
    paths = {"one": [write(tmp_path / "one", one)], "other": [write(tmp_path / "other", other)]}
    found = compare(paths, "one", draws=4000)[1].difference
    assert found is not None
    documents = sorted({each["document"] for each in gold})

    def f1(lines: list[Line], drawn: list[str]) -> float:
        chosen = [each for name in drawn for each in lines if each["document"] == name]
        right = sum(each["gold"] == each["predicted"] != "none" for each in chosen)
        said = sum(each["predicted"] not in (None, "none") for each in chosen)
        return 2 * right / (said + sum(each["gold"] != "none" for each in chosen))

    draws = [rng.choices(documents, k=len(documents)) for _ in range(1500)]
    differences = np.array([f1(other, drawn) - f1(one, drawn) for drawn in draws])
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(differences, (0.025, 0.975))), abs=0.015)
    assert found.p == pytest.approx(2 * min((differences <= 0).mean(), (differences >= 0).mean()), abs=0.05)


@settings(max_examples=20, deadline=None)
@given(right=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_system_differs_from_itself_by_nothing(tmp_path_factory: pytest.TempPathFactory, right: float, seed: int) -> None:
    rng = random.Random(seed)
    lines = guessed(rng, [line(d, 0, rng.choice(LABELS), None) for d in range(5)], right)
    path = write(tmp_path_factory.mktemp("run"), lines)
    found = compare({"it": [path], "again": [path]}, "it", draws=50)[1].difference
    assert found is not None and (found.f1, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_the_table_is_markdown_in_percent(gold: list[Line], tmp_path: Path) -> None:
    lines = [{**each, "predicted": each["gold"]} for each in gold]
    paths = {"a | b": [write(tmp_path / "x", lines)] * 2, "c": [write(tmp_path / "y", guessed(random.Random(3), gold, 0.3))]}
    head, _, best, worse = markdown(compare(paths, "a | b", draws=200), "a | b").splitlines()
    assert head.startswith("| system | runs | Acc | P | R | F1 | macro-F1 |")
    assert best.startswith("| a \\| b | 2 | 100.0 ± 0.0 | 100.0 ± 0.0 |") and best.endswith("|  |  |")
    assert re.fullmatch(r"\| c \| 1 \|( \d+\.\d \|){5} -\d+\.\d \(-\d+\.\d to -\d+\.\d\) \| 0\.0050 \|", worse)


def test_the_command_takes_runs_by_pattern(
    gold: list[Line], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        write(tmp_path / f"run-{number}", guessed(random.Random(number), gold, 0.6))
    write(tmp_path / "other", guessed(random.Random(5), gold, 0.4))
    assert run(monkeypatch, "compare", f"it={tmp_path}/run-*", f"other={tmp_path}/other", "--markdown") == 0
    _, _, first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("| it | 2 |") and second.startswith("| other | 1 |")
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "compare", "it=run-*", "other=other", "--against", "other") == 0
    assert "Δ F1: less that of other" in capsys.readouterr().out
    for wrong, words in (("it", "write NAME=RUN"), ("it=nothing*", "no such runs")):
        assert run(monkeypatch, "compare", wrong) == 1
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gold": "none"}, "other: ('d0', 'o0', (0, 1)) is not in all runs with one gold label"),
        ({"object": "o9"}, "other: ('d0', 'o0', (0, 1)) is not in all runs"),
        ({"document": "d1", "object": "o0"}, "predictions.jsonl:2: a second prediction on ('d1', 'o0', (0, 1))"),
        ({"gold": None}, "predictions.jsonl:1: gold is no label"),
        ({"span": 3}, "predictions.jsonl:1: no prediction"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path, change: Line, words: str) -> None:
    lines = [line(d, 0, LABELS[1], LABELS[1]) for d in range(2)]
    systems = {"it": [write(tmp_path / "it", lines)], "other": [write(tmp_path / "other", [{**lines[0], **change}, lines[1]])]}
    with pytest.raises(PredictionError, match=re.escape(words)):
        compare(systems, "it")


def test_an_unknown_system_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match="no such system; there are it"):
        compare({"it": [tmp_path]}, "that")
    with pytest.raises(PredictionError, match="no predictions"):
        compare({"it": [write(tmp_path, [])]}, "it")
    with pytest.raises(PredictionError, match="cannot be read"):
        compare({"it": [tmp_path / "nowhere"]}, "it")
