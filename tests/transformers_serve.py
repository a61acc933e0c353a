"""`transformers serve` with the shipped model, in a venv without torchvision."""

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

from more_r1.models.families.qwen import ImageTextProcessor

# The command `transformers` of that venv.
SERVE = os.environ.get("MORE_R1_SERVE")


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
