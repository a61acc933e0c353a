"""Append-only files of JSON lines that lose nothing to a kill, and the folder of an annotation that has two of them.

traces.jsonl has one record a call (formats.traces.TraceRecord), written once the answer is there; sent.jsonl has a line for
every request, written before it is sent: what it may cost at most. So a call that was in flight at a kill is known and counted.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from more_r1.formats.fault import Place
from more_r1.formats.paths import lock, sync
from more_r1.formats.traces import Key, TraceRecord, read_traces

TRACES = "traces.jsonl"
SENT = "sent.jsonl"
Call = tuple[Key, int]
"""A pair and the number of the attempt."""


class Lines:
    """A file to append JSON lines to, each on the disk when `append` returns. Threads may share it.

    Opening it cuts off a half-written last line; one that is whole but for its line end is kept.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._lock = threading.Lock()
        _mend(self._file, path)
        sync(path.parent)

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line. What of it was written before an error (a full disk) is taken back."""
        raw = json.dumps(line, ensure_ascii=True).encode() + b"\n"
        with self._lock:
            end = os.lseek(self._file, 0, os.SEEK_END)
            try:
                rest = memoryview(raw)
                while rest:
                    rest = rest[os.write(self._file, rest) :]
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, end)
                raise

    def close(self) -> None:
        """No line can be written any more."""
        os.close(self._file)


class Journal:
    """The records of one folder. FormatError if another process has it open, or a file is broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = lock(folder)
        try:
            self._traces, self._sent = Lines(folder / TRACES), Lines(folder / SENT)
            self.records = read_traces(folder / TRACES)
            self._calls: set[Call] = set()
            self._final: set[Key] = set()
            for number, record in enumerate(self.records, 1):
                self._admit(record, Place(str(folder / TRACES), number))
            self.lost = self._in_flight(folder / SENT)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._traces.close()
        self._sent.close()
        self._lock.release()

    def record(self, record: TraceRecord) -> None:
        """Keep one call's record. ValueError if there is one of this call, or a final one of this pair, already."""
        self._admit(record, Place(TRACES))
        self._traces.append(record.model_dump())
        self.records.append(record)

    def sending(self, call: Call, most: float | None) -> None:
        """A request is about to be sent; with it the call may have cost `most` in all, its earlier requests included."""
        (image, object, span), attempt = call
        self._sent.append({"img_id": image, "object": object, "span": span, "attempt": attempt, "most": most})

    def _admit(self, record: TraceRecord, place: Place) -> None:
        if (record.key, record.attempt) in self._calls or record.key in self._final:
            place.refuse(
                f"{record.key}: a second record of attempt {record.attempt}, or one after the final", "delete the line"
            )
        self._calls.add((record.key, record.attempt))
        if record.final:
            self._final.add(record.key)

    def _in_flight(self, path: Path) -> dict[Call, float]:
        """What calls that were sent, and have no record, may have cost."""
        lost: dict[Call, float] = {}
        for number, raw in enumerate(path.read_bytes().splitlines(), 1):
            try:
                line = json.loads(raw)
                start, end = line["span"]
                call = (line["img_id"], line["object"], (start, end)), line["attempt"]
                lost[call] = float(line["most"] or 0)  # the last line of a call counts for all of them
            except (ValueError, TypeError, KeyError):
                Place(str(path), number).refuse("malformed line", "delete the line; what it cost is then not counted")
        return {call: most for call, most in lost.items() if call not in self._calls}


def _mend(file: int, path: Path) -> None:
    raw = path.read_bytes()
    end = raw.rfind(b"\n") + 1
    if end == len(raw):
        return
    try:
        json.loads(raw[end:])
        os.write(file, b"\n")
    except ValueError:
        os.ftruncate(file, end)
    os.fsync(file)
