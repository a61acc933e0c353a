"""What is to be read: captioned pictures as people have them, and documents in our formats, one after another.

    a folder of pictures     NAME.jpg (or png, webp, gif, bmp, tif) with its text in NAME.txt beside it, folders below included
    NAME.jpg                 one of them, its text beside it
    captions.csv, .tsv       with a header; columns image (a path beside the file or below) and text; others are left alone
    captions.jsonl           {"image": ..., "text": ...} a line; image a path, or {"bytes": base64}
    .parquet                 columns image (path, bytes, or the struct of Hugging Face datasets) and text
    documents                a MORE folder, .jsonl or .parquet, see formats/

A folder that holds a captions file is read by that. What is wrong with one record is a Fault in its place; the others go on.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from more_r1.document import Document
from more_r1.extraction.captions import MAX_TEXT, READERS, Record, inside, raw_document, row_count, tried
from more_r1.formats.fault import Fault, Place, quoted
from more_r1.formats.more import read_more
from more_r1.formats.paths import path_fault
from more_r1.formats.scan import splits

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
CAPTIONS = ("captions.csv", "captions.tsv", "captions.jsonl")
_MEND = "give a picture or a folder of pictures with captions, a captions file, a .parquet, or documents"


@dataclass(frozen=True)
class Source:
    """Records in a fixed order, read anew by each call of `records`; memory does not grow with the pictures."""

    path: Path
    size: int
    """How many records there are, faulty ones included."""
    stamp: str
    """Changes when the source's files change (names, sizes and times, not the content of each picture)."""
    read: Callable[[], Iterator[Record]]

    def records(self, start: int = 0) -> Iterator[Record]:
        """From the record of that number on, the first being 0. Of documents that have the same id, the second becomes `ID#2`.

        Raises FormatError where a file breaks off.
        """
        return islice(_with_own_ids(self.read()), start, self.size)


def open_source(path: str | Path, split: str | None = None) -> Source:
    """See what is there; `split` is that of a MORE folder. Raises FormatError if it is nothing that can be read as a whole."""
    path = Path(path)
    place = Place(str(path))
    if path.is_dir():
        captions = [path / name for name in CAPTIONS if (path / name).is_file()]
        if len(captions) > 1:
            place.refuse(f"{captions[0].name} and {captions[1].name}", "give the one that counts")
        if captions:
            return open_source(captions[0], split)
        if (path / "txt").is_dir() and splits(path) and (path / "img_org").is_dir():
            return _more(path, split)
    elif not path.is_file():
        place.refuse("no such file or folder", _MEND)
    if split is not None:
        place.refuse(f"only a MORE folder has splits, not {quoted(split)}", "leave the split out")
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() in PICTURES:
        return _picture(path)
    reader = READERS.get(path.suffix)
    if reader is None:
        place.refuse(f"unknown kind of file {quoted(path.suffix)}", _MEND)
    size = row_count(path) if path.suffix == ".parquet" else sum(1 for _ in reader(path))
    status = path.stat()
    return Source(path, size, f"{status.st_size} {status.st_mtime_ns}", lambda: reader(path))


def _with_own_ids(records: Iterator[Record]) -> Iterator[Record]:
    seen: Counter[str] = Counter()
    for record in records:
        if isinstance(record, Document):
            id = record.id
            while seen[id]:
                seen[record.id] += 1
                id = f"{record.id}#{seen[record.id]}"
            seen[id] += 1
            record = record if id == record.id else record.model_copy(update={"id": id})
        yield record


def _more(folder: Path, split: str | None) -> Source:
    there = splits(folder)
    if split is None and len(there) > 1:
        Place(str(folder)).refuse("a folder of several splits", f"name one of {', '.join(there)}")
    faults: list[Fault] = []
    documents = read_more(folder, split or there[0], faults=faults)
    status = (folder / "txt" / f"{split or there[0]}.txt").stat()
    records: list[Record] = [*documents, *faults]
    return Source(folder, len(records), f"{split} {status.st_size} {status.st_mtime_ns}", lambda: iter(records))


def _folder(folder: Path) -> Source:
    names: list[str] = []
    stamp = hashlib.sha256()
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(place, name)
            if path.suffix.lower() in (*PICTURES, ".txt"):
                status = path.lstat()
                stamp.update(f"{path.relative_to(folder)!r} {status.st_size} {status.st_mtime_ns}".encode())
                if path.suffix.lower() != ".txt":
                    names.append(path.relative_to(folder).as_posix())
    if not names:
        Place(str(folder)).refuse("no pictures in it", _MEND)
    names.sort()
    return Source(folder, len(names), stamp.hexdigest(), lambda: (tried(_captioned, folder, name) for name in names))


def _picture(path: Path) -> Source:
    caption = path.with_suffix(".txt")
    if not caption.exists():
        Place(str(path)).refuse(
            "a picture without its text", f"give it as --text, or put it into {quoted(caption.name)} beside it"
        )
    document = _captioned(path.parent, path.name)
    status = [file.stat() for file in (path, caption)]
    return Source(path, 1, f"{[(one.st_size, one.st_mtime_ns) for one in status]}", lambda: iter([document]))


def _captioned(folder: Path, name: str) -> Document:
    place = Place(str(folder), None, quoted(name))
    if (what := path_fault(name)) is not None:
        place.refuse(what, "rename the picture")
    picture, caption = folder / name, (folder / name).with_suffix(".txt")
    for path in (picture, caption):
        inside(path, folder, place)
        if not path.is_file():  # no device and no pipe either, which would never end
            place.refuse(f"no file {quoted(path.name)}", f"put the picture's text into {quoted(caption.name)}")
    try:
        with caption.open("rb") as file:
            raw = file.read(4 * MAX_TEXT + 1)  # a character has up to four bytes
        text = raw.decode("utf-8-sig") if len(raw) <= 4 * MAX_TEXT else None
    except OSError as error:
        place.refuse(f"{quoted(caption.name)} cannot be read ({error.strerror})", "give a file that can")
    except UnicodeDecodeError:
        place.refuse("the text is not UTF-8", "save it as UTF-8")
    if text is None:
        place.refuse(f"a text of {caption.stat().st_size} bytes", f"shorten it to {MAX_TEXT} characters")
    return raw_document(name, picture, text, place)
