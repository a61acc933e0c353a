"""JSON lines and Parquet: any document comes back, pictures included; what is no document costs one clear line."""

from __future__ import annotations

import base64
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_samples import box, documents, game, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from more_r1.document import Document, Object
from more_r1.formats import FormatError
from more_r1.formats.jsonl import read_jsonl, write_jsonl
from more_r1.formats.parquet import read_parquet, write_parquet

some = st.integers(0, 3).flatmap(lambda n: st.tuples(*(documents(str(i)) for i in range(n)))).map(list)


@settings(max_examples=60, deadline=None)
@given(some)
def test_any_documents_come_back_from_json_lines(written: list[Document]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_jsonl(written, Path(folder) / "d.jsonl")
        assert read_jsonl(Path(folder) / "d.jsonl") == written
        assert len((Path(folder) / "d.jsonl").read_bytes().splitlines()) == len(written)


@settings(max_examples=60, deadline=None)
@given(some)
def test_any_documents_come_back_from_parquet(written: list[Document]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_parquet(written, Path(folder) / "d.parquet")
        assert read_parquet(Path(folder) / "d.parquet") == written


def test_more_rows_than_one_group_come_back_in_order(tmp_path: Path) -> None:
    written = [game(str(number)) for number in range(205)]
    write_parquet(iter(written), tmp_path / "d.parquet")
    assert read_parquet(tmp_path / "d.parquet") == written
    assert pq.ParquetFile(tmp_path / "d.parquet").num_row_groups == 3


def test_json_lines_name_pictures_beside_them_and_hold_others(tmp_path: Path) -> None:
    for place in ("data/pictures/near.png", "far.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(picture())
    near = game("near", image=tmp_path / "data/pictures/near.png")
    far = game("far", image=tmp_path / "far.png")
    write_jsonl([near, far], tmp_path / "data/d.jsonl")
    assert json.loads((tmp_path / "data/d.jsonl").read_text().splitlines()[0])["image"] == "pictures/near.png"
    assert read_jsonl(tmp_path / "data/d.jsonl") == [near, game("far")]
    (tmp_path / "data").rename(tmp_path / "moved")
    assert read_jsonl(tmp_path / "moved/d.jsonl")[0].open_image().size == (40, 20)


def test_parquet_holds_pictures_itself(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(picture())
    write_parquet([game(image=tmp_path / "p.png")], tmp_path / "d.parquet")
    assert read_parquet(tmp_path / "d.parquet") == [game()]


def test_parquet_may_name_a_picture_beside_it(tmp_path: Path) -> None:
    row(tmp_path / "d.parquet", image={"bytes": None, "path": "sub/p.png"})
    assert read_parquet(tmp_path / "d.parquet") == [game(image=tmp_path / "sub/p.png")]


def test_datasets_sees_pictures_and_gives_them_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    written = [game("a"), game("b", image=picture("blue"))]
    write_parquet(written, tmp_path / "d.parquet")
    cache = str(tmp_path / "cache")
    splits = datasets.load_dataset("parquet", data_files={"test": str(tmp_path / "d.parquet")}, cache_dir=cache)
    splits.save_to_disk(str(tmp_path / "disk"))
    for loaded in (
        datasets.Dataset.from_parquet(str(tmp_path / "d.parquet"), cache_dir=cache),
        splits["test"],
        datasets.load_from_disk(str(tmp_path / "disk"))["test"],
    ):
        assert isinstance(loaded.features["image"], datasets.Image)
        assert loaded[1]["image"].convert("RGB").getpixel((0, 0)) == (0, 0, 255)
        assert loaded[0]["tokens"] == list(game().tokens)
        assert loaded[0]["objects"][0]["box"] == game().objects[0].box.model_dump()
        assert [pair["hops"] for pair in loaded[0]["pairs"]] == [1, 2, None]
        loaded.to_parquet(str(tmp_path / "again.parquet"))
        assert read_parquet(tmp_path / "again.parquet") == written


def test_a_table_made_by_datasets_reads(tmp_path: Path) -> None:
    import datasets

    record = {**json.loads(game().model_dump_json(exclude={"image"})), "image": Image.open(io.BytesIO(picture())), "extra": 1}
    features = datasets.Features(
        {**datasets.Dataset.from_list([{**record, "image": None}]).features, "image": datasets.Image()}
    )
    datasets.Dataset.from_list([record], features=features).to_parquet(str(tmp_path / "d.parquet"))
    (read,) = read_parquet(tmp_path / "d.parquet")
    assert read.open_image().getpixel((0, 0)) == (255, 0, 0)
    assert read.model_copy(update={"image": picture()}) == game()


# --- what is refused --------------------------------------------------------------------------------------------------


def row(path: Path, **changes: Any) -> None:
    write_parquet([game()], path)
    table = pq.read_table(path)
    for name, value in changes.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.names.index(name), field, pa.array([value], field.type))
    pq.write_table(table, path)


def line(path: Path, **changes: Any) -> None:
    record = {**json.loads(game().model_dump_json(exclude={"image"})), "image": "p.png", **changes}
    path.write_text("\n" + json.dumps({key: value for key, value in record.items() if value is not ...}) + "\n")


def outside() -> list[dict[str, Any]]:
    objects = (*game().objects, Object(id="far", box=box(0.5, 0.5, 1.5, 1.0)))
    return [object.model_dump() for object in objects]


BAD_LINES: dict[str, tuple[dict[str, Any], str]] = {
    "no id": ({"id": ...}, "id: Field required"),
    "unknown field": ({"colour": "red"}, "colour: Extra inputs"),
    "no image": ({"image": ...}, "no JSON object with an 'image'"),
    "image a number": ({"image": 7}, "malformed image '7'"),
    "image no base64": ({"image": {"bytes": "*"}}, "not base64"),
    "climbing image": ({"image": "a/../../p.png"}, "unsafe image"),
    "absolute image": ({"image": "/etc/passwd"}, "an absolute path"),
    "image with a NUL": ({"image": "p\0.png"}, "control characters"),
    "pair of nothing": ({"pairs": [{"object": "nobody", "entity": "0-2"}]}, "names what is not there"),
    "span outside": ({"entities": [{"id": "e", "span": {"start": 3, "end": 9}}], "pairs": []}, "spans tokens [3, 9) of 5"),
    "box outside": ({"objects": outside()}, "object 'far': box outside the image"),
    "half a character": ({"tokens": ["\ud800"]}, "half a character"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    changes, what = BAD_LINES[name]
    line(tmp_path / "d.jsonl", **changes)
    with pytest.raises(FormatError) as error:
        read_jsonl(tmp_path / "d.jsonl")
    assert str(error.value).startswith(f"{tmp_path / 'd.jsonl'}:2: ") and what in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("raw", [b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"image": "p.png"', b"NaN"])
def test_a_line_that_is_no_object_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "d.jsonl").write_bytes(raw)
    with pytest.raises(FormatError, match=r"d\.jsonl:1: "):
        read_jsonl(tmp_path / "d.jsonl")


BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "no picture": ({"image": None}, "no picture"),
    "empty picture": ({"image": {"bytes": None, "path": None}}, "no picture"),
    "climbing picture": ({"image": {"bytes": None, "path": "../p.png"}}, "unsafe image"),
    "no tokens": ({"tokens": None}, "tokens: Input should be"),
    "box outside": ({"objects": outside()}, "object 'far': box outside the image"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_refused_with_its_document(tmp_path: Path, name: str) -> None:
    changes, what = BAD_ROWS[name]
    row(tmp_path / "d.parquet", **changes)
    with pytest.raises(FormatError) as error:
        read_parquet(tmp_path / "d.parquet")
    assert str(error.value).startswith(f"{tmp_path / 'd.parquet'}: row 1") and what in str(error.value)
    assert "\n" not in str(error.value)


def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "tokens": [["b"]]}), tmp_path / "d.parquet")
    with pytest.raises(FormatError, match="no column image, objects, entities, pairs"):
        read_parquet(tmp_path / "d.parquet")
    for raw in (b"", b"PAR1" * 9, os.urandom(100)):
        (tmp_path / "d.parquet").write_bytes(raw)
        with pytest.raises(FormatError, match="not a readable Parquet file"):
            read_parquet(tmp_path / "d.parquet")


@pytest.mark.parametrize(("write", "name"), [(write_jsonl, "d.jsonl"), (write_parquet, "d.parquet")])
def test_a_writing_that_fails_leaves_the_old_file(
    tmp_path: Path, write: Callable[[list[Document], Path], None], name: str
) -> None:
    write([game("old")], tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(FormatError, match="cannot be read"):
        write([game("new"), game("gone", image=tmp_path.parent / "gone.png")], tmp_path / name)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: before}


def test_the_form_in_the_docs_reads(tmp_path: Path) -> None:
    from more_r1.formats import jsonl

    text = (jsonl.__doc__ or "").split("\n\n")[1]
    (tmp_path / "d.jsonl").write_text(" ".join(text.split()) + "\n")
    (document,) = read_jsonl(tmp_path / "d.jsonl")
    assert (document.id, document.image, document.text) == ("7", tmp_path / "pictures/7.png", "Ada wins")
    record = {**json.loads(text), "image": {"bytes": base64.b64encode(picture()).decode()}}
    (tmp_path / "d.jsonl").write_text(json.dumps(record))
    assert read_jsonl(tmp_path / "d.jsonl")[0].open_image().size == (40, 20)
