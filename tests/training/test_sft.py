"""Stage 1 through its public verb, on a small folder in the MORE layout that the tests draw."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from halves import TRAIN, VALID, WORDS, document
from safetensors.torch import load_file

from more_r1.formats.more import write_more
from more_r1.models.load import load_backbone, save_backbone
from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import PromptForm
from more_r1.reasoning.trace import Trace
from more_r1.schema import Schema
from more_r1.training.examples import draw
from more_r1.training.recipe import RecipeError
from more_r1.training.sft import SftRecipe, run_sft

STEPS = ("The crop shows {0}.", "It is about that.", "It is Ann.", "A (per) and a (per).", "{1}, none", "It is {1}.")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("more")
    train = [document(number) for number in range(TRAIN)]
    write_more({"train": train, "valid": [document(number) for number in range(VALID)]}, folder, Schema.more())
    lines = []
    for one in train:
        for pair in one.pairs:
            steps = tuple(step.format(pair.object, pair.label) for step in STEPS)
            facts = {"img_id": one.id, "object": pair.object, "span": [0, 1]}
            lines.append(json.dumps(facts | {"completion": Trace(steps, pair.label or "").render()}))
    (folder / "oracle").mkdir(exist_ok=True)
    (folder / "oracle" / "train.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    save_backbone(build_tiny(WORDS, 0, PromptForm(wording="short", whole_pixels=56 * 112, crop_pixels=56 * 56)), folder)
    return folder


def recipe(base: Path, data: Path, out: Path, **settings: Any) -> SftRecipe:
    defaults = {"epochs": 1, "share": 1.0, "batch_pairs": 8, "valid_pairs": 6, "max_new_tokens": 12, "threads": 1, "lr": 2e-3}
    return SftRecipe.model_validate({"model": str(base), "data": data, "out": out, **defaults, **settings})


def events(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_answers_alone_are_learnt_from_the_crop(base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = {"form": {"reasoning": "none"}, "epochs": 16, "freeze_vision": False, "valid_pairs": 99, "validate_every": 8}
    done = run_sft(recipe(base, data, out, **settings))
    assert done.best is not None and done.best["f1"] == 1.0 and done.model == out / "best"
    assert done.best["broken"] == 0
    log = events(out)
    assert [event["step"] for event in log if "valid_f1" in event] == [40, 80]
    assert sum(event["tokens"] for event in log if "loss" in event) < sum(e["repeated_tokens"] for e in log if "loss" in e)
    form = load_backbone(done.model).form
    assert form == PromptForm(wording="short", whole_pixels=56 * 112, crop_pixels=56 * 56, reasoning="none")
    assert run_sft(recipe(base, data, out, **settings)) == done


def test_a_frozen_vision_tower_keeps_its_weights_and_the_rest_learns(base: Path, data: Path, tmp_path: Path) -> None:
    done = run_sft(recipe(base, data, tmp_path / "run"))
    before, after = load_backbone(base).model.state_dict(), load_backbone(done.out / "final").model.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed and changed == {name for name in before if ".visual." not in name}


def test_adapters_alone_learn_and_are_saved_merged_and_by_themselves(base: Path, data: Path, tmp_path: Path) -> None:
    done, again = (run_sft(recipe(base, data, tmp_path / name, lora={"rank": 2})) for name in ("run", "again"))
    before, after = load_backbone(base).model.state_dict(), load_backbone(done.out / "final").model.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed and all("language_model" in name and "_proj.weight" in name for name in changed)
    adapter = load_file(done.out / "final" / "adapter" / "adapter_model.safetensors")
    assert {name.split(".lora_")[0] for name in adapter} == {
        f"base_model.model.{name.removesuffix('.weight')}" for name in changed
    }
    others = load_file(again.out / "final" / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(weights, others[name]) for name, weights in adapter.items()), "they begin at random, but by the seed"
    with pytest.raises(ValueError, match="leave lora out"):
        recipe(base, data, tmp_path, lora={}, head=True, form={"reasoning": "none"})


def test_the_loss_falls_on_traces_and_only_the_share_is_used(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_sft(recipe(base, data, tmp_path / "run", share=0.25, epochs=4))
    losses = [event["loss"] for event in events(tmp_path / "run") if "loss" in event]
    assert losses[-1] < losses[0] / 1.5
    assert "9 of 36 pairs" in capsys.readouterr().out


def test_traces_that_do_not_end_in_the_gold_answer_are_left_out(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (data / "oracle" / "train.jsonl").read_text().splitlines()
    wrong = json.loads(lines[0])
    gold = document(0).pairs[0].label
    wrong["completion"] = wrong["completion"].replace(f"<answer>{gold}<", "<answer>/loc/loc/contain<")
    broken = json.loads(lines[1]) | {"completion": "<think> Step 1: no more </think>"}
    own = tmp_path / "own.jsonl"
    own.write_text("\n".join([json.dumps(wrong), json.dumps(broken), *lines[2:-1]]) + "\n")
    run_sft(recipe(base, data, tmp_path / "run", traces=own))
    assert "33 of 36 pairs, 17 documents, 3 more have no usable trace" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, r"traces=.*own\.jsonl: cannot be read"), ("", r"own\.jsonl: no usable trace"), ("{}\n", r"own\.jsonl:1")],
)
def test_bad_traces_are_named_and_leave_no_folder(
    base: Path, data: Path, tmp_path: Path, text: str | None, message: str
) -> None:
    own = tmp_path / "own.jsonl"
    if text is not None:
        own.write_text(text)
    with pytest.raises(ValueError, match=message):
        run_sft(recipe(base, data, tmp_path / "run", traces=own))
    assert not (tmp_path / "run").exists()


def test_seeds_share_the_draw(base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the pairs of draw_seed 0 have traces here: a run with another `seed` must ask for just these."""
    lines = (data / "oracle" / "train.jsonl").read_text().splitlines()
    drawn = draw([pair.label or "" for number in range(TRAIN) for pair in document(number).pairs], 0.25, 0)
    own = tmp_path / "own.jsonl"
    own.write_text("".join(lines[index] + "\n" for index in drawn))
    run_sft(recipe(base, data, tmp_path / "run", traces=own, share=0.25, seed=5))
    assert re.search(r"9 of 36 pairs, \d+ documents; ", capsys.readouterr().out)


def test_a_loss_that_is_no_number_ends_the_run(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"run: step 2: the loss is nan.*; lower lr"):
        run_sft(recipe(base, data, tmp_path / "run", lr=1e30, schedule="constant", warmup=0))
    assert all(math.isfinite(event["loss"]) for event in events(tmp_path / "run"))


def test_another_draw_is_another_recipe(base: Path, data: Path, tmp_path: Path) -> None:
    run_sft(recipe(base, data, tmp_path / "run"))
    with pytest.raises(RecipeError, match="draw_seed=0 there, 1 here"):
        run_sft(recipe(base, data, tmp_path / "run", draw_seed=1))


@pytest.mark.parametrize("separator", [" ", "\n"])
def test_decision_weight_counts_the_deciding_tokens_more(base: Path, data: Path, tmp_path: Path, separator: str) -> None:
    lines = [json.loads(line) for line in (data / "oracle" / "train.jsonl").read_text().splitlines()]
    own = tmp_path / "own.jsonl"
    own.write_text(
        "".join(json.dumps(f | {"completion": f["completion"].replace(" Step", separator + "Step")}) + "\n" for f in lines)
    )
    first = {}
    for weight in (1, 1e-6, 1e6):
        out = tmp_path / f"run-{weight}"
        run_sft(recipe(base, data, out, traces=own, decision_weight=weight))
        first[weight] = events(out)[0]["loss"]
    # The plain loss is a mean of that of the deciding tokens and that of the others.
    assert min(first[1e-6], first[1e6]) < first[1] < max(first[1e-6], first[1e6])
