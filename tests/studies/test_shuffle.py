from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from more_r1.document import Document
from more_r1.formats import load_documents
from more_r1.models.load import save_backbone
from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import Picture, Prompt, PromptForm
from more_r1.schema import Schema
from more_r1.synthetic.lessons import vocabulary

STUDY = Path(__file__).parents[2] / "studies" / "shuffle.py"
WAYS = ["as it is", "whole pictures shuffled", "crops shuffled"]


@pytest.fixture(scope="module")
def documents(benchmark_dir: Path) -> list[Document]:
    return load_documents(benchmark_dir, "train")[:3]


def _asked(documents: list[Document], form: PromptForm) -> dict[str, list[Prompt]]:
    found: dict[str, list[Prompt]] = runpy.run_path(str(STUDY))["arrangements"](documents, Schema.more(), form)
    return found


@pytest.mark.parametrize("order", ["shared", "paper"])
def test_only_the_shuffled_picture_is_another(documents: list[Document], order: str) -> None:
    form = PromptForm.model_validate({"order": order, "wording": "short", "whole_pixels": 112 * 112, "crop_pixels": 56 * 56})
    asked = _asked(documents, form)
    assert list(asked) == WAYS
    sources = [document.image for document in documents for _ in document.pairs]
    images = {document.image for document in documents}
    for source, plain, whole, crop in zip(sources, *(asked[way] for way in WAYS), strict=True):
        assert [picture.source for picture in plain.pictures] == [source, source]
        for other, swapped in ((whole, 0), (crop, 1)):
            assert other.pictures[1 - swapped] == plain.pictures[1 - swapped]
            new, old = other.pictures[swapped], plain.pictures[swapped]
            assert new.source in images - {source}
            assert (new.box is None, new.pixels) == (old.box is None, old.pixels)
            kept = [[None if isinstance(part, Picture) else part for part in segment] for segment in other.segments]
            assert kept == [[None if isinstance(part, Picture) else part for part in segment] for segment in plain.segments]


def test_pairs_of_a_document_go_on_sharing_its_segment(documents: list[Document]) -> None:
    prompts = iter(_asked(documents, PromptForm())["whole pictures shuffled"])
    for document in documents:
        assert len({next(prompts).segments[:2] for _ in document.pairs}) == 1


def test_one_picture_cannot_be_shuffled(documents: list[Document]) -> None:
    with pytest.raises(ValueError, match="at least two different pictures"):
        _asked(documents[:1], PromptForm())


def test_the_study_runs(benchmark_dir: Path, tmp_path: Path) -> None:
    form = PromptForm(wording="short", reasoning="none", whole_pixels=112 * 112, crop_pixels=56 * 56)
    save_backbone(build_tiny(vocabulary(), 0, form), tmp_path / "model")
    out = tmp_path / "deep" / "shuffle.json"
    command = [sys.executable, str(STUDY), "--model", str(tmp_path / "model"), "--data", str(benchmark_dir), "--split", "train"]
    command += ["--limit", "3", "--threads", "1", "--max-new-tokens", "4", "--out", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"})
    assert run.returncode == 0, run.stderr
    assert all(way in run.stdout for way in WAYS)
    found = json.loads(out.read_text(encoding="utf-8"))
    pairs = sum(len(document.pairs) for document in load_documents(benchmark_dir, "train")[:3])
    assert list(found) == WAYS
    assert all(row["pairs"] == pairs for row in found.values())
