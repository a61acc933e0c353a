"""Predictions in files: .jsonl, one a line, or .parquet, one a row. Written in one go, read one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from more_r1.formats.fault import Place, quoted
from more_r1.formats.paths import replacing
from more_r1.reasoning.prediction import Prediction

SUFFIXES = (".jsonl", ".parquet")
_ROWS = 1000
_KINDS: dict[object, pa.DataType] = {
    str: pa.string(), str | None: pa.string(), bool: pa.bool_(), int: pa.int64(), int | None: pa.int64(),
    float | None: pa.float64(), tuple[str, ...]: pa.list_(pa.string()), tuple[int, int]: pa.list_(pa.int64()),
    tuple[float, float, float, float]: pa.list_(pa.float64()), tuple[float, ...] | None: pa.list_(pa.float64()),
}  # fmt: skip
SCHEMA = pa.schema([(name, _KINDS[field.annotation]) for name, field in Prediction.model_fields.items()])


def write_predictions(predictions: Iterable[Prediction], path: Path) -> None:
    """Write a .jsonl or .parquet file; memory does not grow with their number."""
    with replacing(path) as fresh:
        if path.suffix == ".jsonl":
            with fresh.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(prediction.model_dump_json() + "\n" for prediction in predictions)
        else:
            with pq.ParquetWriter(fresh, SCHEMA) as writer:
                rest = iter(predictions)
                while rows := list(islice(rest, _ROWS)):
                    writer.write_table(pa.Table.from_pylist([row.model_dump() for row in rows], SCHEMA))


def read_predictions(path: str | Path) -> Iterator[Prediction]:
    """Read what `write_predictions` or `more-r1 evaluate` wrote. Raises FormatError with the line or row that is wrong."""
    path = Path(path)
    place = Place(str(path))
    if path.suffix not in SUFFIXES:
        place.refuse(f"unknown kind of file {quoted(path.suffix)}", "give predictions as .jsonl or .parquet")
    try:
        if path.suffix == ".jsonl":
            with path.open("rb") as file:
                for number, raw in enumerate(file, 1):
                    if raw.strip():
                        yield _prediction(raw, Place(place.file, number))
        else:
            with pq.ParquetFile(path) as table:
                number = 0
                for batch in table.iter_batches(_ROWS):
                    for row in batch.to_pylist():
                        number += 1
                        yield _prediction(row, Place(place.file, None, f"row {number}"))
    except (OSError, pa.ArrowException) as error:
        place.refuse(f"cannot be read ({str(error).splitlines()[0]})", "give a file of predictions")


def _prediction(given: bytes | dict[str, Any], place: Place) -> Prediction:
    try:
        return Prediction.model_validate_json(given) if isinstance(given, bytes) else Prediction.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        place.refuse(f"no prediction: {field}: {quoted(first['msg'])}", "give a file that extract or evaluate wrote")
