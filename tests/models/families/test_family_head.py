"""A classification head on every family: it learns, and its folder answers by labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from halves import LABELS, document, events
from tiny_families import BUDGET, Both
from transformers import AutoModelForImageTextToText

from more_r1.formats.more import write_more
from more_r1.models.classifier import Classifier, load_model
from more_r1.models.predict import predict
from more_r1.schema import Schema
from more_r1.training.sft import SftRecipe, run_sft

SCHEMA = Schema.more()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("halves") / "data"
    write_more({"train": [document(number) for number in range(9)], "valid": [document(0)]}, folder, SCHEMA)
    return folder


def test_a_head_learns_and_answers(both: Both, data: Path, tmp_path: Path) -> None:
    form = {"wording": "short", "reasoning": "none", "whole_pixels": BUDGET, "crop_pixels": BUDGET}
    given = {"model": str(both.folder), "data": data, "out": tmp_path / "run", "head": True, "share": 1.0, "form": form}
    steps = {"epochs": 4, "batch_pairs": 6, "lr": 3e-3, "valid_pairs": 1, "validate_every": 4, "threads": 1}
    run = run_sft(SftRecipe.model_validate(given | steps))
    losses = [event["loss"] for event in events(run.out) if "loss" in event]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    read = load_model(run.out / "final")
    assert isinstance(read, Classifier)
    (found,) = predict(read, [document(1)], SCHEMA, 1)
    assert {one.predicted for one in found} <= set(LABELS.values())  # of 21, those that were taught
    # The language head has learnt nothing, unless it is the embedding, which has.
    after = AutoModelForImageTextToText.from_pretrained(run.out / "final")
    same = torch.equal(after.lm_head.weight, both.stock.lm_head.weight)
    assert same is not both.stock.config.tie_word_embeddings
