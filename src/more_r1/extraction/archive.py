"""Many documents: part by part, so that a killed run goes on where it was, and every record is answered or named once.

    FOLDER/run.json          what decides the answers; another run does not go on here
    FOLDER/00000000.jsonl    the answers of the records 0 to PART - 1, and what was wrong with which; complete or absent

The folder goes when its outputs are written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from more_r1.document import Document
from more_r1.extraction.captions import Record
from more_r1.extraction.raw import Source
from more_r1.formats.fault import Fault, FormatError, Place, quoted
from more_r1.formats.paths import lock, replacing
from more_r1.reasoning.prediction import Prediction

PART = 64
"""Records a part: enough to fill the machine, few enough to lose little to a kill."""


@dataclass(frozen=True)
class Answers:
    """What came of some records: each is in one of the two."""

    predictions: list[Prediction]
    faults: list[Fault]


@dataclass(frozen=True)
class Worker:
    """Answers records. `prepare` gives a document its objects and entities, `ask` the predictions of its pairs."""

    prepare: Callable[[Document], Document]
    ask: Callable[[Sequence[Document]], Iterable[Prediction]]

    def __call__(self, records: Iterable[Record]) -> Answers:
        """What is wrong with a record, be it the text, the picture or that there is nothing to ask, costs no other one."""
        faults: list[Fault] = []
        ready: list[Document] = []
        for record in records:
            if isinstance(record, Fault):
                faults.append(record)
                continue
            try:
                document = self.prepare(record)
            except (ValueError, OSError) as error:
                faults.append(_fault(record, error))
                continue
            missing = [name for name, found in (("object", document.objects), ("entity", document.entities)) if not found]
            if missing:
                faults.append(Fault(document.id, None, "", f"nothing to ask, no {' and no '.join(missing)} found", _MEND))
            else:
                ready.append(document)
        try:
            return Answers(list(self.ask(ready)) if ready else [], faults)
        except (ValueError, OSError):
            pass
        # One of them cannot be asked: each by itself.
        predictions: list[Prediction] = []
        for document in ready:
            try:
                predictions += self.ask([document])
            except (ValueError, OSError) as error:
                faults.append(_fault(document, error))
        return Answers(predictions, faults)


_MEND = "give them, or choose other proposers"


class ArchiveError(ValueError):
    """An archive that cannot go on; the message names the folder and the mend."""


class Archive:
    """The parts of one run. Raises ArchiveError if the folder holds another run's, FormatError if another process
    works on it.

    `identity` is all that decides the answers, as plain JSON.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        self._lock = lock(folder)
        file = folder / "run.json"
        if file.exists():
            try:
                before = json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                before = None
            if before != (now := json.loads(json.dumps(identity))):
                self._lock.release()
                changed = [key for key in now if not isinstance(before, dict) or before.get(key) != now[key]]
                raise ArchiveError(
                    f"{folder}: an unfinished run with another {', '.join(changed)}; go on with that, or delete the folder"
                )
        else:
            with replacing(file) as fresh:
                fresh.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release()

    def missing(self, size: int) -> list[int]:
        """The numbers of the parts that are still to be done, of a source of so many records."""
        return [number for number in range(-(-size // PART)) if not part(self.folder, number).exists()]

    def answers(self, size: int) -> Iterator[Prediction | Fault]:
        """All answers and faults in the order of the source, read from the parts."""
        for number in range(-(-size // PART)):
            yield from read_part(part(self.folder, number))

    def discard(self) -> None:
        """Remove the folder: at once for whoever looks, so that no half of it is taken for a run."""
        gone = self.folder.with_name(f".{self.folder.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        self.folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


class Parts:
    """The records of a source by parts; asked in order, it goes through the source once."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._at, self._records = 0, source.records()

    def __getitem__(self, number: int) -> list[Record]:
        start = number * PART
        if start < self._at:
            self._at, self._records = 0, self._source.records()
        next(islice(self._records, start - self._at, start - self._at), None)  # passes over what lies between
        self._at = start + PART
        return list(islice(self._records, PART))


def work_through(source: Source, archive: Archive, worker: Worker, progress: Callable[[int, int], None] | None = None) -> None:
    """Do the parts that are missing, one after another. `progress` is told (records done, records in all)."""
    parts = Parts(source)
    missing = archive.missing(source.size)
    for done, number in enumerate(missing):
        if progress is not None:
            progress(max(source.size - (len(missing) - done) * PART, 0), source.size)
        write_part(part(archive.folder, number), worker(parts[number]))
    if progress is not None:
        progress(source.size, source.size)


def part(folder: Path, number: int) -> Path:
    """The file of the part of that number."""
    return folder / f"{number:08}.jsonl"


def write_part(path: Path, answers: Answers) -> None:
    """Write a part, on the disk before it is there."""
    with replacing(path) as fresh, fresh.open("w", encoding="utf-8", newline="\n") as file:
        for prediction in answers.predictions:
            file.write(f'{{"prediction": {prediction.model_dump_json()}}}\n')
        for fault in answers.faults:
            # In ASCII: a name of a stranger's file may hold half characters.
            file.write(json.dumps({"fault": asdict(fault)}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_part(path: Path) -> Iterator[Prediction | Fault]:
    """What `write_part` wrote. Raises FormatError for anything else."""
    try:
        with path.open("rb") as file:
            for raw in file:
                line = json.loads(raw)
                yield Fault(**line["fault"]) if "fault" in line else Prediction.model_validate(line["prediction"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        Place(str(path)).refuse(f"a part that cannot be read ({quoted(error)})", "delete it; it is then done again")


def write_faults(faults: Iterable[Fault], path: Path) -> int:
    """Write the side file, one JSON object a line; no file for no faults. How many there are."""
    count = 0
    with replacing(path) as fresh, fresh.open("w", encoding="utf-8", newline="\n") as file:
        for fault in faults:
            file.write(json.dumps(asdict(fault)) + "\n")
            count += 1
    if not count:
        path.unlink()
    return count


def _fault(document: Document, error: Exception) -> Fault:
    if isinstance(error, FormatError):
        return error.fault
    return Fault(document.id, None, "", " ".join(str(error).split())[:500], "mend the record, or leave it out")
