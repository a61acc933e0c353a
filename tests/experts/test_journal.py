"""The journal: append-only, one record a call, nothing lost to a kill, one run a folder."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from more_r1.experts.journal import Journal
from more_r1.formats.fault import FormatError
from more_r1.formats.traces import TraceRecord, read_completions, read_traces


def record(number: int, attempt: int = 1, final: bool = True, **more: object) -> TraceRecord:
    given = {"img_id": f"{number}.png", "object": "o", "span": (0, 1), "label": "none", "expert": "e", "fingerprint": "f"}
    text = {"attempt": attempt, "completion": "Zürich \u2028 <think>\n", "verdict": "accepted", "final": final}
    return TraceRecord.model_validate(given | text | more)


def write(folder: Path, count: int) -> bytes:
    with Journal(folder) as journal:
        for number in range(count):
            journal.record(record(number))
    return (folder / "traces.jsonl").read_bytes()


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    write(tmp_path, 3)
    assert read_traces(tmp_path / "traces.jsonl") == [record(number) for number in range(3)]
    with Journal(tmp_path) as journal:
        assert journal.records == [record(number) for number in range(3)]
        journal.record(record(3))
    assert len(read_traces(tmp_path / "traces.jsonl")) == 4


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_file_cut_anywhere_keeps_every_whole_record_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    raw = write(folder, 3)
    cut = data.draw(st.integers(0, len(raw)))
    (folder / "traces.jsonl").write_bytes(raw[:cut])
    # A record is whole with its last brace; the line end after it adds nothing.
    whole = raw[:cut].count(b"\n") + (raw[:cut].endswith(b"}"))
    assert len(read_traces(folder / "traces.jsonl")) == whole
    with Journal(folder) as journal:
        assert len(journal.records) == whole
        journal.record(record(7))
    assert [one.img_id for one in read_traces(folder / "traces.jsonl")] == [*(f"{n}.png" for n in range(whole)), "7.png"]
    assert (folder / "traces.jsonl").read_bytes().startswith(raw[: raw[:cut].rfind(b"\n") + 1])


def test_a_call_is_recorded_once_and_nothing_after_the_final(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.record(record(1, 1, final=False))
        with pytest.raises(FormatError, match="second record of attempt 1"):
            journal.record(record(1, 1))
        journal.record(record(1, 2))
        with pytest.raises(FormatError, match="after the final"):
            journal.record(record(1, 3))
    assert [(one.attempt, one.final) for one in read_traces(tmp_path / "traces.jsonl")] == [(1, False), (2, True)]


def test_two_final_records_in_a_file_are_refused_with_the_line(tmp_path: Path) -> None:
    raw = write(tmp_path, 2)
    (tmp_path / "traces.jsonl").write_bytes(raw + raw.splitlines(keepends=True)[0])
    with pytest.raises(FormatError, match=r"traces\.jsonl:3: .*delete the line"):
        Journal(tmp_path)


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    raw = write(tmp_path, 2)
    (tmp_path / "traces.jsonl").write_bytes(b'{"img_id": "x"\n' + raw)
    with pytest.raises(FormatError, match=r"traces\.jsonl:1"):
        read_traces(tmp_path / "traces.jsonl")
    with pytest.raises(FormatError, match=r"traces\.jsonl:1"):
        Journal(tmp_path)


def _try(folder: Path, answer: multiprocessing.queues.Queue[str]) -> None:
    try:
        with Journal(folder):
            answer.put("in")
    except FormatError as error:
        answer.put(str(error))


def test_two_runs_on_one_folder_are_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answer = context.Queue()

    def other() -> str:
        process = context.Process(target=_try, args=(tmp_path, answer))
        process.start()
        process.join()
        return str(answer.get(timeout=10))

    with Journal(tmp_path):
        assert "another run writes here" in other()
        with pytest.raises(FormatError, match="another run writes here"):
            Journal(tmp_path)
    assert other() == "in"


def test_what_was_in_flight_at_a_kill_is_counted_at_its_last_line(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.sending((record(1).key, 1), 2.0)
        journal.record(record(1))
        journal.sending((record(2).key, 1), 3.0)
        journal.sending((record(2).key, 1), 5.0)
        journal.sending((record(3).key, 2), None)
    with Journal(tmp_path) as journal:
        assert journal.lost == {(record(2).key, 1): 5.0, (record(3).key, 2): 0.0}


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path) as journal:
        journal.record(record(1))
        before = (tmp_path / "traces.jsonl").read_bytes()
        real = os.write

        def half(file: int, raw: bytes) -> int:
            real(file, raw[:20])
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", half)
            with pytest.raises(OSError, match="No space"):
                journal.record(record(2))
    assert (tmp_path / "traces.jsonl").read_bytes() == before


def test_only_accepted_final_records_are_completions(tmp_path: Path) -> None:
    lines = [
        record(1, 1, final=False, verdict="form").model_dump(),
        record(1, 2, completion="yes").model_dump(),
        record(2, verdict="refusal").model_dump(),
        {"img_id": "3.png", "object": "o", "span": [0, 1], "completion": "of an oracle"},
        {"img_id": "4.png", "object": "o", "span": [0, 1], "completion": None},
    ]
    file = tmp_path / "traces.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_completions(file) == {("1.png", "o", (0, 1)): "yes", ("3.png", "o", (0, 1)): "of an oracle"}
