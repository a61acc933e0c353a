"""The whole path against a real server, `transformers serve` with the tiny model: `make test-serve` installs and runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from misbehaving import records
from transformers_serve import SERVE, model_folder, served

from more_r1.experts.annotate import AnnotateRecipe, drawn, run_annotate
from more_r1.experts.question import ask_parts
from more_r1.models.load import load_backbone
from more_r1.reasoning.prompt import Prompt
from more_r1.schema import Schema

pytestmark = pytest.mark.skipif(not SERVE, reason="MORE_R1_SERVE does not name the command `transformers`; make test-serve")


def test_images_arrive_text_comes_back_and_verdicts_are_written(benchmark_dir: Path, tmp_path: Path) -> None:
    folder, out = model_folder(tmp_path / "model"), tmp_path / "run"
    with served(folder, tmp_path) as url:
        expert = {"kind": "openai", "model": str(folder), "base_url": url, "timeout": 300, "concurrency": 2, "max_tokens": 48}
        sizes = {"whole_pixels": 12544, "crop_pixels": 3136, "temperature": 0.0}
        given = {"out": out, "data": benchmark_dir, "share": 0.05, "tries": 2, "expert": expert | sizes}
        recipe = AnnotateRecipe.model_validate(given)
        figures = run_annotate(recipe, lambda _: None)
    encoder, schema = load_backbone("tiny").encoder, Schema.more()
    expected = {}
    for sample in drawn(recipe):
        segments = encoder.prompt(Prompt((ask_parts(sample, schema, 12544, 3136),)))
        expected[sample.document.id, sample.pair.object, sample.key[2]] = sum(len(segment.ids) for segment in segments)
    made = records(out)
    assert figures.done == figures.pairs > 3
    # Where the most tokens cut a text off inside of its <think>, this server gives none of it.
    assert figures.calls.keys() <= {"form", "empty"} and figures.calls["form"] >= figures.pairs
    for one in made:
        assert (one["verdict"] == "empty" or one["completion"].strip()) and 0 < one["tokens_out"] <= 48
        if one["attempt"] == 1:
            # Text and pictures as the model's own processor counts them: both pictures have arrived, at their sizes.
            assert one["tokens_in"] == expected[one["img_id"], one["object"], tuple(one["span"])]
    log = (tmp_path / "server.log").read_text()
    assert log.count("POST /v1/chat/completions") >= len(made)
    print(f"{figures.pairs} pairs, {len(made)} calls: {dict(figures.calls)}; the first: {made[0]}")
