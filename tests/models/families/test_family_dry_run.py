"""A dry run counts and checks with a model of any family; memory and hours are known of Qwen2.5-VL."""

from __future__ import annotations

from pathlib import Path

import yaml
from tiny_families import Both
from typer.testing import CliRunner

from more_r1.cli import app


def test_a_dry_run_counts_for_every_family(both: Both, benchmark_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    given = {"out": str(tmp_path / "run"), "model": str(both.folder), "data": str(benchmark_dir)}
    file.write_text(yaml.safe_dump({**given, "sft": {}, "difficulty": {}, "grpo": {}}))
    done = CliRunner().invoke(app, ["train", str(file), "--dry-run"], catch_exceptions=False)
    assert done.exit_code == 0
    parameters = sum(parameter.numel() for parameter in both.stock.parameters())
    assert f"{parameters:,} parameters" in done.output and "left to stage 2" in done.output
    estimated = both.kind == "qwen2_5_vl"
    assert ("MB peak" in done.output, "no estimate" in done.output) == (estimated, not estimated)
