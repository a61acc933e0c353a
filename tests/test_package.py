"""The package as a whole: quick to import, and all it promises is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import more_r1


def test_import_is_quick_and_brings_no_torch() -> None:
    # The best of three: another process may have the core.
    times = []
    for _ in range(3):
        command = [sys.executable, "-X", "importtime", "-c", "import more_r1, sys; print('torch' in sys.modules)"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"
        line = next(line for line in done.stderr.splitlines() if line.split("|")[-1].strip() == "more_r1")
        times.append(int(line.split("|")[1]) / 1e6)
    assert min(times) < 0.3


def test_data_and_prompts_need_no_torch() -> None:
    code = (
        "import sys; from more_r1 import Document, Schema, Trace, load_documents; "
        "import more_r1.reasoning.prompt, more_r1.evaluation.metrics, more_r1.cli; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", more_r1.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(more_r1, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = more_r1.nonsense
