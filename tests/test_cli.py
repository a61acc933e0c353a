"""The command line as a user has it: what it prints, what it writes, how it fails."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib import resources
from pathlib import Path
from random import Random

import pytest
import yaml
from command import run
from halves import Halfway

from more_r1.cli.app import console
from more_r1.formats import load_documents
from more_r1.schema import Schema


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_synth_twice_gives_the_same_bytes_and_checks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        assert run(monkeypatch, "data", "synth", tmp_path / name, "--documents", 12, "--seed", 4) == 0
    assert run(monkeypatch, "data", "synth", tmp_path / "other", "--documents", 12, "--seed", 5) == 0
    one, two, other = (digest(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert one != other
    capsys.readouterr()
    assert run(monkeypatch, "data", "check", tmp_path / "one", "--strict") == 0
    assert "No faults" in capsys.readouterr().out


def test_check_names_a_fault_and_strict_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    assert run(monkeypatch, "data", "synth", folder, "--documents", 12) == 0
    file = folder / "txt" / "test.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([lines[0].replace("'relation': '", "'relation': '/per/org/nonsense"), *lines[1:]]) + "\n")
    capsys.readouterr()
    assert run(monkeypatch, "data", "check", folder) == 0
    assert run(monkeypatch, "data", "check", folder, "--strict") == 1
    assert "nonsense" in capsys.readouterr().out


def test_synth_does_not_write_over_what_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert run(monkeypatch, "data", "synth", tmp_path) == 1
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_convert_there_and_back(monkeypatch: pytest.MonkeyPatch, benchmark_dir: Path, tmp_path: Path) -> None:
    lines, rows, more = tmp_path / "a.jsonl", tmp_path / "b.parquet", tmp_path / "c"
    assert run(monkeypatch, "data", "convert", benchmark_dir, lines, "--split", "test") == 0
    assert run(monkeypatch, "data", "convert", lines, rows) == 0
    assert run(monkeypatch, "data", "convert", rows, more, "--split", "test") == 0
    before, after = load_documents(benchmark_dir, "test"), load_documents(more, "test")
    assert [d.model_copy(update={"image": b""}) for d in before] == [d.model_copy(update={"image": b""}) for d in after]
    for one, two in zip(before, after, strict=True):
        assert one.open_image().tobytes() == two.open_image().tobytes()


def test_score_is_the_benchmarks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random, labels = Random(0), Schema.more().labels
    pairs = [(random.choice(labels), random.choice(labels)) for _ in range(500)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({"gold": gold, "predicted": answer}) + "\n" for gold, answer in pairs))
    assert run(monkeypatch, "score", file, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    right = sum(gold == answer != "none" for gold, answer in pairs)
    precision, recall = right / sum(a != "none" for _, a in pairs), right / sum(g != "none" for g, _ in pairs)
    assert found["accuracy"] == sum(gold == answer for gold, answer in pairs) / 500
    assert found["f1"] == pytest.approx(2 * precision * recall / (precision + recall), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("score", "{}/no.jsonl"), "no.jsonl"),
        (("data", "check", "{}"), "txt"),
        (("extract", "{}/no.png", "--text", "Maya wins", "--object", "0.5,0.5,1,1", "--entity", "Maya"), "no such image"),
        (("extract", "{}/no.png", "--text", "Maya", "--object", "0.5,0.5,1,1", "--entity", "Leo"), "'Leo' is not in the text"),
        (("extract", "{}/no.png", "--text", "Maya wins", "--object", "0.5,0.5,3,1", "--entity", "Maya"), "outside the image"),
        (("extract", "{}/no.png", "--text", "Maya wins", "--object", "left", "--entity", "Maya"), "cx,cy,w,h"),
        (("evaluate", "--data", "{}/no.jsonl"), "no such file"),
        (("sft", "{}/no.yaml"), "no.yaml"),
        (("grpo", "recipes/tiny-grpo.yaml", "mixng.preset=raw"), "unknown key mixng; did you mean mixing?"),
        (("grpo", "recipes/tiny-grpo.yaml", "mixing.preset=sorted"), "mixing.preset"),
        (("grpo", "recipes/tiny-grpo.yaml", "model=tiny", "out={}/run", "data={}/none"), "none"),
        (("report", "{}/no"), "no such folder"),
        (("train", "recipes/tiny-sft.yaml"), "is a recipe of `more-r1 sft`"),
        (("sft", "recipes/tiny.yaml", "seed=1"), "is a recipe of `more-r1 train`"),
        (("annotate", "recipes/tiny-grpo.yaml"), "is a recipe of `more-r1 grpo`"),
        (("grpo", "recipes/plan-7b.yaml"), "is a recipe of `more-r1 plan`"),
        (("plan", "recipes/tiny-difficulty.yaml"), "is a recipe of `more-r1 difficulty`"),
    ],
)
def test_a_mistake_costs_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    assert run(monkeypatch, *(argument.format(tmp_path) for argument in arguments)) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_extract_and_evaluate_with_any_model_folder(
    monkeypatch: pytest.MonkeyPatch,
    benchmark_dir: Path,
    random_tiny_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture = next((benchmark_dir / "img_org" / "test").iterdir())
    given = ["--text", "Maya wins", "--object", "0.5,0.5,0.4,0.4", "--entity", "Maya"]
    asked = ["extract", picture, *given, "--model", random_tiny_dir]
    assert run(monkeypatch, *asked, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["entity"], record["box"], record["gold"]) == ("0-1", [0.5, 0.5, 0.4, 0.4], None)
    assert run(monkeypatch, *asked) == 0
    assert f"=> {record['predicted']}" in capsys.readouterr().out
    out = tmp_path / "out"
    options = ["--split", "test", "--limit", 2, "--max-new-tokens", 4]
    assert run(monkeypatch, "evaluate", "--data", benchmark_dir, "--model", random_tiny_dir, "--out", out, *options) == 0
    assert json.loads((out / "metrics.json").read_text())["broken"] == 1.0
    assert run(monkeypatch, "report", out) == 0
    assert (out / "report.html").stat().st_size > 10_000


def test_confidence_from_calibration_to_the_page(
    monkeypatch: pytest.MonkeyPatch, benchmark_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, own, out = tmp_path / "model", tmp_path / "own.yaml", tmp_path / "out"
    with resources.as_file(resources.files("more_r1") / "assets" / "tiny") as shipped:
        shutil.copytree(shipped, model)
    own.write_text("relations: {/per/org/a: {meaning: x, at_most_one: true}, /loc/loc/contain: y}")
    common = ["--model", model, "--limit", 1, "--data", benchmark_dir]
    assert run(monkeypatch, "calibrate", *common) == 0
    assert f"{model / 'calibration.json'}: temperature " in capsys.readouterr().out
    asked = ["extract", "--documents", benchmark_dir, "--split", "test", *common[:4], "--schema", own]
    assert run(monkeypatch, *asked, "--types", "--joint", "--samples", 1, "--confidence", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(0 < line["confidence"] <= 1 and line["agreement"] in (0, 1) and len(line["scores"]) == 3 for line in lines)
    assert run(monkeypatch, *asked, "--min-confidence", 1) == 0
    assert "=> withheld   (confidence " in capsys.readouterr().out
    assert run(monkeypatch, "evaluate", *common, "--split", "test", "--out", out, "--confidence", "--joint") == 0
    temperature = json.loads((model / "calibration.json").read_text())["temperature"]
    assert json.loads((out / "metrics.json").read_text())["confidence"]["temperature"] == temperature
    assert run(monkeypatch, "report", out) == 0
    assert "<h2>Confidence</h2>" in (out / "report.html").read_text()
    (model / "calibration.json").write_text("{}")
    assert run(monkeypatch, *asked) == 1
    assert "calibration.json: not a calibration" in capsys.readouterr().err


def test_a_picture_alone_is_read_with_the_text_beside_it(
    monkeypatch: pytest.MonkeyPatch, benchmark_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = load_documents(benchmark_dir, "test")[0]
    photo = tmp_path / "photo.png"
    assert isinstance(document.image, Path)
    photo.write_bytes(document.image.read_bytes())
    assert run(monkeypatch, "extract", photo) == 1
    assert "photo.png: a picture without its text; give it as --text" in capsys.readouterr().err
    photo.with_suffix(".txt").write_text(" ".join(document.tokens))
    assert run(monkeypatch, "extract", photo, "--json") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records and all(one["document"] == "photo.png" and one["tokens"] == list(document.tokens) for one in records)
    assert run(monkeypatch, "extract", photo, "--entity", "Maya") == 2
    assert "give its --text, too" in " ".join(capsys.readouterr().err.replace("│", "").split())


def test_grpo_of_a_recipe(
    monkeypatch: pytest.MonkeyPatch, halfway: Halfway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(halfway.grpo(tmp_path / "run").model_dump(mode="json")))
    assert run(monkeypatch, "grpo", recipe, "epochs=1", "batch_pairs=9", "mixing.preset=hard_only") == 0
    printed = capsys.readouterr().out
    assert "13 easy and 5 hard pairs; 1 steps" in printed
    assert f"{tmp_path / 'run' / 'best'}: 1 steps, best at step " in printed
    assert (tmp_path / "run" / "best" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("base", ("stages.documents", "must be given")),
        ("annotate", ("expert.key_env", "The environment variable that holds the key", "see more-r1 sft --fields")),
        ("sft", ("lora.rank", "schema", "cosine, constant.", "pip install 'more-r1[track]'")),
        ("difficulty", ("sampling.top_p", "A pair is easy if at least this share of its answers is right")),
        ("grpo", ("mixing.alpha", "Largest norm of the gradient.", "[0.9, 0.999]")),
        ("train", ("plan.devices.count", "see more-r1 grpo --fields")),
        ("plan", ("shape.vision.depth", "ddp, fsdp2, zero2, zero3.")),
    ],
)
def test_the_fields_of_recipes_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(console, "_width", 400)  # as wide as it takes to have each text on one line
    assert run(monkeypatch, verb, "--fields") == 0
    listed = capsys.readouterr().out
    for word in words:
        assert word in listed
