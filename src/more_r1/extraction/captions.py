"""Files of captions and of documents, record by record: .csv, .tsv, .jsonl, .parquet. See raw.py for their columns."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec

import pyarrow as pa
import pyarrow.parquet as pq

from more_r1.document import Document
from more_r1.extraction.words import tokenise
from more_r1.formats.fact import is_text
from more_r1.formats.fault import Fault, FormatError, Place, quoted
from more_r1.formats.jsonl import document_of_line
from more_r1.formats.parquet import document_of_row
from more_r1.formats.record import picture_path

Record = Document | Fault
"""One record of a source: the document, or what is wrong with it."""
Given = ParamSpec("Given")

# The text of a picture, in characters; headlines have a hundred.
MAX_TEXT = 10_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
# A line of JSON may hold a picture.
_MAX_LINE = 256 * 2**20
_ROWS = 20
_DOCUMENT = ("tokens", "objects", "entities", "pairs")


def raw_document(id: str, image: Path | bytes, text: object, place: Place) -> Document:
    """A captioned picture as a document without objects and entities. Raises FormatError for a text that is none."""
    if not isinstance(text, str) or not text.strip():
        place.refuse("no text", "give each picture its caption")
    if len(text) > MAX_TEXT:
        place.refuse(f"a text of {len(text)} characters", f"shorten it to {MAX_TEXT}")
    if not is_text(text):
        place.refuse("the text is not UTF-8", "save it as UTF-8")
    tokens = tokenise(_CONTROL.sub(" ", text))  # a terminal would act on control codes
    if not tokens:
        place.refuse("no text", "give each picture its caption")
    return Document(id=id, image=image, tokens=tokens)


def tried(make: Callable[Given, Document], *given: Given.args, **named: Given.kwargs) -> Record:
    """The document that `make` reads, or what is wrong with it."""
    try:
        return make(*given, **named)
    except FormatError as error:
        return error.fault


def inside(path: Path, folder: Path, place: Place) -> None:
    """A caption goes into the output: a stranger's link must not bring in what lies elsewhere."""
    try:
        stays = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a loop of links
        stays = False
    if not stays:
        place.refuse(f"{quoted(path.name)} is a link that leads out of the folder", "put the file itself there")


def row_count(path: Path) -> int:
    """How many rows a Parquet file has. Raises FormatError if it is none."""
    try:
        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except (OSError, pa.ArrowException) as error:
        Place(str(path)).refuse(f"not a readable Parquet file ({str(error).splitlines()[0]})", "write it anew")


def _table(path: Path) -> Iterator[Record]:
    """Records of a .csv, or of a .tsv, in which quotes mean nothing."""
    # Bytes that are not UTF-8 become lone surrogates, so that they cost their own record only.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        tabs = path.suffix == ".tsv"
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(file)
        header: list[str] | None = None
        while True:
            place = Place(str(path), rows.line_num + 1)
            try:
                row = next(rows)
            except StopIteration:
                if header is None:
                    place.refuse("no columns", "name them image and text in the first line")
                return
            except csv.Error as error:
                yield Fault(place.file, place.line, "", f"no row of a table ({error})", "close the quotes, or shorten the text")
                continue
            if header is None:
                header = [name.strip().lower() for name in row]
                if "image" not in header or "text" not in header:
                    place.refuse(f"the columns are {quoted(', '.join(header))}", "name them image and text in the first line")
            elif row:
                yield tried(_row_of_table, row, header, place)


def _row_of_table(row: list[str], header: list[str], place: Place) -> Document:
    if len(row) != len(header):
        place.refuse(f"{len(row)} columns, the first line has {len(header)}", "put texts with commas into quotes")
    image, text = row[header.index("image")], row[header.index("text")]
    return raw_document(image, _picture(image, place), text, place)


def _picture(name: str, place: Place) -> Path:
    path = picture_path(name, place)
    inside(path, Path(place.file).parent, place)
    if not path.is_file():  # no device and no pipe either, which would never end
        place.refuse(f"no picture {quoted(name)}", "put it beside the captions, or leave the line out")
    return path


def _lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, raw in enumerate(_short_lines(file), 1):
            place = Place(str(path), number)
            if raw is None:
                yield Fault(place.file, number, "", f"a line of more than {_MAX_LINE} bytes", "write one document a line")
            elif raw.strip():
                yield tried(_line, raw, place)


def _short_lines(file: BinaryIO) -> Iterator[bytes | None]:
    """The lines; None for one that is too long, which is passed over piece by piece."""
    while raw := file.readline(_MAX_LINE):
        whole = len(raw) < _MAX_LINE or raw.endswith(b"\n")
        yield raw if whole else None
        while not whole and raw:
            raw = file.readline(_MAX_LINE)
            whole = raw.endswith(b"\n")


def _line(raw: bytes, place: Place) -> Document:
    """A document, or a caption, whose text is put into tokens first."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        place.refuse(f"not JSON ({error})", "write one JSON object a line, in UTF-8")
    if not isinstance(data, dict) or "text" not in data or any(key in data for key in _DOCUMENT):
        return _with_picture(document_of_line(raw, place), place)
    image = data.get("image")
    id = data.get("id", image if isinstance(image, str) else f"line {place.line}")
    tokens = raw_document("", b"", data["text"], place).tokens
    line = json.dumps({"id": id, "image": image, "tokens": tokens}).encode()
    return _with_picture(document_of_line(line, place), place)


def _with_picture(document: Document, place: Place) -> Document:
    if isinstance(document.image, Path):
        _picture(document.image.relative_to(Path(place.file).parent).as_posix(), place)
    return document


def _rows(path: Path) -> Iterator[Record]:
    """Rows of a Parquet file: documents if it has all columns of ours, else captions."""
    place = Place(str(path))
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            documents = all(name in names for name in ("id", "image", *_DOCUMENT))
            if not documents and not {"image", "text"} <= set(names):
                place.refuse(f"the columns are {quoted(', '.join(names))}", "name them image and text")
            wanted = ["id", "image", *_DOCUMENT] if documents else [name for name in ("id", "image", "text") if name in names]
            number = 0
            for batch in file.iter_batches(_ROWS, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    read = document_of_row if documents else _captioned_row
                    yield tried(read, row, Place(place.file, None, f"row {number}"))
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        place.refuse(f"not a readable Parquet file ({str(error).splitlines()[0]})", "write it anew")


def _captioned_row(row: dict[str, Any], place: Place) -> Document:
    image = row["image"]
    name = None
    if isinstance(image, dict):
        name = image.get("path")
        image = image.get("bytes") or name
    if isinstance(image, str):
        name, image = image, _picture(image, place)
    if not isinstance(image, bytes | Path):
        place.refuse("no picture", "give `image` as a path, as bytes, or as a struct of both")
    id = row.get("id") or name or place.record
    return raw_document(str(id), image, row["text"], place)


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {".csv": _table, ".tsv": _table, ".jsonl": _lines, ".parquet": _rows}
"""The reader of a file by its suffix. All raise FormatError where the file as a whole cannot be read, or breaks off."""
