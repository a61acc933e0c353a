"""`check_more`: the figures of a benchmark, and each fault that is planted in one, with its place."""

from __future__ import annotations

import io
import json
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from format_samples import box, game, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from more_r1.document import Document, Entity, Object, Pair, Span
from more_r1.formats import FormatError
from more_r1.formats.check import CheckReport, check_more
from more_r1.formats.check_table import render
from more_r1.formats.more import write_more
from more_r1.schema import Schema

SCHEMA = Schema.more()
TXT, PTH = "txt/test.txt", "ent_test_dict.pth"


def single(id: str, label: str) -> Document:
    """One object, one entity, one pair."""
    return Document(
        id=id,
        image=picture(),
        tokens=("Ada", "wins"),
        objects=(Object(id="person_0", box=box(0, 0, 1, 1)),),
        entities=(Entity(id="0-1", span=Span(start=0, end=1)),),
        pairs=(Pair(object="person_0", entity="0-1", label=label),),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Train: one small document. Test: lines 1 to 3 are game.png, 4 is one.png, 5 to 7 other.png."""
    train, test = [single("t.png", "none")], [game(), single("one.png", "/per/per/relatives"), game("other.png")]
    write_more({"train": train, "test": test}, tmp_path, SCHEMA)
    return tmp_path


def printed(report: CheckReport, width: int = 400) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(render(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_figures_of_a_sound_benchmark(folder: Path) -> None:
    report = check_more(folder, SCHEMA)
    assert report.sound and report.faults == ()
    train, test = report.splits
    assert (train.split, test.split, report.total.split) == ("train", "test", "total")
    assert (test.facts, test.documents, test.images, test.objects, test.left_out) == (7, 3, 3, 5, 0)
    assert (report.total.facts, report.total.documents, report.total.objects) == (8, 4, 6)
    assert report.total.objects_per_image == 1.5
    assert test.labels == {"none": 2, "/per/per/alternate_names": 2, "/per/org/opposed_to": 2, "/per/per/relatives": 1}
    one, several = (False, False), (True, True)
    assert (train.none_share(one), test.none_share(one), report.total.none_share(one)) == (1.0, 0.0, 0.5)
    assert (train.none_share(several), test.none_share(several)) == (None, 2 / 6)
    text = printed(report)
    assert "No faults." in text and "objects per image" in text
    (relatives,) = (line for line in text.splitlines() if "/per/per/relatives" in line)
    assert [cell for cell in relatives.split() if cell.isdigit()] == ["0", "1", "1"]
    (shares,) = (line for line in text.splitlines() if "several of both" in line)
    assert "33.3%" in shares and " - " in shares


def test_a_picture_with_two_texts_counts_once(tmp_path: Path) -> None:
    write_more({"test": [game(), game("game.png#2", tokens=tuple("abcde"))]}, tmp_path, SCHEMA)
    total = check_more(tmp_path, SCHEMA).total
    assert (total.facts, total.documents, total.images, total.objects) == (6, 2, 1, 2)


# --- faults, each planted by hand -------------------------------------------------------------------------------------


def lines(folder: Path) -> list[str]:
    return (folder / TXT).read_text(encoding="utf-8").splitlines()


def swap(number: int, old: str, new: str) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        text = lines(folder)
        assert old in text[number - 1]
        text[number - 1] = text[number - 1].replace(old, new)
        (folder / TXT).write_text("\n".join(text) + "\n", encoding="utf-8")

    return plant


def append(line: str | bytes) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        with (folder / TXT).open("ab") as file:
            file.write((line if isinstance(line, bytes) else line.encode()) + b"\n")

    return plant


def repeat(number: int, old: str = "", new: str = "") -> Callable[[Path], None]:
    return lambda folder: append(lines(folder)[number - 1].replace(old, new))(folder)


def boxes(edit: Callable[[dict[str, dict[str, object]]], object]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        data = torch.load(folder / PTH)
        edit(data)
        torch.save(data, folder / PTH)

    return plant


def image(name: str, content: bytes | None) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        path = folder / "img_org/test" / name
        path.unlink() if content is None else path.write_bytes(content)

    return plant


def overfull(data: dict[str, dict[str, object]]) -> None:
    data["one.png"].update({f"thing_{n}": (0.5, 0.5, 0.5, 0.5) for n in range(10)})


OUTSIDE, EMPTY = "[0.75, 0.5, 1.0, 1.0]", "[0.5, 0.5, 0.0, 1.0]"
ONE = "'box': [0.5, 0.5, 1.0, 1.0]"
FAULTS: dict[str, tuple[Callable[[Path], None], str, int | None, str, str, int]] = {
    # name: (how to plant it, file, line, part of the record, part of what is wrong, pairs left out)
    "box outside": (swap(4, ONE, f"'box': {OUTSIDE}"), TXT, 4, "'one.png'", "box outside the image", 1),
    "box empty": (swap(4, ONE, f"'box': {EMPTY}"), TXT, 4, "object 'person_0'", "empty box", 1),
    "box no numbers": (swap(4, ONE, "'box': [0.5, 0.5, None, 1]"), TXT, 4, "one.png", "malformed box", 1),
    "box of huge numbers": (swap(4, ONE, f"'box': [{'9' * 400}, 0, 0, 0]"), TXT, 4, "one.png", "malformed box", 1),
    "box of nan": (swap(4, ONE, "'box': ['nan', '0', '1', '1']"), TXT, 4, "one.png", "malformed box", 1),
    "span beside the name": (
        swap(2, "'pos': [4, 5]", "'pos': [3, 4]"),
        TXT,
        2,
        "'Gulls'",
        "does not match the tokens: 'the'",
        1,
    ),
    "span too long": (swap(2, "'pos': [4, 5]", "'pos': [4, 6]"), TXT, 2, "'Gulls'", "span [4, 6) outside the 5 tokens", 1),
    "span backwards": (swap(2, "'pos': [4, 5]", "'pos': [5, 4]"), TXT, 2, "'Gulls'", "span [5, 4) outside", 1),
    "span of words": (swap(2, "'pos': [4, 5]", "'pos': ['4', '5']"), TXT, 2, "game.png", "h.pos is", 1),
    "unknown relation": (swap(2, "opposed_to", "adores"), TXT, 2, "'game.png'", "unknown relation '/per/org/adores'", 1),
    "missing image": (image("other.png", None), TXT, 5, "image 'other.png'", "missing image", 3),
    "empty image": (image("other.png", b""), TXT, 5, "image 'other.png'", "unreadable image", 3),
    "no image": (image("other.png", b"<svg>" * 99), TXT, 5, "image 'other.png'", "unreadable image", 3),
    "broken image": (image("other.png", picture("red", (300, 300))[:-60]), TXT, 5, "'other.png'", "unreadable image", 3),
    "object not in the .pth": (boxes(lambda d: d["one.png"].clear()), TXT, 4, "'person_0'", f"object missing from {PTH}", 1),
    "image not in the .pth": (boxes(lambda d: d.pop("one.png")), TXT, 4, "'one.png'", f"object missing from {PTH}", 1),
    "duplicate pair": (repeat(4), TXT, 8, "'one.png'", "duplicate pair, it is on line 4 already", 1),
    "contradiction": (repeat(4, "relatives", "partner"), TXT, 8, "'one.png'", "another relation, '/per/per/relatives'", 1),
    "no literal": (append("__import__('os').system('true')"), TXT, 8, "__import__", "not a Python literal", 1),
    "deep literal": (append("[" * 5000), TXT, 8, "[[[", "not a Python literal", 1),
    "minus signs": (append("-" * 50000 + "1"), TXT, 8, "---", "not a Python literal", 1),
    "endless line": (append("[" + "1," * 99999 + "]"), TXT, 8, "", "bytes long", 1),
    "no dict": (append("[1, 2]"), TXT, 8, "[1, 2]", "a list, not a dict", 1),
    "no UTF-8": (append(b"{'token': '\xff'}"), TXT, 8, "", "not UTF-8", 1),
    "half a character": (swap(4, "'wins'", "'\\ud800'"), TXT, 4, "one.png", "half a character", 1),
    "empty line": (append(""), TXT, 8, "", "not a Python literal", 1),
    "missing key": (swap(4, "'relation'", "'label'"), TXT, 4, "one.png", "no key 'relation'", 1),
    "missing inner key": (swap(4, "'h': {'name'", "'h': {'word'"), TXT, 4, "one.png", "no key 'h.name'", 1),
    "wrong kind": (swap(4, "['Ada', 'wins']", "'Ada wins'"), TXT, 4, "one.png", "'token' is a str", 1),
    "climbing img_id": (swap(4, "'one.png'", "'../train/t.png'"), TXT, 4, "'../train/t.png'", "unsafe img_id", 1),
    "absolute img_id": (swap(4, "'one.png'", "'/etc/passwd'"), TXT, 4, "'/etc/passwd'", "an absolute path", 1),
    "NUL in img_id": (swap(4, "'one.png'", "'one\\x00.png'"), TXT, 4, "one\\x00", "control characters", 1),
    "backslash in img_id": (swap(4, "'one.png'", "'..\\\\one.png'"), TXT, 4, "one.png", "a backslash", 1),
    "drive in img_id": (swap(4, "'one.png'", "'C:one.png'"), TXT, 4, "C:one.png", "an absolute path", 1),
    "long img_id": (swap(4, "'one.png'", repr("é" * 200)), TXT, 4, "ééé", "more than 255 bytes", 1),
    "eleven objects": (boxes(overfull), PTH, None, "'one.png'", "11 objects", 0),
    "no .pth": (lambda folder: (folder / PTH).unlink(), PTH, None, "", "no such file", 0),
    "cut .pth": (
        lambda folder: (folder / PTH).write_bytes((folder / PTH).read_bytes()[:300]),
        PTH,
        None,
        "",
        "not plain data",
        0,
    ),
    "list in .pth": (lambda folder: torch.save([1], folder / PTH), PTH, None, "", "not a dictionary", 0),
    "bad sidecar": (
        lambda folder: (folder / "oracle/test.jsonl").write_text('{"img_id": 1}\n'),
        *("oracle/test.jsonl", 1, '{"img_id": 1}', "malformed line", 0),
    ),
    "no table of labels": (lambda folder: (folder / "rel2id.json").unlink(), "rel2id.json", None, "", "cannot be read", 0),
    "broken table of labels": (lambda folder: (folder / "rel2id.json").write_text("{"), "rel2id.json", 1, "", "not a table", 0),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_reported_with_its_place(folder: Path, name: str) -> None:
    plant, file, line, record, what, left_out = FAULTS[name]
    plant(folder)
    report = check_more(folder, SCHEMA)
    (fault,) = report.faults
    assert (fault.file, fault.line) == (str(folder / file), line)
    assert record in fault.record and what in fault.what and fault.mend
    assert not report.sound
    test = report.splits[1]
    assert (test.left_out, report.total.left_out) == (left_out, left_out)
    assert test.facts == (folder / TXT).read_bytes().count(b"\n") - left_out
    place = file if line is None else f"{file}:{line}"
    assert any(place in row and fault.mend[:20] in row for row in printed(report).splitlines())
    assert "\n" not in str(fault)


def test_a_bad_box_in_the_pth_is_named_there_and_takes_its_pairs_along(folder: Path) -> None:
    boxes(lambda data: data["one.png"].update(person_0=(0.5, 0.5, 2.0, 1.0)))(folder)
    in_pth, in_line = check_more(folder, SCHEMA).faults
    assert (Path(in_pth.file).name, in_pth.record) == (PTH, "'one.png', object 'person_0'")
    assert "box outside" in in_pth.what
    assert (in_line.line, in_line.file) == (4, str(folder / TXT))


def test_without_a_pth_one_object_has_one_box(folder: Path) -> None:
    (folder / PTH).unlink()
    swap(2, "'box': [0.25, 0.5, 0.5, 1.0]", "'box': [0.25, 0.5, 0.5, 0.9]")(folder)
    _, fault = check_more(folder, SCHEMA).faults
    assert fault.line == 2 and "another box on an earlier line" in fault.what


def test_a_relation_must_be_in_the_schema_too(folder: Path) -> None:
    smaller = Schema(relations=tuple(r for r in SCHEMA.relations if r.label != "/per/per/relatives"))
    (fault,) = check_more(folder, smaller).faults
    assert fault.line == 4 and "the schema" in fault.mend


def test_a_file_outside_is_not_read_through_a_climbing_img_id(folder: Path) -> None:
    (folder / "secret.png").write_bytes(picture())
    swap(4, "'one.png'", "'../../secret.png'")(folder)
    report = check_more(folder, SCHEMA)
    assert report.splits[1].documents == 2 and len(report.faults) == 1


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("kind", ["torch", "pickle", "zip"])
def test_a_payload_in_the_pth_does_not_run(folder: Path, tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    marker = tmp_path_factory.mktemp("marker") / "ran"
    data = {"game.png": {"person_0": Payload(marker)}}
    raw = pickle.dumps(data, protocol=2)
    if kind == "torch":
        torch.save(data, folder / PTH)
    elif kind == "pickle":
        (folder / PTH).write_bytes(raw)
    else:
        with zipfile.ZipFile(folder / PTH, "w") as archive:
            archive.writestr("archive/data.pkl", raw)
            archive.writestr("archive/version", "3")
    report = check_more(folder, SCHEMA)
    assert not marker.exists()
    (fault,) = report.faults
    assert Path(fault.file).name == PTH and "nothing of it was run" in fault.what
    assert report.total.left_out == 0
    pickle.loads(raw)
    assert marker.exists(), "the payload is a live one"


def test_a_zip_bomb_in_the_pth_is_not_unpacked(folder: Path) -> None:
    with zipfile.ZipFile(folder / PTH, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as file:
        for _ in range(257):  # MiB of zeros: a file of 250 kB
            file.write(bytes(2**20))
    (fault,) = check_more(folder, SCHEMA).faults
    assert "too many" in fault.what


def test_text_from_files_cannot_steer_the_terminal(folder: Path) -> None:
    swap(4, "'one.png'", "'\\x1b[2J[red]x.png'")(folder)
    append("\x1b[31m[bold]")(folder)
    text = printed(check_more(folder, SCHEMA))
    assert "\x1b" not in text and "[red]" in text and "[bold]" in text


def test_a_folder_without_splits_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no txt/\*\.txt"):
        check_more(tmp_path, SCHEMA)


SOUND = game("x.png")
pieces = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        "'token'",
        ":",
        ",",
        "'h'",
        "'t'",
        "'pos'",
        "1",
        "-1",
        "1e999",
        "None",
        "b'a'",
        "'x.png'",
        "''",
        "{'box': 1}",
        "(",
        "\\",
    ]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(pieces, max_size=12).map("".join).map(str.encode) | st.binary(max_size=30), min_size=1, max_size=8))
def test_no_line_stops_the_check(tails: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_more({"test": [SOUND]}, folder, SCHEMA)
        (folder / PTH).unlink()  # or most of the time goes to torch
        with (folder / TXT).open("ab") as file:
            file.write(b"\n".join(tails))
        report = check_more(folder, SCHEMA)
        assert report.total.facts == 3
        assert report.total.left_out == len(report.faults) - 1
        assert json.dumps([str(fault) for fault in report.faults])
        printed(report)
