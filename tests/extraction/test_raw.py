"""Raw pictures with captions: what is read, and that a stranger's record costs one line and nothing else."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from more_r1.document import Document
from more_r1.extraction.raw import Source, open_source
from more_r1.formats import FormatError, load_documents
from more_r1.formats.fault import Fault
from more_r1.formats.jsonl import write_jsonl
from more_r1.formats.parquet import write_parquet


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return file.getvalue()


PICTURE = picture()
TEXTS = {"a.png": "Maya wins , again", "b.JPG": 'Leo said "no"\nto Lume', "below/c.png": "Ida meets Omar"}
TOKENS = [("Maya", "wins", ",", "again"), ("Leo", "said", '"', "no", '"', "to", "Lume"), ("Ida", "meets", "Omar")]


def pictures(folder: Path) -> Path:
    for name in TEXTS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PICTURE)
    return folder


def as_folder(folder: Path) -> Path:
    for name, text in TEXTS.items():
        (pictures(folder) / name).with_suffix(".txt").write_text(text, encoding="utf-8")
    return folder


def as_csv(folder: Path) -> Path:
    with (pictures(folder) / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["licence", "Image", "TEXT"], *(["CC0", name, text] for name, text in TEXTS.items())])
    return folder


def as_tsv(folder: Path) -> Path:
    lines = ["image\ttext", *(f"{name}\t{' '.join(text.split())}" for name, text in TEXTS.items())]
    (pictures(folder) / "captions.tsv").write_text("\r\n".join(lines) + "\r\n")
    return folder / "captions.tsv"


def as_jsonl(folder: Path) -> Path:
    lines = [json.dumps({"image": name, "text": text, "url": "x"}) for name, text in TEXTS.items()]
    (pictures(folder) / "captions.jsonl").write_text("\n\n".join(lines))
    return folder


def as_jsonl_of_bytes(folder: Path) -> Path:
    image = {"bytes": base64.b64encode(PICTURE).decode()}
    folder.mkdir()
    lines = [json.dumps({"id": name, "image": image, "text": text}) for name, text in TEXTS.items()]
    (folder / "pictures.jsonl").write_text("\n".join(lines))
    return folder / "pictures.jsonl"


def as_parquet_of_structs(folder: Path) -> Path:
    folder.mkdir()
    rows = [{"image": {"bytes": PICTURE, "path": name}, "text": text, "extra": 1} for name, text in TEXTS.items()]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder / "rows.parquet"


def as_parquet_of_paths(folder: Path) -> Path:
    rows = [{"image": name, "text": text} for name, text in TEXTS.items()]
    pq.write_table(pa.Table.from_pylist(rows), pictures(folder) / "rows.parquet")
    return folder / "rows.parquet"


def as_parquet_of_bytes(folder: Path) -> Path:
    folder.mkdir()
    rows = [{"id": name, "image": PICTURE, "text": text} for name, text in TEXTS.items()]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder / "rows.parquet"


KINDS = [
    as_folder, as_csv, as_tsv, as_jsonl, as_jsonl_of_bytes, as_parquet_of_structs, as_parquet_of_paths, as_parquet_of_bytes,
]  # fmt: skip


def read(source: Source, start: int = 0) -> list[Document]:
    records = list(source.records(start))
    assert all(isinstance(record, Document) for record in records), records
    return [record for record in records if isinstance(record, Document)]


@pytest.mark.parametrize("make", KINDS)
def test_all_ways_to_give_captions_read_the_same(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = open_source(make(tmp_path / "data"))
    documents = read(source)
    assert source.size == 3
    assert [document.id for document in documents] == list(TEXTS)
    assert [document.tokens for document in documents] == TOKENS
    assert all(document.open_image().size == (8, 8) for document in documents)
    assert all((document.objects, document.entities, document.pairs) == ((), (), ()) for document in documents)
    assert read(source, 2) == documents[2:]


def test_documents_are_read_as_they_are(benchmark_dir: Path, tmp_path: Path) -> None:
    documents = load_documents(benchmark_dir, "test")
    write_jsonl(documents, tmp_path / "docs.jsonl")
    write_parquet(documents, tmp_path / "docs.parquet")
    assert read(open_source(benchmark_dir, "test")) == documents
    for name in ("docs.jsonl", "docs.parquet"):
        assert read(open_source(tmp_path / name)) == load_documents(tmp_path / name)


def test_the_second_caption_of_a_picture_gets_an_id_of_its_own(tmp_path: Path) -> None:
    rows = ["a.png,Maya wins", "a.png,Leo loses", "a.png#2,odd", "a.png,Ida draws"]
    (pictures(tmp_path) / "captions.csv").write_text("\n".join(["image,text", *rows]))
    (tmp_path / "a.png#2").write_bytes(PICTURE)
    assert [document.id for document in read(open_source(tmp_path))] == ["a.png", "a.png#2", "a.png#2#2", "a.png#3"]


def test_the_stamp_is_that_of_the_files(tmp_path: Path) -> None:
    as_folder(tmp_path)
    before = open_source(tmp_path).stamp
    assert open_source(tmp_path).stamp == before
    (tmp_path / "a.txt").write_text("other words than before")
    assert open_source(tmp_path).stamp != before


HOSTILE = (
    *("/etc/passwd", "../a.png", "b\\a.png", "below/../a.png", "", "a\x1b.png", "C:/a.png", "none.png", "below"),
    *("pipe.png", "out.png"),
)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_names_that_lead_elsewhere_cost_their_line_only(tmp_path: Path, kind: str) -> None:
    folder = pictures(tmp_path / "data")
    (tmp_path / "secret.png").write_bytes(PICTURE)
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(folder / "pipe.png")
    rows = [("a.png", "the first"), *((name, "words") for name in HOSTILE), ("a.png", "the last")]
    if kind == "csv":
        with (folder / "captions.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("image", "text"), *rows])
    elif kind == "jsonl":
        (folder / "captions.jsonl").write_text("".join(json.dumps({"image": i, "text": t}) + "\n" for i, t in rows))
    else:
        pq.write_table(pa.Table.from_pylist([{"image": i, "text": t} for i, t in rows]), folder / "rows.parquet")
    source = open_source(folder / "rows.parquet" if kind == "parquet" else folder)
    records = list(source.records())
    assert source.size == len(records) == len(rows)
    assert [isinstance(record, Document) for record in records] == [True, *[False] * len(HOSTILE), True]
    for record in records[1:-1]:
        assert isinstance(record, Fault)
        assert "\n" not in str(record) and "\x1b" not in str(record)


def test_captions_of_a_folder_that_are_none(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("a secret")
    for name in ("bad", "blank", "lone", "long", "linked", "loop", "marks", "piped", "good"):
        (folder / f"{name}.png").write_bytes(PICTURE)
    (folder / "bad.txt").write_bytes(b"caf\xe9")
    (folder / "blank.txt").write_text(" \n\x00")
    (folder / "long.txt").write_text("word " * 3000)
    (folder / "linked.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    os.mkfifo(folder / "piped.txt")
    (folder / "marks.txt").write_text("\ufeffMaya \x1b]0;title\x07 wins")
    (folder / "good.txt").write_text("Maya wins")
    records = {str(r.id if isinstance(r, Document) else r.record).strip("'"): r for r in open_source(folder).records()}
    assert {name for name, record in records.items() if isinstance(record, Document)} == {"good.png", "marks.png"}
    marks = records["marks.png"]
    assert isinstance(marks, Document) and "\x1b" not in marks.text and marks.tokens[0] == "Maya"
    words = {
        "bad": "UTF-8",
        "blank": "no text",
        "lone": "no file",
        "long": "characters",
        "linked": "link",
        "loop": "link",
        "piped": "no file",
    }
    for name, word in words.items():
        assert word in str(records[f"{name}.png"]), name


@pytest.mark.parametrize("row", [b"a.png,caf\xe9", b"a.png", b'a.png,"' + b"x" * 200_000 + b'"', b"a.png,"])
def test_a_row_that_is_none_costs_itself_only(tmp_path: Path, row: bytes) -> None:
    pictures(tmp_path)
    (tmp_path / "captions.csv").write_bytes(b"\n".join([b"image,text", b"a.png,the first", row, b"a.png,the last", b""]))
    records = list(open_source(tmp_path).records())
    assert [isinstance(record, Document) for record in records] == [True, False, True]
    assert isinstance(records[1], Fault) and records[1].line == 3 and len(str(records[1])) < 500


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("captions.csv", b"picture,caption\na.png,x\n", "name them image and text"),
        ("captions.tsv", b"", "no columns"),
        ("rows.parquet", b"PAR1 not", "Parquet"),
        ("notes.docx", b"", "unknown kind"),
    ],
)
def test_a_file_that_is_none_is_one_error(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=words):
        open_source(tmp_path / name)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no pictures"):
        open_source(tmp_path)
    with pytest.raises(FormatError, match="no such file"):
        open_source(tmp_path / "no")
    as_csv(tmp_path)
    as_tsv(tmp_path)
    with pytest.raises(FormatError, match="give the one that counts"):
        open_source(tmp_path)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["captions.csv", "captions.tsv", "captions.jsonl", "a.parquet"]))
def test_any_bytes_are_records_or_an_error_of_one_line(tmp_path_factory: pytest.TempPathFactory, raw: bytes, name: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.png").write_bytes(PICTURE)
    start = b"image,text\n" if name.endswith("csv") else b"image\ttext\n" if name.endswith("tsv") else b""
    (folder / name).write_bytes(start + raw)
    try:
        source = open_source(folder / name)
        assert len(list(source.records())) == source.size
    except FormatError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", TEXTS)
def test_one_picture_has_its_text_beside_it(name: str, tmp_path: Path) -> None:
    picture = as_folder(tmp_path / "pictures") / name
    source = open_source(picture)
    (record,) = source.records()
    assert isinstance(record, Document)
    assert (source.size, record.id, record.tokens) == (1, picture.name, dict(zip(TEXTS, TOKENS, strict=True))[name])
    picture.with_suffix(".txt").write_text("Maya wins")
    assert open_source(picture).stamp != source.stamp
    picture.with_suffix(".txt").write_bytes(b"\xff")
    with pytest.raises(FormatError, match="the text is not UTF-8"):
        open_source(picture)
    picture.with_suffix(".txt").unlink()
    with pytest.raises(FormatError, match=rf"{picture.name}: a picture without its text; give it as --text, or put it into"):
        open_source(picture)
