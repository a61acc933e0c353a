"""A model that teaches itself, on a task where it can only guess: all pictures and headlines are the same."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from halves import WORDS, document
from pydantic import ValidationError

import more_r1.experts.self_taught as self_taught
from more_r1.document import Document
from more_r1.experts.annotate import AnnotateRecipe, run_annotate
from more_r1.experts.filter import Bounds, judge_trace
from more_r1.experts.self_taught import SelfTaught, show_gold, summary, teach, with_gold
from more_r1.formats.more import write_more
from more_r1.formats.traces import TraceRecord, read_completions, read_traces
from more_r1.models.load import Backbone, save_backbone
from more_r1.models.sampling import Rollout
from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import Picture, Prompt, PromptForm
from more_r1.reasoning.trace import Trace
from more_r1.schema import NONE, Schema
from more_r1.training import learner
from more_r1.training.recipe import RecipeError, load_recipe
from more_r1.training.samples import Sample, read_samples
from more_r1.training.sft import SftRecipe, run_sft

SCHEMA, BOUNDS = Schema.more(), Bounds(least=0)
FORM = PromptForm(wording="short", whole_pixels=56 * 56, crop_pixels=56 * 56)
DOCUMENTS, TRIES, CHUNK = 12, 2, 9
SHORT = {"batch_pairs": 6, "valid_pairs": 1, "validate_every": 99, "threads": 1}
TYPES = {"/org/loc/locate_at": ("org", "loc"), "/loc/loc/contain": ("loc", "loc"), NONE: ("loc", "misc")}


def trace(label: str) -> Trace:
    """A trace that the filter lets through, as short as can be."""
    object_type, entity_type = TYPES[label]
    listed = " ".join(SCHEMA.candidates(object_type, entity_type))
    return Trace(("White", "Ann", "It", f"({object_type}) ({entity_type})", listed, "So"), label)


def blind(number: int) -> Document:
    """A document of `halves` with a picture that is always the same: of which label its pairs are cannot be seen."""
    labels = [list(TYPES)[(2 * number + place) % 3] for place in range(2)]
    one = document(8)
    pairs = tuple(pair.model_copy(update={"label": label}) for pair, label in zip(one.pairs, labels, strict=True))
    return one.model_copy(update={"id": f"{number:04}.png", "pairs": pairs})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/, examples.jsonl with all pairs, and model/, which has learnt little but the form."""
    folder = tmp_path_factory.mktemp("self-taught")
    documents = [blind(number) for number in range(DOCUMENTS)]
    write_more({"train": documents, "valid": documents[:3]}, folder / "data", SCHEMA)
    words = [*WORDS, "White", "It", "So", "Answer", "(", ")", "org", "loc", "misc", *"123456:"]
    save_backbone(build_tiny(words, 0, FORM), folder / "random")
    lines = [
        {"img_id": one.key[0], "object": one.key[1], "span": one.key[2], "completion": trace(one.label).render()}
        for one in read_samples(folder / "data", "train")
    ]
    (folder / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    where = {"model": str(folder / "random"), "data": folder / "data", "out": folder / "sft", "share": 1.0}
    learning = {"traces": folder / "examples.jsonl", "epochs": 8, "lr": 3e-3, "max_new_tokens": 1}
    run_sft(SftRecipe.model_validate({**SHORT, **where, **learning}), also=with_gold)
    (folder / "sft" / "best").rename(folder / "model")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_taught, "CHUNK", CHUNK)
        yield


def settings(folder: Path, **changes: Any) -> SelfTaught:
    given = {"kind": "self_taught", "model": str(folder / "model"), "rounds": 2, "tries": TRIES, "max_new_tokens": 48}
    more = {"sampling": {"temperature": 0.5}, "sft": {**SHORT, "epochs": 2, "lr": 1e-3}}
    return SelfTaught.model_validate({**given, **more, **changes})


def samples(folder: Path) -> list[Sample]:
    return read_samples(folder / "data", "train")


def taught(folder: Path, out: Path, expert: SelfTaught | None = None) -> list[TraceRecord]:
    return teach(expert or settings(folder), samples(folder), folder / "data", 1.0, 0, BOUNDS, out)


def files(out: Path) -> dict[str, bytes]:
    """What must be the same of two runs."""
    names = ("traces.jsonl", "examples.jsonl", "model.safetensors", "result.json")
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*")) if file.name in names}


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """A run without interruption."""
    taught(folder, folder / "whole")
    return folder / "whole"


def test_every_call_is_recorded_and_judged(folder: Path, whole: Path) -> None:
    asked = {one.key: one for one in samples(folder)}
    for number in range(2):
        records = read_traces(whole / f"round-{number}" / "traces.jsonl")
        assert Counter(record.key for record in records if record.final) == Counter(list(asked))
        for record in records:
            verdict = judge_trace(record.completion, asked[record.key].label, (None, None), SCHEMA, BOUNDS)
            assert (record.verdict, record.reason, record.label) == (verdict.name, verdict.reason, asked[record.key].label)
            assert record.final == (verdict.accepted or record.attempt == 2 * TRIES)
        attempts = Counter(record.attempt for record in records)
        assert attempts[1] == len(asked)
        for attempt in range(2, 2 * TRIES + 1):
            rejected = [r for r in records if r.attempt == attempt - 1 and not r.accepted]
            assert attempts[attempt] == len(rejected)
    assert len({record.fingerprint for record in records}) == len(records)
    assert records == taught(folder, whole)


def test_the_gold_is_shown_to_whom_is_wrong_and_to_nobody_else(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that says `none` unless it is shown something better, and needs to be asked twice then."""
    asked: list[list[Prompt]] = []

    def scripted(_: Backbone, prompts: Sequence[Prompt], *__: Any) -> list[list[Rollout]]:
        asked.append(list(prompts))
        labels = [str(prompt.segments[-1][-1]).removeprefix("\nAnswer: ") for prompt in prompts]
        ready = len([call for call in asked if len(call[0].segments[-1]) == 3]) > 1
        traces = [trace(label if label in TYPES and ready else NONE) for label in labels]
        return [[Rollout(one.render(), (0,), (0.0,), True)] for one in traces]

    monkeypatch.setattr(self_taught, "sample", scripted)
    monkeypatch.setattr(self_taught, "CHUNK", 2 * DOCUMENTS)
    records = taught(folder, tmp_path / "run", settings(folder, rounds=1, tries=TRIES))
    pairs = samples(folder)
    others = [one for one in pairs if one.label != NONE]
    plain = {one.key: one.prompt(SCHEMA, FORM) for one in pairs}
    shown = [show_gold(plain[one.key], one.label, FORM) for one in others]
    assert asked == [[plain[one.key] for one in pairs], [plain[one.key] for one in others], shown, shown]
    verdicts = {record.key: (record.attempt, record.verdict) for record in records if record.final}
    assert verdicts == {one.key: (1 if one.label == NONE else 4, "accepted") for one in pairs}
    assert summary(records, TRIES) == "8 of 24 pairs right, 16 more with the gold shown"
    assert summary([record for record in records if record.attempt < 4], 2) == "8 of 8 pairs right, 0 more with the gold shown"


def test_annotate_keeps_the_calls_of_the_last_round(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scripted(_: Backbone, prompts: Sequence[Prompt], *__: Any) -> list[list[Rollout]]:
        return [[Rollout(trace(NONE).render(), (0,), (0.0,), True)] for _ in prompts]

    monkeypatch.setattr(self_taught, "sample", scripted)
    given = {"out": tmp_path / "run", "data": folder / "data", "share": 1.0, "bounds": BOUNDS}
    recipe = AnnotateRecipe.model_validate({**given, "expert": settings(folder, rounds=1).model_dump()})
    told: list[int] = []
    for _ in range(2):
        figures = run_annotate(recipe, lambda figures: told.append(figures.done))
        assert (figures.pairs, dict(figures.final)) == (24, {"accepted": 8, "answer": 16})
        assert figures.calls.total() == 8 + 16 * 2 * TRIES
    assert told == sorted(told) and told[-1] == 24
    records = [read_traces(tmp_path / "run" / place / "traces.jsonl") for place in ("", "round-0")]
    assert sorted(records[0], key=repr) == sorted(records[1], key=repr)


def test_each_round_begins_from_the_original_model_and_learns_the_last_rounds_traces_both_ways(
    folder: Path, whole: Path
) -> None:
    assert not (whole / "round-0" / "sft").exists()
    recipe = yaml.safe_load((whole / "round-1" / "sft" / "recipe.yaml").read_text())
    assert (recipe["model"], recipe["traces"]) == (str(folder / "model"), str(whole / "round-0" / "traces.jsonl"))
    accepted = sum(record.accepted for record in read_traces(whole / "round-0" / "traces.jsonl"))
    assert json.loads((whole / "round-1/sft/result.json").read_text())["steps"] >= 2 * 2 * accepted / 6


def test_examples_are_drawn_by_class_and_learnt_before_the_first_round(folder: Path, tmp_path: Path) -> None:
    given = {"examples": folder / "examples.jsonl", "example_share": 0.5, "example_epochs": 1, "rounds": 1, "tries": 1}
    taught(folder, tmp_path / "run", settings(folder, **given))
    first = tmp_path / "run" / "round-0"
    examples = read_completions(first / "examples.jsonl")
    assert Counter(one.label for one in samples(folder) if one.key in examples) == dict.fromkeys(TYPES, DOCUMENTS // 3)
    assert all(examples[one.key] == trace(one.label).render() for one in samples(folder) if one.key in examples)
    recipe = yaml.safe_load((first / "sft" / "recipe.yaml").read_text())
    assert (recipe["model"], recipe["traces"], recipe["epochs"]) == (str(folder / "model"), str(first / "examples.jsonl"), 1)
    assert json.loads((first / "sft" / "result.json").read_text())["steps"] >= 2 * len(examples) / 6


def copy(whole: Path, out: Path) -> Path:
    """A run as another one; recipes name their folders."""
    shutil.copytree(whole, out)
    for recipe in out.rglob("recipe.yaml"):
        recipe.write_text(recipe.read_text().replace(str(whole), str(out)))
    return out


@pytest.mark.parametrize("number", [0, 1, 1])
def test_a_run_that_was_killed_while_asking_ends_as_one_that_was_not(
    folder: Path, whole: Path, tmp_path: Path, number: int, request: pytest.FixtureRequest
) -> None:
    """A kill leaves a file that ends at any byte, and nothing of what comes later."""
    out = copy(whole, tmp_path / "run")
    if number == 0:
        shutil.rmtree(out / "round-1")
    file = out / f"round-{number}" / "traces.jsonl"
    raw = file.read_bytes()
    file.write_bytes(raw[: Random(request.node.name).randrange(len(raw))])
    taught(folder, out)
    assert files(out) == files(whole)


def test_what_was_drawn_before_a_kill_counts_where_it_would_now_be_drawn_otherwise(
    folder: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, or with another number of threads: other draws, and another verdict on the same call."""
    out = copy(whole, tmp_path / "run")
    shutil.rmtree(out / "round-1")
    file = out / "round-0" / "traces.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[: CHUNK + 3]))  # all first answers, and some of the second ones
    kept = read_traces(file)
    usual = self_taught.rollout_seed
    monkeypatch.setattr(self_taught, "rollout_seed", lambda *given: usual(*given) + 1)
    expert = settings(folder, rounds=1)
    records = taught(folder, out, expert)
    assert records[: len(kept)] == kept
    assert Counter(one.key for one in records if one.final) == Counter(one.key for one in samples(folder))
    for one in records:
        before = [r for r in records if r.key == one.key and r.attempt < one.attempt]
        assert len(before) == one.attempt - 1 and not any(r.accepted for r in before)


def test_a_run_that_was_killed_while_learning_ends_as_one_that_was_not(
    folder: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copy(whole, tmp_path / "run")
    shutil.rmtree(out / "round-1")
    expert = settings(folder)
    expert = expert.model_copy(update={"sft": expert.sft.model_copy(update={"checkpoint_every": 2})})
    step, steps = learner.Trainer.step, 0

    def killed(self: learner.Trainer, loss: float) -> float:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        return step(self, loss)

    monkeypatch.setattr(learner.Trainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        taught(folder, out, expert)
    assert (out / "round-1" / "sft" / "checkpoint" / "00000002").is_dir()
    taught(folder, out, expert)
    assert files(out) == files(whole)


def test_the_gold_stands_in_the_pairs_own_segment(folder: Path) -> None:
    one = samples(folder)[0]
    for wording in ("short", "full"):
        form = PromptForm(wording=wording)
        plain = one.prompt(SCHEMA, form)
        shown = show_gold(plain, "/per/per/partner", form)
        assert shown.segments[:-1] == plain.segments[:-1]
        assert shown.segments[-1][:-1] == plain.segments[-1]
        assert isinstance(shown.segments[-1][-1], str) and "/per/per/partner" in shown.segments[-1][-1]
        assert len(shown.pictures) == 2 and all(isinstance(picture, Picture) for picture in shown.pictures)


def test_a_model_that_knows_nothing_and_is_shown_nothing_is_told_what_it_needs(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"round-0/traces\.jsonl: no trace was accepted.*give examples"):
        taught(folder, tmp_path / "run", settings(folder, tries=1, max_new_tokens=4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"examples": Path("nowhere.jsonl")}, r"examples=nowhere\.jsonl: cannot be read"),
        ({"sft": {"form": {"reasoning": "none"}}}, r"answers without reasoning.*form\.reasoning=steps"),
    ],
)
def test_what_cannot_be_used_is_named(folder: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        taught(folder, tmp_path / "run", settings(folder, **changes))


def test_examples_for_other_pairs_are_no_examples(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(RecipeError, match=r"examples\.jsonl: no usable trace"):
        taught(folder, tmp_path / "run", settings(folder, examples=tmp_path / "empty.jsonl"))


def test_settings_of_the_fine_tuning_are_those_of_stage_1(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("kind: self_taught\nmodel: tiny-base\nseed: 3\nmax_new_tokens: 99\nsft: {epochs: 4}\n")
    expert = load_recipe(file, ["sft.lr=1e-3"], SelfTaught)
    assert (expert.sft.epochs, expert.sft.lr, expert.sft.seed, expert.sft.max_new_tokens) == (4, 1e-3, 3, 99)
    assert SelfTaught.model_validate(json.loads(expert.model_dump_json())) == expert
    with pytest.raises(RecipeError, match=r"unknown key sft\.epoch; did you mean sft\.epochs"):
        load_recipe(file, ["sft.epoch=4"], SelfTaught)
    with pytest.raises(ValidationError, match="model"):
        SelfTaught.model_validate({"kind": "self_taught", "sft": {}})
