"""Files of one JSON object a line, each line a pydantic model."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from more_r1.formats.fault import Place, quoted

M = TypeVar("M", bound=BaseModel)


def read_lines(path: Path, model: type[M], mend: str, *, appended: bool = False) -> list[M]:
    """All records in the order of the file; of one that was `appended` to, a last line that a kill cut short is left out.

    Raises FormatError with the line that cannot be read and the mend, OSError where the file cannot.
    """
    records = []
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                records.append(model.model_validate_json(raw))
            except ValidationError as error:
                if appended and not raw.endswith(b"\n"):
                    break
                first = error.errors(include_url=False)[0]
                what = " ".join(f"malformed line: {'.'.join(map(str, first['loc']))} {first['msg']}".split())
                Place(str(path), number, quoted(raw[:200].decode("utf-8", "replace"))).refuse(what, mend)
    return records
