"""benchmarks/grpo.py at a size that proves nothing: its figures are there, and the two sides do the same work."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from more_r1.models.load import save_backbone
from more_r1.models.tiny import build_tiny

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "grpo.py"
PROMPT, COMPLETION, GROUP, PAIRS = 100, 5, 2, 2


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def figures(label: str, told: str) -> list[float]:
    (line,) = re.findall(rf"^  {label} +(.*)$", told, re.MULTILINE)[:1]
    return [float(number) for number in re.findall(r"\d+\.?\d*", line)]


def test_both_sides_take_a_step_of_as_many_tokens() -> None:
    told = run("--cases", f"{PROMPT}/{COMPLETION}/{GROUP}/{PAIRS}", "--memory", "--repeats", "2")
    assert f"{GROUP * PAIRS * (PROMPT + COMPLETION)} tokens a step on both sides" in told
    ours, theirs, ratio, least, most = figures("CPU s", told)
    assert 0 < ours < 60 and 0 < theirs < 60
    assert least <= ratio <= most and ratio > 0.3
    wall = figures("wall s", told)
    assert wall[0] >= 0.9 * ours and wall[1] >= 0.9 * theirs
    arithmetic, share = figures("floor", told)
    # Rounded to a hundredth of a second.
    assert 0 < share <= 110 and abs(arithmetic / ours - share / 100) < 0.1


def test_a_peak_is_more_than_what_is_kept(tmp_path: Path) -> None:
    backbone = build_tiny([f"w{i}" for i in range(1900)], 0)
    save_backbone(backbone, tmp_path / "model")
    told = json.loads(run("--peak", "recursive", str(tmp_path / "model"), f"{PROMPT}/{COMPLETION}/{GROUP}"))
    # AdamW's two moments of each weight that learns are new with the first step.
    learned = sum(p.nbytes for name, p in backbone.model.named_parameters() if ".visual." not in name)
    assert 2 * learned < told["bytes"] < 2**30
    assert 0 < told["cpu"] < 60
