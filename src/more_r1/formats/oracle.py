"""The sidecar `oracle/SPLIT.jsonl` of the embedded benchmark: what its world knows of each pair beyond the MORE files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from more_r1.formats.lines import read_lines
from more_r1.formats.paths import replacing


class OracleFact(BaseModel):
    """One pair. `img_id` is the document's id; `completion` the gold trace as text; None is what nobody knows."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    img_id: str
    object: str
    span: tuple[int, int]
    object_type: str | None = None
    entity_type: str | None = None
    label: str | None = None
    hops: int | None = None
    completion: str | None = None


def read_oracle(path: Path) -> list[OracleFact]:
    """All pairs in the order of the file. Raises FormatError with the line that cannot be read."""
    return read_lines(path, OracleFact, "write one JSON object a line, as `more-r1 data synth` does, or delete the file")


def write_oracle(facts: Iterable[OracleFact], path: Path) -> None:
    """Write one JSON object a line."""
    with replacing(path) as fresh, fresh.open("w", encoding="utf-8", newline="\n") as file:
        for fact in facts:
            file.write(json.dumps(fact.model_dump(), ensure_ascii=False) + "\n")
