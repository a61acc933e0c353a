"""What cannot be laid out as a forest is refused in one line; what is not refused reads documents."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_families import BUDGET, Both, write_gemma3, write_tiny

from more_r1.formats import load_documents
from more_r1.models.families import FAMILIES
from more_r1.models.load import ModelError, load_backbone, load_manner
from more_r1.models.predict import Reading, predict
from more_r1.reasoning.prompt import PromptForm
from more_r1.schema import Schema


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_backbone(folder, device="cpu")
    said = str(caught.value)
    assert said.startswith(f"{folder}: ") and "\n" not in said
    return said


def test_gemma_3_is_refused_with_the_reason_and_the_mend(tmp_path: Path) -> None:
    write_gemma3(tmp_path)
    said = refused(tmp_path)
    assert "a gemma3 model" in said and "tokens of a picture" in said
    assert all(f"{family.name} ({kind})" in said for kind, family in FAMILIES.items())


def test_windows_are_refused_wherever_a_configuration_has_them(both: Both, tmp_path: Path) -> None:
    folder = tmp_path / "windowed"
    shutil.copytree(both.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    windows = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "layer_types": None}
    if both.kind in ("idefics3", "qwen3_vl"):  # these text models have none, but others may stand in their place
        windows = {"sliding_window": 8}
    config["text_config"] |= windows
    (folder / "config.json").write_text(json.dumps(config))
    assert "sliding-window attention" in refused(folder)


@pytest.mark.parametrize("kind", ["idefics3", "llava_onevision"])
def test_another_text_model_is_refused(kind: str, tmp_path: Path) -> None:
    write_tiny(kind, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"] |= {"model_type": "mistral", "sliding_window": None}
    config["text_config"].pop("layer_types", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "its text model is a mistral" in refused(tmp_path)


def test_the_family_is_that_of_the_configuration(both: Both) -> None:
    manner = load_manner(both.folder)
    assert manner.encoder.family is FAMILIES[both.kind]
    assert type(both.ours.model) is type(both.stock)
    assert both.ours.encoder.processor.image_processor.__class__.__name__.endswith("Pil")


def test_documents_are_read(both: Both, benchmark_dir: Path) -> None:
    backbone = replace(both.ours, form=PromptForm(wording="short", reasoning="none", whole_pixels=BUDGET, crop_pixels=BUDGET))
    documents = load_documents(benchmark_dir, "test")[:2]
    (found,) = predict(backbone, documents, Schema.more(), 30, keep_form=True, reading=Reading(confidence=True))
    assert [one.document for one in found] == [document.id for document in documents for _ in document.pairs]
    assert all(one.predicted in Schema.more().labels and one.confidence for one in found)
