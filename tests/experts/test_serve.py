"""The whole path against a real server, `transformers serve` with the tiny model: `make test-serve` installs and runs it."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from misbehaving import records

from more_r1.experts.annotate import AnnotateRecipe, drawn, run_annotate
from more_r1.experts.question import ask_parts
from more_r1.models.load import load_backbone
from more_r1.models.processor import ImageTextProcessor
from more_r1.reasoning.prompt import Prompt
from more_r1.schema import Schema

SERVE = os.environ.get("MORE_R1_SERVE")
pytestmark = pytest.mark.skipif(not SERVE, reason="MORE_R1_SERVE does not name the command `transformers`; make test-serve")


def model_folder(folder: Path) -> Path:
    """The shipped model with a processor that needs no torchvision, as code of the folder's own."""
    with resources.as_file(resources.files("more_r1") / "assets" / "tiny") as tiny:
        shutil.copytree(tiny, folder)
    source = "from typing import Any\n\nfrom transformers import ProcessorMixin\n\n\n" + inspect.getsource(ImageTextProcessor)
    (folder / "image_text.py").write_text(source)
    file = folder / "processor_config.json"
    own = {"processor_class": "ImageTextProcessor", "auto_map": {"AutoProcessor": "image_text.ImageTextProcessor"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    return folder


@contextlib.contextmanager
def served(folder: Path, scratch: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (scratch / "hf" / "hub").mkdir(parents=True)
    environment = os.environ | {"HF_HOME": str(scratch / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32", "--trust-remote-code"]
    with (scratch / "server.log").open("wb") as log:
        command = [str(SERVE), "serve", str(folder), *options]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + 300
            while time.monotonic() < end and process.poll() is None:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                        break
                except OSError:
                    time.sleep(0.5)
            else:
                pytest.fail((scratch / "server.log").read_text()[-3000:])
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


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
