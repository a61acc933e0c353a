"""The parts of an archive done by a Ray cluster of two processes: the same rows. Needs Ray (`make test-ray`)."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from more_r1.extraction.archive import PART, work_through
from more_r1.extraction.cluster import work_on_cluster
from more_r1.extraction.job import Job
from more_r1.extraction.outputs import extract_archive
from more_r1.extraction.predictions import read_predictions
from more_r1.synthetic.drawing import draw
from more_r1.synthetic.world import BY_KIND, Thing

pytest.importorskip("ray")


def test_a_cluster_gives_the_same_rows(tmp_path: Path) -> None:
    random, raw = Random(1), tmp_path / "raw"
    raw.mkdir()
    for number in range(2 * PART + 9):
        who = random.choice(BY_KIND["person"]).name
        draw([Thing("person", who)], "hearth", random)[0].save(raw / f"{number:03}.png")
        (raw / f"{number:03}.txt").write_text(f"{who} lives in Lume")
    job = Job(source=raw)
    told: list[tuple[int, int]] = []
    done = extract_archive(
        job,
        [tmp_path / "ray.parquet"],
        "name",
        lambda source, archive: work_on_cluster(
            job, source.size, archive, "local", 2, lambda count, total: told.append((count, total))
        ),
    )
    extract_archive(
        job, [tmp_path / "here.parquet"], "name", lambda source, archive: work_through(source, archive, job.start())
    )
    rows = list(read_predictions(tmp_path / "ray.parquet"))
    assert done.predictions == len(rows) == 2 * (2 * PART + 9)
    assert rows == list(read_predictions(tmp_path / "here.parquet"))
    assert told[-1] == (3, 3)
