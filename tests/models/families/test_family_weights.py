"""Of every family: a folder whose weights are not whole is refused, for what is missing would be made up at random."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from command import run
from safetensors.torch import load_file, save_file
from tiny_families import KINDS, Both, write_tiny
from torch import Tensor

from more_r1.models.load import load_backbone
from more_r1.models.manner import ModelError, folder_of

# What each of them has, by any name.
PARTS = ("layers.1.self_attn.q_proj.weight", "embed_tokens.weight", "layers.0.input_layernorm.weight", "patch_embed")


def write(folder: Path, weights: dict[str, Tensor]) -> None:
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_backbone(folder, device="cpu")
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{folder}: ")
    return str(caught.value)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_too_few_or_of_another_size_is_refused(
    kind: str, tied: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_tiny(kind, tmp_path, tied)
    capfd.readouterr()
    model = load_backbone(tmp_path, device="cpu").model
    assert (model.lm_head.weight is model.get_input_embeddings().weight) is tied
    weights = load_file(tmp_path / "model.safetensors")
    assert any("lm_head" in name for name in weights) is not tied
    for part in PARTS if tied else (*PARTS, "lm_head"):
        name = next(name for name in weights if part in name)
        write(tmp_path, {other: tensor for other, tensor in weights.items() if other != name})
        lacking = 2 if tied and part == "embed_tokens.weight" else 1  # of a tied pair neither is there then
        assert f"{lacking} of its tensors are missing" in refused(tmp_path)
        write(tmp_path, weights | {name: torch.cat([weights[name]] * 2)})
        assert "of another size than its config.json says" in refused(tmp_path)
    assert "LOAD REPORT" not in "".join(capfd.readouterr())


def test_so_it_is_where_weights_are_in_several_files(both: Both, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(both.folder, folder)
    (folder / "model.safetensors").unlink()
    both.stock.save_pretrained(folder, max_shard_size="60KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    again = load_backbone(folder, device="cpu").model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in both.stock.state_dict().items())
    weights = load_file(shards[1])
    save_file(dict(list(weights.items())[1:]), shards[1], metadata={"format": "pt"})
    assert "1 of its tensors are missing" in refused(folder)
    shards[1].unlink()
    assert "cannot be loaded" in refused(folder)


def test_tensors_that_no_part_asks_for_are_told_of_and_left_out(
    both: Both, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "more"
    shutil.copytree(both.folder, folder)
    weights = load_file(folder / "model.safetensors")
    write(folder, weights | {"model.old.inv_freq": torch.zeros(3)})
    with caplog.at_level(logging.WARNING):
        again = load_backbone(folder, device="cpu").model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in both.stock.state_dict().items())
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{folder}: 1 tensors are left out") and "old.inv_freq" in record.getMessage()


@pytest.mark.parametrize("verb", ["extract", "sft"])
def test_the_commands_say_so_in_one_line(
    verb: str, benchmark_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, recipe = tmp_path / "tiny", tmp_path / "recipe.yaml"
    shutil.copytree(folder_of("tiny"), folder)
    weights = load_file(folder / "model.safetensors")
    write(folder, {name: tensor for name, tensor in weights.items() if "layers.1.self_attn.q_proj" not in name})
    recipe.write_text(json.dumps({"model": str(folder), "data": str(benchmark_dir), "out": str(tmp_path / "run")}))
    asked = ("--documents", benchmark_dir, "--split", "test", "--model", folder)
    assert run(monkeypatch, verb, *(asked if verb == "extract" else (recipe,))) == 1
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith(f"more-r1: {folder}: 2 of its tensors are missing")
