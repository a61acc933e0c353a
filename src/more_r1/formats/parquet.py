"""Parquet as Hugging Face `datasets` has it, with a column `image` that it shows as pictures. pyarrow alone does the work."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from more_r1.document import Document
from more_r1.formats.fault import Place
from more_r1.formats.paths import replacing
from more_r1.formats.record import from_record, picture_bytes, picture_path, to_record

# Pictures make rows large: this many at a time are held in memory.
_ROWS = 100

_BOX = pa.struct([(side, pa.float64()) for side in ("cx", "cy", "w", "h")])
_SPAN = pa.struct([("start", pa.int64()), ("end", pa.int64())])
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_FIELDS: dict[str, pa.DataType] = {
    "id": pa.string(),
    "image": _IMAGE,
    "tokens": pa.list_(pa.string()),
    "objects": pa.list_(pa.struct([("id", pa.string()), ("box", _BOX), ("type", pa.string())])),
    "entities": pa.list_(pa.struct([("id", pa.string()), ("span", _SPAN), ("type", pa.string())])),
    "pairs": pa.list_(
        pa.struct([("object", pa.string()), ("entity", pa.string()), ("label", pa.string()), ("hops", pa.int64())])
    ),
}


def write_parquet(documents: Iterable[Document], path: str | Path) -> None:
    """Write one row a document, its picture inside the file. `datasets.Dataset.from_parquet` shows an Image feature."""
    features = {name: _feature(kind) for name, kind in _FIELDS.items()}
    schema = pa.schema(list(_FIELDS.items()), metadata={"huggingface": json.dumps({"info": {"features": features}})})
    with replacing(Path(path)) as fresh, pq.ParquetWriter(fresh, schema) as writer:
        rows: list[dict[str, Any]] = []
        for document in documents:
            name = document.image.name if isinstance(document.image, Path) else None
            rows.append({**to_record(document), "image": {"bytes": picture_bytes(document.image), "path": name}})
            if len(rows) == _ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))


def read_parquet(path: str | Path) -> list[Document]:
    """Read documents in the order of the rows; columns that are not ours are left alone.

    A row without the picture's bytes names it by a path relative to the file. Raises FormatError.
    """
    place = Place(str(path))
    documents: list[Document] = []
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in _FIELDS if name not in file.schema_arrow.names]
            if missing:
                place.refuse(f"no column {', '.join(missing)}", f"a file of documents has {', '.join(_FIELDS)}")
            for batch in file.iter_batches(_ROWS, columns=list(_FIELDS)):
                for row in batch.to_pylist():
                    documents.append(document_of_row(row, Place(place.file, None, f"row {len(documents) + 1}")))
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        place.refuse(f"not a readable Parquet file ({str(error).splitlines()[0]})", "write it by `write_parquet`")
    return documents


def document_of_row(row: dict[str, Any], place: Place) -> Document:
    """The document of one row; pictures are named relative to the file of `place`. Raises FormatError."""
    image = row.pop("image")
    if not isinstance(image, dict) or not isinstance(image.get("bytes") or image.get("path"), bytes | str):
        place.refuse("no picture", "give `image` as a struct of bytes and path, one of them filled")
    return from_record(row, image["bytes"] if image.get("bytes") else picture_path(image["path"], place), place)


def _feature(kind: pa.DataType) -> Any:
    """The type as `datasets` writes it down, lists in the form that its old versions read too."""
    if kind == _IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    if pa.types.is_struct(kind):
        return {child.name: _feature(child.type) for child in kind}
    return {"dtype": "float64" if kind == pa.float64() else str(kind), "_type": "Value"}
