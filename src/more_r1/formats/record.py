"""Document <-> plain record, as JSON lines and Parquet both hold it; only the picture differs between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from more_r1.document import Document
from more_r1.formats.fault import Place, quoted
from more_r1.formats.paths import path_fault


def to_record(document: Document) -> dict[str, Any]:
    """Everything but the picture, as strings, numbers, lists and dicts."""
    return document.model_dump(mode="json", exclude={"image"})


def from_record(record: dict[str, Any], image: Path | bytes, place: Place) -> Document:
    """Raises FormatError for what is no document, and for boxes that are empty or outside of the picture."""
    name = f"document {quoted(record.get('id'))}"
    place = Place(place.file, place.line, f"{place.record}, {name}" if place.record else name)
    try:
        document = Document.model_validate({**record, "image": image})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        place.refuse(f"{field}: {what}" if field else what, "see Document for the fields of a record")
    for object in document.objects:
        if (fault := object.box.fault()) is not None:
            place.refuse(f"object {quoted(object.id)}: {fault}", "give cx, cy, w, h as fractions of the image")
    return document


def picture_path(name: str, place: Place) -> Path:
    """The picture of that name beside the file; it may lie in folders below. Raises FormatError if it could be elsewhere."""
    if (what := path_fault(name)) is not None:
        place.refuse(f"unsafe image {quoted(name)}: {what}", "give a path relative to the file, inside its folder")
    return Path(place.file).parent / name


def picture_bytes(image: Path | bytes) -> bytes:
    """The encoded picture. Raises FormatError if it cannot be read."""
    if isinstance(image, bytes):
        return image
    try:
        return image.read_bytes()
    except OSError as error:
        Place(str(image)).refuse(f"the picture cannot be read ({error.strerror})", "put it there")
