"""benchmarks/extract.py at a size that proves nothing about speed: both sides give the same answers, its figures are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from more_r1.synthetic.benchmark import write_benchmark

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "extract.py"


def test_both_sides_give_the_same_answers(tmp_path: Path) -> None:
    for _ in write_benchmark(tmp_path, 60, 3):
        pass
    small = ["--documents", "1", "--long-documents", "1", "--long", "100/5/1/5", "--batches", "5", "--repeats", "1"]
    command = [sys.executable, str(SCRIPT), "--data", str(tmp_path), *small]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    same, broken = map(int, re.findall(r"tiny, 1 documents .*: (\d) of 5 answers the same, (\d) where", done.stdout)[0])
    assert same + broken == 5 and same >= 4
    assert "completions of 5 tokens, 1 documents of 5 pairs: 5 texts the same" in done.stdout
    ratios = [float(ratio) for ratio in re.findall(r"CPU time, ratio (\d+\.\d+)", done.stdout)]
    assert len(ratios) == 2 and all(0.1 < ratio < 100 for ratio in ratios)
