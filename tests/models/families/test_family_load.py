"""What cannot be laid out as a forest is refused in one line; what is not refused reads documents."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_families import BUDGET, Both, write_tiny
from transformers import AutoModelForImageTextToText

from more_r1.formats import load_documents
from more_r1.models.engine import EngineError
from more_r1.models.families import FAMILIES
from more_r1.models.load import load_backbone
from more_r1.models.manner import ModelError, load_manner
from more_r1.models.predict import Reading, predict
from more_r1.models.vllm.rollouts import refuse_tied
from more_r1.reasoning.prompt import PromptForm
from more_r1.schema import Schema


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_backbone(folder, device="cpu")
    said = str(caught.value)
    assert said.startswith(f"{folder}: ") and "\n" not in said
    return said


@pytest.mark.parametrize("kind", ["idefics3", "llava_onevision"])
def test_another_text_model_is_refused(kind: str, tmp_path: Path) -> None:
    write_tiny(kind, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"] |= {"model_type": "mistral", "sliding_window": None}
    config["text_config"].pop("layer_types", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "its text model is a mistral" in refused(tmp_path)


def test_a_text_that_is_not_read_from_left_to_right_is_refused(tmp_path: Path) -> None:
    write_tiny("gemma3", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["use_bidirectional_attention"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "tokens see those behind them" in refused(tmp_path)


def test_another_family_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": {"model_type": "llama"}}))
    said = refused(tmp_path)
    assert "a llava model" in said and all(f"{family.name} ({kind})" in said for kind, family in FAMILIES.items())


def test_the_family_is_that_of_the_configuration(both: Both) -> None:
    manner = load_manner(both.folder)
    assert manner.encoder.family is FAMILIES[both.kind]
    assert type(both.ours.model) is type(both.stock)
    assert both.ours.encoder.processor.image_processor.__class__.__name__.endswith("Pil")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", FAMILIES)
def test_it_is_known_whether_the_head_is_the_embedding(kind: str, tied: bool, tmp_path: Path) -> None:
    write_tiny(kind, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": tied}))
    manner = load_manner(tmp_path)
    model = AutoModelForImageTextToText.from_config(manner.config)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) is tied
    with pytest.raises(EngineError, match="tied to the embedding") if tied else nullcontext():
        refuse_tied(manner)


def test_documents_are_read(both: Both, benchmark_dir: Path) -> None:
    backbone = replace(both.ours, form=PromptForm(wording="short", reasoning="none", whole_pixels=BUDGET, crop_pixels=BUDGET))
    documents = load_documents(benchmark_dir, "test")[:2]
    (found,) = predict(backbone, documents, Schema.more(), 30, keep_form=True, reading=Reading(confidence=True))
    assert [one.document for one in found] == [document.id for document in documents for _ in document.pairs]
    assert all(one.predicted in Schema.more().labels and one.confidence for one in found)
