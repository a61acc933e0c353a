"""Rows and their pictures to files, one row at a time: JSON lines beside a folder of pictures, or Parquet with them inside."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from more_r1.export.forms import IMAGES
from more_r1.export.pictures import png
from more_r1.reasoning.prompt import Picture

Rows = Iterable[tuple[dict[str, Any], list[Picture]]]

# Rows of a group of Parquet. Neighbours share their document's picture, and a group keeps it once: as long as its dictionary
# has room, each value of a column is written a single time.
_GROUP = 64
_DICTIONARY_BYTES = 2**30


class Lines:
    """JSON lines in a folder whose `images/` holds each picture once, named by relative paths."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[Picture, str] = {}

    def write(self, name: str, rows: Rows) -> None:
        """Write `name`.jsonl."""
        with (self._folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for row, pictures in rows:
                images = [self._name(picture) for picture in pictures]
                file.write(json.dumps({**row, "images": images}, ensure_ascii=False) + "\n")

    def _name(self, picture: Picture) -> str:
        if picture not in self._names:
            name, data = png(picture)
            (self._folder / "images").mkdir(exist_ok=True)
            (self._folder / "images" / name).write_bytes(data)
            self._names[picture] = f"images/{name}"
        return self._names[picture]


def write_parquet(file: Path, columns: list[tuple[str, pa.DataType]], rows: Rows) -> None:
    """Write rows with their pictures inside. `datasets` decodes `images` by itself, as its own files have it."""
    metadata = {"huggingface": json.dumps({"info": {"features": {"images": [{"_type": "Image"}]}}})}
    schema = pa.schema(columns, metadata=metadata)
    with pq.ParquetWriter(file, schema, dictionary_pagesize_limit=_DICTIONARY_BYTES) as writer:
        group: list[dict[str, Any]] = []
        for row, pictures in rows:
            images = [{"bytes": data, "path": name} for name, data in map(png, pictures)]
            group.append({**row, IMAGES[0]: images})
            if len(group) == _GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))
