"""The data of studies/own_relations.py."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from more_r1.formats import load_documents
from more_r1.formats.check import check_more
from more_r1.schema import Schema

STUDIES = Path(__file__).parents[2] / "studies"


def test_four_labels_have_other_names_and_nothing_else_changes(
    benchmark_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))
    study = runpy.run_path(str(STUDIES / "own_relations.py"))
    monkeypatch.delitem(sys.modules, "held_out")
    own, folder, file = study["OWN"], tmp_path / "data", tmp_path / "schema.yaml"
    for _ in range(2):  # a second time nothing changes
        study["rename"](benchmark_dir, folder, file)
    schema = Schema.load(file)
    assert schema.labels == tuple(own.get(label, label) for label in Schema.more().labels)
    assert check_more(folder, schema).sound
    for split in ("train", "test"):
        before, after = ([p.label for d in load_documents(where, split) for p in d.pairs] for where in (benchmark_dir, folder))
        assert after == [own.get(label, label) for label in before]
    was, now = (
        [json.loads(line) for line in (where / "oracle" / "train.jsonl").read_text().splitlines()]
        for where in (benchmark_dir, folder)
    )
    assert any(one["label"] in own for one in was)
    for one, other in zip(was, now, strict=True):
        assert other["label"] == own.get(one["label"], one["label"])
        assert not any(label in other["completion"] for label in own)
        assert ("<answer>" + other["label"] in other["completion"]) == ("<answer>" + one["label"] in one["completion"])
