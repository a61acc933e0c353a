"""Documents in and out: the MORE layout, JSON lines, Parquet."""

from __future__ import annotations

from pathlib import Path

from more_r1.document import Document
from more_r1.formats.fault import FormatError, Place, quoted


def load_documents(path: str | Path, split: str | None = None) -> list[Document]:
    """Read documents from what is there: a folder in the MORE layout, a .jsonl or a .parquet file.

    A folder has splits: name one, unless there is just one. Faulty pairs of a folder are left out and logged, see
    `read_more`. Raises FormatError for anything that cannot be read, and for a split of a file.
    """
    path = Path(path)
    place = Place(str(path))
    if path.is_dir():
        from more_r1.formats.more import read_more
        from more_r1.formats.scan import splits

        there = splits(path)
        if not there:
            place.refuse("no MORE folder, it has no txt/*.txt", "give a MORE folder, a .jsonl or a .parquet file")
        if split is None and len(there) > 1:
            place.refuse("a folder of several splits", f"name one of {', '.join(there)}")
        return read_more(path, split or there[0])
    if not path.is_file():
        place.refuse("no such file or folder", "give a MORE folder, a .jsonl or a .parquet file")
    if split is not None:
        place.refuse(f"a file has no split {quoted(split)}", "leave the split out")
    if path.suffix == ".jsonl":
        from more_r1.formats.jsonl import read_jsonl

        return read_jsonl(path)
    if path.suffix == ".parquet":
        from more_r1.formats.parquet import read_parquet

        return read_parquet(path)
    place.refuse(f"unknown kind of file {quoted(path.suffix)}", "give a MORE folder, a .jsonl or a .parquet file")


__all__ = ["FormatError", "load_documents"]
