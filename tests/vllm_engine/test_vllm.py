"""The tiny model behind vLLM against the same in this process; `make test-vllm` installs vLLM for CPUs and runs it.

Starting vLLM takes a quarter of a minute, so the tests share one engine, the one that is killed comes last.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from more_r1.document import Document, DocumentError
from more_r1.extraction import archive
from more_r1.extraction.extract import extract
from more_r1.formats import load_documents
from more_r1.models.engine import EngineError
from more_r1.models.generate import generate
from more_r1.models.labels import label_scores
from more_r1.models.load import Backbone, load_backbone, save_backbone
from more_r1.models.sampling import Sampling
from more_r1.models.vllm import engine as engines
from more_r1.models.vllm.engine import Vllm, load_vllm
from more_r1.reasoning.prompt import Prompt, PromptForm, build_prompt
from more_r1.reasoning.trace import parse_trace
from more_r1.schema import Relation, Schema

# Where it is missing, this folder is found under its name, with no file of its own.
_found = importlib.util.find_spec("vllm")
pytestmark = pytest.mark.skipif(_found is None or _found.origin is None, reason="vLLM is not installed; make test-vllm")

MORE = Schema.more()
ROOM = 300
# One label begins another.
OWN = Schema(
    relations=(Relation(label="/per/org/member", meaning="-"), Relation(label="/per/org/member_of_board", meaning="-"))
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Vllm]:
    started = load_vllm("tiny", block_size=32)
    yield started
    started.close()


@pytest.fixture(scope="module")
def local() -> Backbone:
    return load_backbone("tiny", device="cpu")


@pytest.fixture(scope="module")
def documents(benchmark_dir: Path) -> list[Document]:
    found = [document for split in ("train", "valid", "test") for document in load_documents(benchmark_dir, split)]
    assert sum(len(document.pairs) for document in found[:11]) >= 40
    return found[:11]


@pytest.fixture(scope="module")
def prompts(documents: list[Document], local: Backbone) -> list[Prompt]:
    return [build_prompt(document, pair, MORE, local.form) for document in documents for pair in document.pairs]


@pytest.fixture(scope="module")
def kept(prompts: list[Prompt], local: Backbone) -> list[str]:
    return generate(local, prompts, ROOM, keep_form=MORE)


def hits(engine: Vllm) -> tuple[int, int]:
    """Tokens of prompts so far, and how many of them were in the cache."""
    counted = {metric.name: metric.value for metric in engine.llm.get_metrics() if "prefix_cache" in metric.name}
    return counted["vllm:prefix_cache_queries"], counted["vllm:prefix_cache_hits"]


def test_free_answers_are_the_local_ones_and_documents_come_from_the_cache(
    engine: Vllm, local: Backbone, prompts: list[Prompt]
) -> None:
    told: list[int] = []
    before = hits(engine)
    answers = generate(engine, prompts, ROOM, told.append)
    asked, cached = (after - start for after, start in zip(hits(engine), before, strict=True))
    assert answers == generate(local, prompts, ROOM)
    assert told == [len(prompts)]
    print(f"\n{len(prompts)} pairs, {asked} tokens of prompts, {cached} of them cached: {cached / asked:.1%}")
    whole = sum(len(segment.ids) for prompt in prompts for segment in local.encoder.prompt(prompt))
    once = sum(len(segment.ids) for segment in {part for prompt in prompts for part in local.encoder.prompt(prompt)})
    assert asked == whole
    print(f"at most {1 - once / whole:.1%} could be, had the cache no blocks")
    assert cached / asked > 0.5 * (1 - once / whole)


def test_prompts_have_our_tokens(
    engine: Vllm, local: Backbone, documents: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = [
        PromptForm(order="paper", wording="full", whole_pixels=100_000, crop_pixels=20_000, coordinates=True),
        PromptForm(wording="short", reasoning="none", whole_pixels=56 * 56, crop_pixels=40_000),
    ]
    prompts = [build_prompt(one, pair, MORE, form) for form in forms for one in documents[:3] for pair in one.pairs]
    seen = []
    answering = engine.llm.generate

    def watched(*arguments: object, **more: object) -> object:
        outputs = answering(*arguments, **more)
        seen.extend(list(output.prompt_token_ids) for output in outputs)
        return outputs

    monkeypatch.setattr(engine.llm, "generate", watched)
    generate(engine, prompts, 2)
    ours = [[id for segment in local.encoder.prompt(prompt) for id in segment.ids] for prompt in prompts]
    assert seen == ours
    assert len({len(ids) for ids in ours}) > 2


def test_answers_in_the_form_are_the_local_ones(engine: Vllm, prompts: list[Prompt], kept: list[str]) -> None:
    answers = generate(engine, prompts, ROOM, keep_form=MORE)
    print(f"\n{sum(a == b for a, b in zip(answers, kept, strict=True))} of {len(kept)} equal")
    assert answers == kept


def test_types_restrict_labels_as_they_do_here(engine: Vllm, local: Backbone, prompts: list[Prompt]) -> None:
    few = prompts[:12]
    answers = generate(engine, few, ROOM, keep_form=MORE, types=True, sampling=Sampling(temperature=2), seeds=range(len(few)))
    traces = [parse_trace(answer, MORE) for answer in answers]
    named = [(trace.answer, MORE.candidates(*trace.types)) for trace in traces if trace.types]
    assert all(answer in allowed for answer, allowed in named)
    assert generate(engine, few, ROOM, keep_form=MORE, types=True) == generate(local, few, ROOM, keep_form=MORE, types=True)


def test_scores_of_labels_are_the_local_ones(engine: Vllm, local: Backbone, prompts: list[Prompt], kept: list[str]) -> None:
    broken = [*kept[:20], "no trace"]
    own = generate(local, prompts[:1], ROOM, keep_form=OWN)
    worst = 0.0
    for schema, asked, completions in ((MORE, [*prompts[:20], prompts[0]], broken), (OWN, prompts[:1], own)):
        ours, theirs = (label_scores(model, asked, completions, schema) for model in (local, engine))
        assert [row is None for row in theirs] == [row is None for row in ours]
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
        worst = max([worst, *(abs(x - y) for a, b in pairs for x, y in zip(a, b, strict=True))])
    print(f"\nscores of labels differ by {worst:.1e} at most")
    assert worst < 1e-3


def test_hot_and_short_of_room_every_answer_is_a_label(engine: Vllm, prompts: list[Prompt]) -> None:
    many = prompts * 3
    hot = Sampling(temperature=2)
    drawn = generate(engine, many, ROOM, keep_form=MORE, sampling=hot, seeds=range(len(many)))
    assert {parse_trace(text, MORE).answer for text in drawn} <= set(MORE.labels)
    # A draw depends on its seed.
    again = generate(engine, many[:6], ROOM, keep_form=MORE, sampling=hot, seeds=range(6))
    other = generate(engine, many[:6], ROOM, keep_form=MORE, sampling=hot, seeds=range(100, 106))
    print(f"\n{sum(a == b for a, b in zip(again, drawn[:6], strict=True))} of 6 draws the same again")
    assert again[0] == drawn[0] and not set(other) & set(again)
    short = generate(engine, prompts[:8], 100, keep_form=MORE)
    assert all(parse_trace(text, MORE) for text in short)
    tokens = [len(engine.encoder.tokenizer(text)["input_ids"]) for text in short]
    assert max(tokens) <= 100
    assert all(parse_trace(text, OWN) for text in generate(engine, prompts[:8], ROOM, keep_form=OWN))


def test_free_draws_end_with_their_answer(engine: Vllm, prompts: list[Prompt]) -> None:
    drawn = generate(engine, prompts[:6], ROOM, sampling=Sampling(temperature=0.5), seeds=range(6))
    ended = [text for text in drawn if "</answer>" in text]
    assert ended and all(text.endswith("</answer>") for text in ended)


def test_extract_takes_the_engine(engine: Vllm, local: Backbone, documents: list[Document]) -> None:
    few = documents[:3]
    ours, theirs = (
        list(extract(model, few, joint=True, samples=2, min_confidence=0.3, max_new_tokens=ROOM)) for model in (local, engine)
    )
    assert [one.predicted for one in theirs] == [one.predicted for one in ours]
    for mine, other in zip(ours, theirs, strict=True):
        assert other.confidence == pytest.approx(mine.confidence, abs=1e-3)
        assert other.agreement in (0, 0.5, 1, None)


def test_a_document_that_is_too_long_is_the_one_left_out(engine: Vllm, documents: list[Document]) -> None:
    first, second = documents[:2]
    long = second.model_copy(update={"tokens": second.tokens + ("word",) * 5000})
    with pytest.raises(DocumentError, match="4096 that vLLM was started"):
        list(extract(engine, [first, long]))
    worker = archive.Worker(lambda document: document, lambda few: extract(engine, few, max_new_tokens=ROOM))
    answers = worker([first, long])
    assert len(answers.predictions) == len(first.pairs)
    assert [fault.file for fault in answers.faults] == [long.id]


def test_folders_that_are_saved_are_read_by_the_stock_processor(local: Backbone, prompts: list[Prompt], tmp_path: Path) -> None:
    from transformers import Qwen2_5_VLProcessor

    save_backbone(local, tmp_path / "saved")
    processor = Qwen2_5_VLProcessor.from_pretrained(tmp_path / "saved")
    text = processor.apply_chat_template(prompts[0].messages(), tokenize=False, add_generation_prompt=True)
    features = processor(text=[text], images=[picture.load() for picture in prompts[0].pictures], do_resize=True)
    image = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert features["input_ids"][0].count(image) == sum(int(grid.prod()) // 4 for grid in features["image_grid_thw"])
    assert processor.video_processor.patch_size == local.encoder.processor.image_processor.patch_size


def test_what_does_not_start_costs_one_line() -> None:
    with pytest.raises(EngineError, match="tiny: vLLM does not start") as raised:
        load_vllm("tiny", max_model_len=10**9)
    assert "\n" not in str(raised.value)


def command(benchmark_dir: Path, out: Path) -> list[str]:
    source = ["extract", str(benchmark_dir), "--split", "train", "--limit", "8", "--engine", "vllm"]
    return [*source, "--out", str(out)]


def test_killed_runs_go_on(
    engine: Vllm, benchmark_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command is killed, then vLLM's own process; in the end each document is there once, as the local engine has it."""
    from more_r1 import cli

    out = tmp_path / "out.jsonl"
    parts = tmp_path / "out.jsonl.parts"
    run = "import more_r1.extraction.archive as a; a.PART = 2; from more_r1.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", run, *command(benchmark_dir, out)], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 900
    while not list(parts.glob("0*.jsonl")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = sorted(parts.glob("0*.jsonl"))
    assert 0 < len(done) < 4 and children and not out.exists()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive, "vLLM outlives the command that started it"

    # The same run goes on; vLLM dies when it has done one part more.
    monkeypatch.setattr(archive, "PART", 2)
    monkeypatch.setattr(engines, "load_vllm", lambda _: engine)
    real = archive.write_part

    def write(path: Path, answers: archive.Answers) -> None:
        real(path, answers)
        for child in psutil.Process(os.getpid()).children(recursive=True):
            if "EngineCore" in child.name() or "EngineCore" in " ".join(child.cmdline()):
                child.kill()

    monkeypatch.setattr(archive, "write_part", write)
    monkeypatch.setattr("sys.argv", ["more-r1", *command(benchmark_dir, out)])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    said = " ".join(capsys.readouterr().err.split())
    assert exit.value.code == 1 and "vLLM's engine has died" in said and "goes on where it was" in said
    assert len(sorted(parts.glob("0*.jsonl"))) == len(done) + 1

    monkeypatch.setattr(archive, "write_part", real)
    fresh = load_vllm("tiny")
    monkeypatch.setattr(engines, "load_vllm", lambda _: fresh)
    with pytest.raises(SystemExit) as exit:
        cli.main()
    fresh.close()
    assert not exit.value.code and not parts.exists()
    found = [json.loads(line) for line in out.read_text().splitlines()]
    wanted = [
        one.model_dump(mode="json")
        for one in extract(load_backbone("tiny", device="cpu"), load_documents(benchmark_dir, "train")[:8])
    ]
    assert [(one["document"], one["object"], one["span"], one["predicted"]) for one in found] == [
        (one["document"], one["object"], one["span"], one["predicted"]) for one in wanted
    ]
