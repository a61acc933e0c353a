"""A random Qwen2.5-VL of another size, saved by transformers alone, goes through every command that takes a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from more_r1.cli import main
from more_r1.formats import load_documents
from more_r1.models.load import load_backbone
from more_r1.reasoning.prompt import PromptForm
from more_r1.schema import Schema
from more_r1.training.plan.shape import read_shape

RECIPE = """
epochs: 1
share: 0.25
batch_pairs: 8
valid_pairs: 3
max_new_tokens: 4
checkpoint_every: 2
threads: 1
lr: 2.0e-3
form: {wording: short, whole_pixels: 12544, crop_pixels: 3136}
"""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["more-r1", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        main()
    assert not exit.value.code


def test_stock_folder_goes_through_sft_evaluate_and_extract(
    monkeypatch: pytest.MonkeyPatch,
    stock_folder: Path,
    benchmark_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe, trained, asked = tmp_path / "sft.yaml", tmp_path / "run", tmp_path / "asked"
    recipe.write_text(RECIPE)
    run(monkeypatch, "sft", recipe, f"model={stock_folder}", f"data={benchmark_dir}", f"out={trained}")
    events = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in events if "loss" in event]
    assert len(losses) > 1 and losses[-1] < losses[0]
    assert "valid_f1" in events[-1]

    # What was trained is again a folder that transformers reads, beside the form that it is to be asked in.
    before = load_backbone(stock_folder, device="cpu").model.state_dict()
    after = Qwen2_5_VLForConditionalGeneration.from_pretrained(trained / "best").state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert before.keys() == after.keys() and changed == {name for name in before if ".visual." not in name}
    assert load_backbone(trained / "best").form == PromptForm(wording="short", whole_pixels=12544, crop_pixels=3136)

    # The configuration that came is flat, ours is as transformers writes it now: one and the same model to `plan`, too.
    configs = [json.loads((one / "config.json").read_text()) for one in (stock_folder, trained / "best")]
    assert ["text_config" in config for config in configs] == [False, True]
    assert read_shape(str(stock_folder)) == read_shape(str(trained / "best"))

    options = ("--data", benchmark_dir, "--split", "test", "--limit", 2, "--max-new-tokens", 4, "--out", asked)
    run(monkeypatch, "evaluate", "--model", trained / "best", *options)
    documents = load_documents(benchmark_dir, "test")[:2]
    assert json.loads((asked / "metrics.json").read_text())["pairs"] == sum(len(document.pairs) for document in documents)

    # The folder as it came, which knows no form: asked in the default one.
    picture = documents[0].image
    capsys.readouterr()
    question = ("--text", "Maya wins", "--object", "0.5,0.5,0.4,0.4", "--entity", "Maya", "--json")
    run(monkeypatch, "extract", picture, *question, "--model", stock_folder)
    answer = json.loads(capsys.readouterr().out)
    assert (answer["tokens"], answer["span"]) == (["Maya", "wins"], [0, 1])
    assert answer["predicted"] in Schema.more().labels  # by force: the folder's model was never trained
    assert answer["completion"]
