"""The task folder for lmms-eval by itself: prompts, pictures and figures are ours. (lmms-eval runs it in test_lmms_eval.py.)"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from more_r1.document import Document
from more_r1.evaluation.metrics import measure
from more_r1.formats import load_documents
from more_r1.formats.parquet import write_parquet
from more_r1.models.load import Backbone, load_backbone, save_backbone
from more_r1.reasoning.prompt import Picture, PromptForm, build_prompt
from more_r1.reasoning.trace import Trace
from more_r1.schema import Schema

FOLDER = Path(__file__).parents[2] / "integrations" / "lmms_eval" / "more"
SCHEMA = Schema.more()
LABELS = st.sampled_from(SCHEMA.labels)


def load() -> ModuleType:
    """As lmms-eval loads it: from the file, anew for every function."""
    spec = spec_from_file_location("more", FOLDER / "more.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def documents(benchmark_dir: Path) -> list[Document]:
    read = load_documents(benchmark_dir, "train")[:3]
    unlabelled = read[1].pairs[0].model_copy(update={"label": None})
    return [read[0], read[1].model_copy(update={"pairs": (unlabelled, *read[1].pairs[1:])}), read[2]]


@pytest.fixture(scope="module")
def rows(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("lmms")
    write_parquet(documents, folder / "more.parquet")
    loaded = Dataset.from_parquet(str(folder / "more.parquet"), cache_dir=str(folder / "cache"))
    processed: Dataset = load().process_docs(loaded)
    return processed


def asked(documents: list[Document]) -> Iterator[tuple[Document, Any]]:
    return ((document, pair) for document in documents for pair in document.pairs if pair.label is not None)


@pytest.mark.parametrize("order", ["shared", "paper"])
def test_a_model_is_shown_what_ours_is_shown(
    documents: list[Document],
    rows: Dataset,
    order: str,
    random_tiny: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    form = PromptForm.model_validate({"order": order, "whole_pixels": 12544, "crop_pixels": 12544})
    save_backbone(random_tiny, tmp_path / "model")
    (tmp_path / "model" / "more_r1.json").write_text(form.model_dump_json())
    monkeypatch.setenv("MORE_R1_FORM", str(tmp_path / "model"))
    task, backbone = load(), load_backbone(tmp_path / "model")
    processor = backbone.encoder.processor
    assert len(rows) == len(list(asked(documents)))
    for row, (document, pair) in zip(rows, asked(documents), strict=True):
        prompt = build_prompt(document, pair, SCHEMA, form)
        (message,) = task.doc_to_messages(row)
        assert message["role"] == "user" and row["label"] == pair.label
        parts = [part for segment in prompt.segments for part in segment]
        for part, content in zip(parts, message["content"], strict=True):
            if isinstance(part, Picture):
                # By the stock image processor, without any limit of ours.
                features = processor.image_processor(content["url"], return_tensors="pt")
                assert torch.equal(features["pixel_values"], backbone.encoder.pixels(part)[0])
            else:
                assert content == {"type": "text", "text": part}
        first = {name: value for name, value in row.items() if name != "image"}
        paper = build_prompt(document, pair, SCHEMA, form.model_copy(update={"order": "paper"})).segments
        assert task.doc_to_text(first, None) == paper[2][1]
        assert [picture.size for picture in task.doc_to_visual(row)] == [
            picture.size for picture in (part["url"] for part in message["content"] if part["type"] == "image")
        ]


def test_without_a_form_a_stranger_is_asked_in_full_words(rows: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MORE_R1_FORM", raising=False)
    content = load().doc_to_messages(rows[0])[0]["content"]
    assert [part["type"] for part in content] == ["text", "image", "text", "image", "text"]
    assert "Think in six steps" in content[0]["text"]


@given(st.lists(st.tuples(LABELS, st.none() | LABELS), min_size=1, max_size=30))
def test_the_figures_are_those_of_evaluate(pairs: list[tuple[str, str | None]]) -> None:
    task = load()
    completions = [
        "no trace" if said is None else Trace(("a", "b", "c", "(per) (org)", "d", "e"), said).render() for _, said in pairs
    ]
    results = [
        task.process_results({"label": gold}, [completion]) for (gold, _), completion in zip(pairs, completions, strict=True)
    ]
    expected = measure({"gold": gold, "predicted": said} for gold, said in pairs)
    assert results[0].keys() == {"f1", "accuracy", "precision", "recall", "broken"}
    for figure in results[0]:
        # lmms-eval may have sent them through JSON.
        found = getattr(task, figure)([json.loads(json.dumps(result[figure])) for result in results])
        assert found == pytest.approx(getattr(expected, figure), abs=1e-12), figure


def test_the_yaml_files_name_what_is_there() -> None:
    task, shared = load(), (FOLDER / "_more_yaml").read_text()
    named = set(re.findall(r"!function more\.(\w+)", shared))
    assert all(callable(getattr(task, name)) for name in named)
    metrics = re.findall(r"metric: (\w+), aggregation: !function more\.(\w+)", shared)
    assert {name for name, _ in metrics} == task.process_results({"label": "none"}, [""]).keys()
    assert all(name == function for name, function in metrics)
    for split in ("valid", "test"):
        text = (FOLDER / f"more_{split}.yaml").read_text()
        assert "include: _more_yaml\n" in text and f"task: more_{split}\n" in text and f"data/more/{split}.parquet" in text
