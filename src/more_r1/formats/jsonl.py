"""JSON lines: one document a line, its picture a path relative to the file or in the line as base64.

    {"id": "7", "image": "pictures/7.png", "tokens": ["Ada", "wins"],
     "objects": [{"id": "person_0", "box": {"cx": 0.5, "cy": 0.5, "w": 0.2, "h": 0.4}}],
     "entities": [{"id": "0-1", "span": {"start": 0, "end": 1}}],
     "pairs": [{"object": "person_0", "entity": "0-1", "label": "/per/per/alternate_names"}]}

A picture in the line: "image": {"bytes": "iVBORw0..."}.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from more_r1.document import Document
from more_r1.formats.fault import Place, quoted
from more_r1.formats.paths import path_fault, replacing
from more_r1.formats.record import from_record, picture_bytes, picture_path, to_record


def write_jsonl(documents: Iterable[Document], path: str | Path) -> None:
    """Write documents. Pictures in the file's folder, or below it, are named; others are put into the line."""
    path = Path(path)
    with replacing(path) as fresh, fresh.open("w", encoding="utf-8", newline="\n") as file:
        for document in documents:
            record = to_record(document)
            line = {"id": record.pop("id"), "image": _image(document.image, path.parent), **record}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_jsonl(path: str | Path) -> list[Document]:
    """Read documents in the order of the lines; empty lines are skipped. Raises FormatError with the line that is wrong."""
    documents = []
    try:
        with Path(path).open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    documents.append(document_of_line(raw, Place(str(path), number)))
    except OSError as error:
        Place(str(path)).refuse(f"cannot be read ({error.strerror})", "give a file of JSON lines")
    return documents


def document_of_line(raw: bytes, place: Place) -> Document:
    """The document of one line; pictures are named relative to the file of `place`. Raises FormatError."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        place.refuse(f"not JSON ({error})", "write one JSON object a line, in UTF-8")
    if not isinstance(data, dict) or "image" not in data:
        place.refuse("no JSON object with an 'image'", "write one document a line, with id, image and tokens")
    image = data.pop("image")
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        place.refuse("half a character (a lone surrogate such as \\ud800)", "write the character itself, in UTF-8")
    if isinstance(image, str):
        return from_record(data, picture_path(image, place), place)
    if isinstance(image, dict) and isinstance(image.get("bytes"), str):
        try:
            picture = base64.b64decode(image["bytes"], validate=True)
        except ValueError:
            place.refuse("the image's bytes are not base64", "encode the picture's file as base64")
        return from_record(data, picture, place)
    place.refuse(f"malformed image {quoted(image)}", 'give a relative path, or {"bytes": base64}')


def _image(image: Path | bytes, folder: Path) -> str | dict[str, Any]:
    if isinstance(image, Path) and image.is_relative_to(folder):
        name = image.relative_to(folder).as_posix()
        if path_fault(name) is None:
            return name
    return {"bytes": base64.b64encode(picture_bytes(image)).decode("ascii")}
