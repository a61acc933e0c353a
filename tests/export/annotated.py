"""Runs of `more-r1 annotate` for the tests of exports, and what an export of them must hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from more_r1.formats.oracle import read_oracle
from more_r1.reasoning.prompt import PromptForm
from more_r1.training.examples import draw
from more_r1.training.samples import Sample, read_samples

FORM = PromptForm(wording="short", whole_pixels=112 * 112, crop_pixels=56 * 56)
IMAGE = "<image>"


def record(sample: Sample, completion: str, **more: Any) -> dict[str, Any]:
    """A line of traces.jsonl."""
    document, object, span = sample.key
    own = {"img_id": document, "object": object, "span": span, "label": sample.label, "completion": completion}
    sent = {"expert": "oracle", "fingerprint": "0" * 64, "attempt": 1}
    return {**own, **sent, "verdict": "accepted", "final": True, **more}


def write_run(run: Path, data: Path, records: list[dict[str, Any]], **recipe: Any) -> Path:
    run.mkdir(parents=True)
    (run / "traces.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records), encoding="utf-8")
    given = {"data": str(data), "share": 0.25, "draw_seed": 0, "tries": 2, "expert": {"kind": "oracle"}}
    (run / "recipe.yaml").write_text(yaml.safe_dump({**given, **recipe}))
    return run


def drawn(data: Path) -> tuple[list[Sample], list[Sample]]:
    """The pairs that stage 1 draws, and the others."""
    samples = read_samples(data, "train")
    taken = set(draw([sample.label for sample in samples], 0.25, 0))
    return [samples[index] for index in sorted(taken)], [one for index, one in enumerate(samples) if index not in taken]


def oracle_run(run: Path, data: Path) -> tuple[Path, list[tuple[Sample, str]], list[Sample]]:
    """A run of the oracle with some rejected traces; the samples that are accepted, with their completions, and the rest."""
    gold = {(fact.img_id, fact.object, fact.span): fact.completion or "" for fact in read_oracle(data / "oracle/train.jsonl")}
    asked, rest = drawn(data)
    lines, accepted = [], []
    for number, sample in enumerate(asked):
        completion = gold[sample.key]
        if number % 3 == 0:
            lines.append(record(sample, "no", verdict="form", reason="<think> is missing", final=number % 2 == 0))
        if number % 6:
            lines.append(record(sample, completion, attempt=2))
            accepted.append((sample, completion))
    return write_run(run, data, lines), accepted, rest


def files_of(folder: Path) -> set[str]:
    """Relative paths of all files."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
