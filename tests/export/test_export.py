"""Exports as their trainers' documentation and readers have them: pictures in place, labels kept, nothing lost or unsafe."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
import torch
from annotated import FORM, IMAGE, drawn, files_of, oracle_run, record, write_run
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from more_r1.cli import main
from more_r1.document import Box, Document, Entity, Object, Pair, Span
from more_r1.export.export import export_run
from more_r1.export.files import Lines, write_parquet
from more_r1.export.forms import COLUMNS, TRAINERS, Item, Trainer, harmless, row
from more_r1.export.pictures import png, shown
from more_r1.formats.more import write_more
from more_r1.models.load import Backbone
from more_r1.models.manner import ModelError, read_form
from more_r1.reasoning.prompt import Picture, PromptForm
from more_r1.reasoning.trace import Trace
from more_r1.schema import Schema
from more_r1.training.recipe import RecipeError
from more_r1.training.samples import Sample

STEPS = ("seen", "said", "who", "a (per) and an (org)", "none", "so")
Run = tuple[Path, list[tuple[Sample, str]], list[Sample]]


@pytest.fixture(scope="module")
def run(benchmark_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return oracle_run(tmp_path_factory.mktemp("annotate") / "run", benchmark_dir)


@dataclass(frozen=True)
class Row:
    """A row as its trainer understands it: the question with IMAGE for each picture, the answer to learn, the gold label."""

    question: str
    images: list[Image.Image]
    answer: str | None
    label: str | None


# Each reader below restates the checks of the trainer's own, named in more_r1/export/forms.py.


def read_trl(out: Path, name: str, cache: Path) -> list[Row]:
    rows = []
    for line in load_dataset(str(out), name, split="train", cache_dir=str(cache)):
        (message,), completion = line["prompt"], line.get("completion")
        texts = [IMAGE if part["type"] == "image" else part["text"] for part in message["content"]]
        assert message["role"] == "user" and all(
            (part["text"] is None) == (part["type"] == "image") for part in message["content"]
        )
        answer = None
        if completion is not None:
            assert completion[0]["role"] == "assistant"
            (answer,) = (part["text"] for part in completion[0]["content"])
        rows.append(Row("".join(texts), line["images"], answer, line["label"]))
    return rows


def read_llamafactory(out: Path, name: str, cache: Path) -> list[Row]:
    info = json.loads((out / "dataset_info.json").read_text())[f"more_r1_{name}"]
    assert info["formatting"] == "sharegpt" and set(info) == {"file_name", "formatting", "columns", "tags"}
    tags, columns, rows = info["tags"], info["columns"], []
    for text in (out / info["file_name"]).read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        messages = line[columns["messages"]]
        assert [message[tags["role_tag"]] for message in messages] == [tags["user_tag"], tags["assistant_tag"]]
        question, answer = (message[tags["content_tag"]] for message in messages)
        # mm_plugin counts placeholders in all turns; media_dir is dataset_dir by default.
        assert (question + answer).count(IMAGE) == len(line[columns["images"]]) and "<video>" not in question + answer
        rows.append(Row(question, open_all(out, line[columns["images"]]), answer, line["label"]))
        if name == "rl":
            assert answer == f"<answer>{line['label']}</answer>"
    return rows


def read_swift(out: Path, name: str, cache: Path) -> list[Row]:
    rows = []
    for text in (out / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        # Keys of the standard format that would mean something else: check_messages and the docs' table of tasks.
        assert not {"label", "objects", "tools", "rejected_response", "videos", "audios", "system"} & set(line)
        roles = [message["role"] for message in line["messages"]]
        assert roles == (["user", "assistant"] if name == "sft" else ["user"])
        assert all(message["content"] and set(message) == {"role", "content"} for message in line["messages"])
        for path in line["images"]:
            assert len(path) <= 200 and path == path.strip() and not path.startswith(("http", "data:", "/"))
        answer = line["messages"][1]["content"] if name == "sft" else None
        rows.append(Row(line["messages"][0]["content"], open_all(out, line["images"]), answer, line.get("solution")))
    return rows


def read_verl(out: Path, name: str, cache: Path) -> list[Row]:
    if name == "sft":
        rows = []
        for _, line in pandas.read_parquet(out / "sft.parquet", dtype_backend="pyarrow").iterrows():
            question, answer = line["messages"]
            assert (question["role"], answer["role"]) == ("user", "assistant")
            assert len(re.findall("<image>|<video>", question["content"] + answer["content"])) == len(line["images"])
            images = [Image.open(io.BytesIO(image["bytes"])) for image in line["images"]]
            rows.append(Row(question["content"], images, answer["content"], line["label"]))
        return rows
    found = load_dataset("parquet", data_files=str(out / "rl.parquet"), cache_dir=str(cache))["train"]
    for index, line in enumerate(found):
        assert line["data_source"] == "more_r1" and line["reward_model"]["style"] == "rule" and line["ability"]
        assert line["extra_info"]["index"] == index and line["extra_info"]["split"] == "train"
        assert [message["role"] for message in line["prompt"]] == ["user"]
        parts = re.split("(<image>|<video>|<audio>)", line["prompt"][0]["content"])
        assert sum(part in ("<image>", "<video>", "<audio>") for part in parts) == len(line["images"])
    return [Row(line["prompt"][0]["content"], line["images"], None, line["reward_model"]["ground_truth"]) for line in found]


READERS: dict[Trainer, Callable[[Path, str, Path], list[Row]]] = {
    "trl": read_trl,
    "llamafactory": read_llamafactory,
    "ms-swift": read_swift,
    "verl": read_verl,
}


def open_all(out: Path, paths: list[str]) -> list[Image.Image]:
    return [Image.open(out / path) for path in paths]


def same(rows: list[Row], wanted: Iterable[tuple[Sample, str | None]], form: PromptForm = FORM) -> None:
    """Every row asks what our own prompt asks, with the same pictures in the same places."""
    for found, (sample, completion) in zip(rows, wanted, strict=True):
        prompt = sample.prompt(Schema.more(), form)
        parts = [IMAGE if isinstance(part, Picture) else part for segment in prompt.segments for part in segment]
        assert found.question == "".join(parts) and found.question.count(IMAGE) == len(found.images) == 2
        for image, picture in zip(found.images, prompt.pictures, strict=True):
            assert image.format == "PNG" and image.mode == "RGB" and image.size == shown(picture).size
            assert image.tobytes() == shown(picture).tobytes()
        assert completion is None or found.answer == completion


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize(
    "form", [FORM, PromptForm(order="paper", coordinates=True, whole_pixels=7000)], ids=["shared", "paper"]
)
def test_a_round_trip_loses_nothing(run: Run, tmp_path: Path, trainer: Trainer, form: PromptForm) -> None:
    folder, accepted, rest = run
    told: list[tuple[int, int]] = []
    exported = export_run(folder, trainer, tmp_path / "out", form, lambda done, total: told.append((done, total)))
    assert (exported.sft, exported.rl) == (len(accepted), len(rest)) and exported.sft > 5
    assert told == [(done, len(accepted) + len(rest)) for done in range(1, len(told) + 1)] and told[-1][0] == told[-1][1]
    read = READERS[trainer]
    sft, rl = read(tmp_path / "out", "sft", tmp_path / "cache"), read(tmp_path / "out", "rl", tmp_path / "cache")
    same(sft, accepted, form)
    same(rl, [(sample, None) for sample in rest], form)
    assert [found.label for found in rl] == [sample.label for sample in rest]
    if trainer != "ms-swift":  # whose column `label` means something else
        assert [found.label for found in sft] == [sample.label for sample, _ in accepted]
    assert read_form_of(tmp_path / "out") == form
    sides = {"trl": "README.md", "llamafactory": "dataset_info.json"}
    kind = "parquet" if trainer in ("trl", "verl") else "jsonl"
    expected = {f"sft.{kind}", f"rl.{kind}", "more_r1.json"} | {name for key, name in sides.items() if key == trainer}
    assert {name for name in files_of(tmp_path / "out") if not name.startswith("images/")} == expected


def read_form_of(out: Path) -> PromptForm:
    return PromptForm.model_validate_json((out / "more_r1.json").read_text())


def test_each_picture_is_written_once_and_none_is_left_over(run: Run, tmp_path: Path) -> None:
    folder, accepted, rest = run
    export_run(folder, "ms-swift", tmp_path / "out", FORM)
    samples = [*(sample for sample, _ in accepted), *rest]
    pixels = {(shown(p).size, shown(p).tobytes()) for one in samples for p in one.prompt(Schema.more(), FORM).pictures}
    lines = [json.loads(line) for name in ("sft", "rl") for line in (tmp_path / "out" / f"{name}.jsonl").open()]
    named = {path for line in lines for path in line["images"]}
    assert {name for name in files_of(tmp_path / "out") if name.startswith("images/")} == named
    assert len(named) == len(pixels) < len(lines) * 2 * 0.7


def test_two_exports_are_the_same_bytes(run: Run, tmp_path: Path) -> None:
    for trainer in ("trl", "llamafactory"):
        one, two = tmp_path / f"{trainer}-1", tmp_path / f"{trainer}-2"
        for out in (one, two):
            export_run(run[0], trainer, out, FORM)  # type: ignore[arg-type]
        assert files_of(one) == files_of(two)
        assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files_of(one))


def noise(document: str = "d", pairs: int = 8, label: str = "none", side: int = 112, seed: int = 0) -> list[Sample]:
    """Pairs of one document, whose picture no code makes smaller."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(buffer, "PNG")
    objects = [Object(id=f"o{index}", box=Box(cx=0.5, cy=0.5, w=1, h=(index + 4) / (pairs + 4))) for index in range(pairs)]
    entity = Entity(id="e", span=Span(start=0, end=1))
    known = tuple(Pair(object=object.id, entity="e", label=label) for object in objects)
    whole = Document(
        id=document, image=buffer.getvalue(), tokens=("Maya", "wins"), objects=tuple(objects), entities=(entity,), pairs=known
    )
    return [Sample(whole, pair, label) for pair in known]


def items(samples: Iterable[Sample], form: PromptForm = FORM, completion: str | None = None) -> list[Item]:
    return [Item(index, one, one.prompt(Schema.more(), form), completion) for index, one in enumerate(samples)]


def test_pairs_of_a_document_share_its_picture_inside_parquet(tmp_path: Path) -> None:
    """A whole picture that were stored with each of its pairs would make the file several times as large."""
    asked = items(noise(pairs=40, side=700), FORM.model_copy(update={"whole_pixels": 700 * 700}))
    write_parquet(tmp_path / "a.parquet", COLUMNS["trl", False], ((row("trl", one), one.prompt.pictures) for one in asked))
    once = {picture: len(png(picture)[1]) for one in asked for picture in one.prompt.pictures}
    assert sum(once.values()) < (tmp_path / "a.parquet").stat().st_size < 1.2 * sum(once.values()) + 20_000
    assert sum(len(png(picture)[1]) for one in asked for picture in one.prompt.pictures) > 3 * sum(once.values())
    images = pq.read_table(tmp_path / "a.parquet")["images"].to_pylist()
    assert [image["bytes"] for row in images for image in row] == [png(p)[1] for one in asked for p in one.prompt.pictures]


def test_pictures_are_not_held(run: Run, tmp_path: Path) -> None:
    def alive() -> int:
        return sum(issubclass(type(thing), Image.Image) for thing in gc.get_objects())

    gc.collect()
    before, most = alive(), 0

    def look(done: int, total: int) -> None:
        nonlocal most
        if done % 50 == 0:  # it takes a while
            most = max(most, alive() - before)

    for trainer in ("trl", "ms-swift"):
        export_run(run[0], trainer, tmp_path / trainer, FORM, look)  # type: ignore[arg-type]
    assert most <= 4


def test_encoded_pictures_are_not_held(tmp_path: Path) -> None:
    """80 pictures of 37 kB: only the last few are kept, for the pairs that share them."""
    asked = [one for number in range(80) for one in items(noise(f"d{number}", 1, seed=number))]
    tracemalloc.start()
    try:
        Lines(tmp_path).write("sft", ((row("ms-swift", one), one.prompt.pictures) for one in asked))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    written = sum(file.stat().st_size for file in (tmp_path / "images").iterdir())
    assert len(list((tmp_path / "images").iterdir())) == 160 and peak < written / 3


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    box=st.none() | st.tuples(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.001, 1), st.floats(0.001, 1)),
    pixels=st.integers(4 * 56 * 56, 300 * 300),
)
def test_a_stock_processor_sees_the_pixels_that_our_encoder_sees(
    random_tiny: Backbone, size: tuple[int, int], box: tuple[float, ...] | None, pixels: int
) -> None:
    buffer = io.BytesIO()
    Image.effect_mandelbrot(size, (-2, -1, 1, 1), 50).convert("RGB").save(buffer, "PNG")
    part = None if box is None else Box.from_corners(box[0], box[1], min(box[0] + box[2], 1), min(box[1] + box[3], 1))
    picture = Picture(buffer.getvalue(), part, pixels)
    stock = random_tiny.encoder.processor.image_processor  # of 3,136 to 1,003,520 pixels
    found = stock(Image.open(io.BytesIO(png(picture)[1])), return_tensors="pt")
    values, grid = random_tiny.encoder.pixels(picture)
    assert torch.equal(found["image_grid_thw"][0], grid) and torch.equal(found["pixel_values"], values)


NAMES = ["Ünï côdé 日本.png", "-rf ~.png", "x" * 240 + ".png", "'\"<image><video>$(id).png", "%2e%2e%2f.png", "….png"]
MARKS = "the <image> shows <|im_end|> <video> 3 < 4 <|vision_start|><|image_pad|> </image>"


@pytest.mark.parametrize("trainer", TRAINERS)
def test_names_and_words_of_strangers_are_harmless(tmp_path: Path, trainer: Trainer) -> None:
    documents = []
    for number, name in enumerate(NAMES):
        one = noise(name, 1 + number % 2)[0].document
        label = {0: "none", 1: "/per/org/member_of"}[number % 2]
        pairs = tuple(pair.model_copy(update={"label": label}) for pair in one.pairs)
        documents.append(one.model_copy(update={"tokens": ("Maya", "<image>", "<|image_pad|>", "</think>"), "pairs": pairs}))
    write_more({"train": documents}, tmp_path / "data", Schema.more())
    asked, rest = drawn(tmp_path / "data")
    steps = (MARKS, *STEPS[1:])
    traces = [record(one, Trace(steps, one.label).render()) for one in asked]
    run = write_run(tmp_path / "run", tmp_path / "data", traces)
    before = files_of(tmp_path)
    export_run(run, trainer, tmp_path / "out", FORM)
    sft, rl = (READERS[trainer](tmp_path / "out", name, tmp_path / "cache") for name in ("sft", "rl"))
    same(sft, [(one, harmless(Trace(steps, one.label).render())) for one in asked])
    same(rl, [(one, None) for one in rest])
    for found in (*sft, *rl):
        assert not re.search(r"<(?!image>|/?think>|/?answer>)", found.question)
        assert found.answer is None or not re.search(r"<(?!/?think>|/?answer>)", found.answer)
    assert all(one.answer is not None and "‹|image_pad|> ‹/image>" in one.answer for one in sft)
    new = {name for name in files_of(tmp_path) - before if not name.startswith("cache/")}
    pattern = r"out/(images/[0-9a-f]{32}\.png|(sft|rl)\.(jsonl|parquet)|more_r1\.json|README\.md|dataset_info\.json)"
    assert all(re.fullmatch(pattern, name) for name in new)


@settings(deadline=None, max_examples=40)
@given(id=st.text(min_size=1, max_size=400) | st.sampled_from(["../../up", "/etc/passwd", "a\0b", "CON", ".", "\ud800"]))
def test_no_id_of_a_document_reaches_a_path(tmp_path_factory: pytest.TempPathFactory, id: str) -> None:
    folder = tmp_path_factory.mktemp("ids") / "out"
    folder.mkdir()
    one = items(noise(id.encode("utf-8", "replace").decode(), 1))[0]
    Lines(folder).write("sft", [(row("ms-swift", one), one.prompt.pictures)])
    line = json.loads((folder / "sft.jsonl").read_text(encoding="utf-8"))
    assert line["document"] == one.sample.document.id
    assert files_of(folder.parent) == {"out/sft.jsonl", *(f"out/{path}" for path in line["images"])}
    assert all(re.fullmatch(r"images/[0-9a-f]{32}\.png", path) for path in line["images"])


@given(st.text(alphabet=st.sampled_from("<>/|‹ thinkanswerimage_"), max_size=60))
def test_a_completion_keeps_its_tags_and_all_words(text: str) -> None:
    found = harmless(text)
    assert found.replace("‹", "<") == text.replace("‹", "<")
    assert [found.count(tag) for tag in ("<think>", "</think>", "<answer>", "</answer>")] == [
        text.count(tag) for tag in ("<think>", "</think>", "<answer>", "</answer>")
    ]
    assert not re.search(r"<(?!/?think>|/?answer>)", found)


KILLED = """
import os, signal, sys
from pathlib import Path
from more_r1.export.export import export_run
def stop(done, total):
    if done == 9:
        os.kill(os.getpid(), signal.SIGKILL)
export_run(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), progress=stop)
"""


def test_a_killed_export_leaves_nothing_that_reads_as_complete(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "exports" / "out"
    command = [sys.executable, "-c", KILLED, run[0], "ms-swift", out]
    killed = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = list(out.parent.iterdir())
    assert len(left) == 1 and left[0].name.startswith(".out-") and not out.exists()
    export_run(run[0], "ms-swift", out, FORM)
    assert len(read_swift(out, "rl", tmp_path)) == len(run[2])


def test_a_failed_export_leaves_nothing(run: Run, tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for trainer in TRAINERS:
        with pytest.raises(KeyboardInterrupt):
            export_run(run[0], trainer, tmp_path / "out", FORM, fail)
        assert list(tmp_path.iterdir()) == []


def test_all_pairs_drawn_leave_none_for_rl(benchmark_dir: Path, run: Run, tmp_path: Path) -> None:
    lines = [record(sample, text) for sample, text in run[1]]
    everything = write_run(tmp_path / "run", benchmark_dir, lines, share=1.0)
    for trainer in TRAINERS:
        assert export_run(everything, trainer, tmp_path / trainer, FORM).rl == 0
        assert not any("rl" in name for name in files_of(tmp_path / trainer))
    assert (
        "rl" not in (tmp_path / "trl" / "README.md").read_text() + (tmp_path / "llamafactory" / "dataset_info.json").read_text()
    )
    assert len(load_dataset(str(tmp_path / "trl"), "sft", split="train", cache_dir=str(tmp_path / "cache"))) == len(lines)


def broken(run: Path, name: str, text: str | None) -> None:
    (run / name).unlink()
    if text is not None:
        (run / name).write_text(text)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: broken(run, "traces.jsonl", None), r"traces\.jsonl: cannot be read .*more-r1 annotate"),
        (lambda run: broken(run, "traces.jsonl", ""), r"traces\.jsonl: no accepted trace"),
        (lambda run: broken(run, "traces.jsonl", "{}\n"), r"traces\.jsonl:1: .*malformed line"),
        (lambda run: broken(run, "recipe.yaml", None), r"recipe\.yaml: cannot be read"),
        (lambda run: broken(run, "recipe.yaml", "a: ["), r"recipe\.yaml: expected .*line 1, column 5"),
        (lambda run: broken(run, "recipe.yaml", "- 1"), r"recipe\.yaml: recipe: "),
        (lambda run: broken(run, "recipe.yaml", "data: gone\nshare: 0.25"), r"recipe\.yaml: draw_seed: field required"),
        (lambda run: broken(run, "recipe.yaml", "data: gone\nshare: 2\ndraw_seed: 0"), r"recipe\.yaml: share: "),
        (lambda run: broken(run, "recipe.yaml", "data: gone\nshare: 0.25\ndraw_seed: 0"), r"gone"),
        (lambda run: (run / "out").mkdir() or (run / "out" / "mine").touch(), r"out: is there already"),
        (lambda run: (run / "out").touch(), r"out: is there already"),
    ],
)
def test_a_mistake_is_named(benchmark_dir: Path, tmp_path: Path, break_it: Callable[[Path], object], message: str) -> None:
    run, _, _ = oracle_run(tmp_path / "run", benchmark_dir)
    break_it(run)
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        export_run(run, "ms-swift", run / "out", FORM)
    assert "\n" not in str(error.value) and type(error.value).__module__.startswith("more_r1")
    assert files_of(tmp_path) == before


def test_traces_of_other_data_are_refused(benchmark_dir: Path, run: Run, tmp_path: Path) -> None:
    (sample, text), *_ = run[1]
    for change in ({"img_id": "other.png"}, {"label": "/per/misc/party"}):
        strange = write_run(tmp_path / next(iter(change)), benchmark_dir, [record(sample, text, **change)])
        with pytest.raises(RecipeError, match=r"is not in .*; mend `data`"):
            export_run(strange, "trl", tmp_path / "out", FORM)


def test_a_model_folder_says_how_to_ask(random_tiny_dir: Path, tmp_path: Path) -> None:
    assert read_form(random_tiny_dir) == FORM
    assert read_form("tiny").wording == "short"
    with pytest.raises(ModelError, match="no model folder"):
        read_form(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert read_form(tmp_path) == PromptForm()
    (tmp_path / "more_r1.json").write_text('{"order": "odd"}')
    with pytest.raises(ModelError, match=r"more_r1\.json: not a prompt form"):
        read_form(tmp_path)


def test_a_model_that_answers_alone_has_no_use_for_traces(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="answers without reasoning"):
        export_run(run[0], "trl", tmp_path / "out", FORM.model_copy(update={"reasoning": "none"}))


def test_the_rewards_of_the_docs_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of docs/export.md as it stands there, called as the trainers' docs say."""
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    trl, swift, verl = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    compile(trl, "docs", "exec")  # it trains a model from the hub; its parts are in test_trl.py
    right, wrong = Trace(STEPS, "none").render(), Trace(STEPS, "/loc/loc/contain").render()
    scope: dict[str, Any] = {}
    exec(verl, scope)
    told = {"data_source": "more_r1", "ground_truth": "none", "extra_info": {"index": 0}}
    assert [scope["compute_score"](solution_str=one, **told) for one in (right, wrong, "")] == [2.0, 1.0, 0.0]
    module: Any = ModuleType("swift.rewards")
    module.ORM, module.orms = type("ORM", (), {}), {}
    monkeypatch.setitem(sys.modules, "swift", SimpleNamespace(rewards=module))
    monkeypatch.setitem(sys.modules, "swift.rewards", module)
    exec(swift, {})
    reward = module.orms["more_r1"]()
    assert reward([right, wrong], solution=["none", "none"], document=["a", "b"], images=[[], []]) == [2.0, 1.0]


def test_the_command(
    run: Run, random_tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["more-r1", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
            raise SystemExit(0)
        return int(exit.value.code or 0)

    out = tmp_path / "out"
    assert command(run[0], "--to", "verl", "--out", out, "--model", random_tiny_dir) == 0
    told = capsys.readouterr().out
    assert f"{out}: {len(run[1])} traces for SFT, {len(run[2])} pairs for RL" in told
    assert read_form_of(out) == FORM
    assert command(run[0], "--to", "verl", "--out", out) == 1
    error = capsys.readouterr().err
    assert "out: is there already" in error and error.count("\n") == 1
    assert command(run[0], "--to", "axolotl", "--out", tmp_path / "other") == 2
