"""Archives: every record is answered or named once, whatever is wrong with it and however often the run is killed."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from more_r1.document import Box, Document, Object
from more_r1.extraction import archive as room
from more_r1.extraction.archive import Archive, ArchiveError, Worker, work_through
from more_r1.extraction.job import Job
from more_r1.extraction.outputs import extract_archive
from more_r1.extraction.predictions import read_predictions
from more_r1.extraction.raw import Source
from more_r1.extraction.words import entity_at
from more_r1.formats import FormatError
from more_r1.reasoning.prediction import Prediction

# Forked for each life of the run, with all imports done.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["more_r1.extraction.outputs"])
PART = 4


def folder_of(folder: Path, count: int, bad: Sequence[int] = ()) -> Path:
    folder.mkdir()
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, "PNG")
    for number in range(count):
        (folder / f"{number:03}.png").write_bytes(b"no picture" if number in bad else file.getvalue())
        (folder / f"{number:03}.txt").write_text(f"Maya wins prize {number}")
    return folder


def prepare(document: Document) -> Document:
    document.open_image()
    seen = Object(id="o1", box=Box(cx=0.5, cy=0.5, w=0.5, h=0.5))
    found = () if document.id == "007.png" else (entity_at(0, 1),)
    return document.model_copy(update={"objects": (seen,), "entities": found})


def answer(document: Document) -> Prediction:
    return Prediction(
        **{"document": document.id, "image": None, "tokens": document.tokens, "object": "o1", "box": (0.5, 0.5, 0.5, 0.5)},
        **{"entity": "0-1", "span": (0, 1), "gold": None, "predicted": "none", "hops": None, "objects": 1, "entities": 1},
        completion=f"of {document.text}",
    )


def ask(documents: Sequence[Document]) -> list[Prediction]:
    if any(document.id == "005.png" for document in documents):
        raise ValueError("this one cannot be asked")
    time.sleep(0.003 * len(documents))
    return [answer(document) for document in documents]


WORKER = Worker(prepare, ask)


def run(folder: str, out: str, pause: float = 0.0) -> None:
    """What a process does; `pause` seconds after each part."""
    room.PART = PART

    def work(source: Source, archive: Archive) -> None:
        work_through(source, archive, WORKER, lambda *_: time.sleep(pause))

    extract_archive(Job(source=Path(folder)), [Path(out), Path(out).with_suffix(".jsonl")], "name", work)


def accounted(out: Path) -> tuple[list[str], dict[str, str]]:
    """Documents answered, in order, and those left out with the reason."""
    side = out.with_name(f"{out.name}.left-out.jsonl")
    faults = [json.loads(line) for line in side.read_text().splitlines()] if side.exists() else []
    return [each.document for each in read_predictions(out)], {Path(f["file"]).name: f["what"] for f in faults}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PART", PART)


def test_every_record_is_answered_or_named(tmp_path: Path, small_parts: None) -> None:
    folder = folder_of(tmp_path / "data", 14, bad=[2])
    (folder / "013.txt").unlink()
    run(str(folder), str(tmp_path / "out.parquet"))
    answered, left_out = accounted(tmp_path / "out.parquet")
    assert answered == [f"{n:03}.png" for n in range(14) if n not in (2, 5, 7, 13)]
    assert set(left_out) == {"002.png", "005.png", "007.png", "data"}
    assert "not a readable image" in left_out["002.png"]
    assert left_out["005.png"] == "this one cannot be asked"
    assert left_out["007.png"] == "nothing to ask, no entity found"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data",
        "out.jsonl",
        "out.parquet",
        "out.parquet.left-out.jsonl",
    ]
    assert list(read_predictions(tmp_path / "out.jsonl")) == list(read_predictions(tmp_path / "out.parquet"))


def test_killed_thrice_each_document_is_there_once(tmp_path: Path, small_parts: None) -> None:
    count = int(os.environ.get("MORE_R1_ARCHIVE_DOCUMENTS", "60"))
    folder = folder_of(tmp_path / "data", count, bad=[9, 11])
    out = tmp_path / "out.parquet"
    parts = out.with_name("out.parquet.parts")
    done = 0
    for _ in range(3):
        process: Any = SERVER.Process(target=run, args=(str(folder), str(out), 0.02))
        process.start()
        deadline = time.monotonic() + 200
        while len(list(parts.glob("0*.jsonl"))) < done + max(2, count // PART // 5) and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert not out.exists()
        done = len(list(parts.glob("0*.jsonl")))
        (parts / ".more-r1-half.tmp").write_text('{"prediction"')  # what a kill can leave behind
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("0*.jsonl")}
    assert 6 <= len(kept) < -(-count // PART)
    last: Any = SERVER.Process(target=run, args=(str(folder), str(out)))
    last.start()
    last.join(600)
    assert last.exitcode == 0
    answered, left_out = accounted(out)
    assert Counter([*answered, *left_out]) == Counter(f"{n:03}.png" for n in range(count))
    assert len(left_out) == 4
    run(str(folder), str(tmp_path / "again.parquet"))
    assert list(read_predictions(out)) == list(read_predictions(tmp_path / "again.parquet"))


def test_parts_that_are_there_are_not_asked_again(tmp_path: Path, small_parts: None) -> None:
    job = Job(source=folder_of(tmp_path / "data", 12))
    source, asked = job.open(), []
    worker = Worker(prepare, lambda documents: [asked.append(d.id) or answer(d) for d in documents])
    told: list[tuple[int, int]] = []
    for _ in range(2):
        with Archive(tmp_path / "parts", job.identity(source)) as archive:
            work_through(source, archive, worker, lambda done, total: told.append((done, total)))
            (tmp_path / "parts" / "00000001.jsonl").unlink()
    expected = [f"{n:03}.png" for n in (*range(12), *range(4, 8)) if n != 7]
    assert asked == expected
    assert told == [(0, 12), (4, 12), (8, 12), (12, 12), (8, 12), (12, 12)]


def test_another_run_does_not_go_on_here(tmp_path: Path, small_parts: None) -> None:
    job = Job(source=folder_of(tmp_path / "data", 4))
    with Archive(tmp_path / "parts", job.identity(job.open())), pytest.raises(FormatError, match="another run writes here"):
        Archive(tmp_path / "parts", job.identity(job.open()))
    other = job.model_copy(update={"objects": "faces"})
    with pytest.raises(ArchiveError, match="another objects"):
        Archive(tmp_path / "parts", other.identity(other.open()))
    (tmp_path / "data" / "000.txt").write_text("Maya loses everything")
    with pytest.raises(ArchiveError, match="another records"):
        Archive(tmp_path / "parts", job.identity(job.open()))


def test_a_part_that_cannot_be_read_is_named(tmp_path: Path, small_parts: None) -> None:
    job = Job(source=folder_of(tmp_path / "data", 4))
    with Archive(tmp_path / "parts", job.identity(job.open())) as archive:
        (tmp_path / "parts" / "00000000.jsonl").write_text('{"prediction": 3}\n')
        with pytest.raises(FormatError, match=r"00000000.jsonl.*delete it"):
            list(archive.answers(4))


def test_the_limit_is_kept(tmp_path: Path, small_parts: None) -> None:
    job = Job(source=folder_of(tmp_path / "data", 12), limit=6)
    extract_archive(job, [tmp_path / "it.jsonl"], "name", lambda source, archive: work_through(source, archive, WORKER))
    answered, left_out = accounted(tmp_path / "it.jsonl")
    assert len(answered) + len(left_out) == 6
