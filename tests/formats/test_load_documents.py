"""`load_documents`: what a path is decides how it is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from format_samples import game

from more_r1.document import Document
from more_r1.formats import FormatError, load_documents
from more_r1.formats.jsonl import write_jsonl
from more_r1.formats.more import write_more
from more_r1.formats.parquet import write_parquet
from more_r1.schema import Schema


def ids(documents: list[Document]) -> list[str]:
    return [document.id for document in documents]


def test_each_kind_of_path(tmp_path: Path) -> None:
    write_jsonl([game("a")], tmp_path / "d.jsonl")
    write_parquet([game("b")], tmp_path / "d.parquet")
    write_more({"valid": [game("c")], "test": [game("d")]}, tmp_path / "more", Schema.more())
    write_more({"test": [game("e")]}, tmp_path / "one", Schema.more())
    assert ids(load_documents(tmp_path / "d.jsonl")) == ["a"]
    assert ids(load_documents(str(tmp_path / "d.parquet"))) == ["b"]
    assert ids(load_documents(tmp_path / "more", "test")) == ["d"]
    assert ids(load_documents(tmp_path / "one")) == ["e"]


@pytest.mark.parametrize(
    ("name", "split", "what"),
    [
        ("nothing", None, "no such file or folder"),
        ("more", None, "a folder of several splits; name one of valid, test"),
        ("more", "dev", "no split 'dev'; its splits are valid, test"),
        (".", None, "no MORE folder"),
        ("d.jsonl", "test", "a file has no split 'test'"),
        ("d.csv", None, "unknown kind of file '.csv'"),
    ],
)
def test_what_cannot_be_read_says_so(tmp_path: Path, name: str, split: str | None, what: str) -> None:
    write_jsonl([game("a")], tmp_path / "d.jsonl")
    (tmp_path / "d.csv").write_text("a,b\n")
    write_more({"valid": [game("c")], "test": [game("d")]}, tmp_path / "more", Schema.more())
    with pytest.raises(FormatError) as error:
        load_documents(tmp_path / name, split)
    assert what in str(error.value) and str(error.value).startswith(str(tmp_path / name))


def test_torch_is_not_imported_before_a_pth_is_opened() -> None:
    code = (
        "import sys, more_r1.formats.more, more_r1.formats.check, more_r1.formats.check_table, "
        "more_r1.formats.jsonl, more_r1.formats.parquet; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
