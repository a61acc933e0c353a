"""benchmarks/gpu/step.py on a CPU, at a size that proves nothing: all ways have the same gradients and say their figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu" / "step.py"


def test_all_ways_do_the_same_work() -> None:
    sizes = ["--prompt", "60", "--completion", "12", "--group", "3", "--pairs", "2", "--repeats", "1"]
    done = subprocess.run([sys.executable, str(SCRIPT), "small", "--cpu", *sizes], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    head, *rows = map(json.loads, done.stdout.splitlines())
    assert head["device"] == "CPU" and head["matrix_tflops"] > 0
    assert [(row["what"], row["way"]) for row in rows] == [
        ("update", "repeated"),
        ("update", "packed, SDPA"),
        ("update", "recursive"),
        ("rollout", "repeated"),
        ("rollout", "forest"),
    ]
    gradients = [row["gradient"] for row in rows if row["what"] == "update"]
    assert gradients[0] > 0 and gradients == pytest.approx([gradients[0]] * 3, rel=1e-4)
    assert all(row["seconds"] > 0 and row["times"] > 0 and 0 < row["rate_share"] < 1.5 for row in rows)
