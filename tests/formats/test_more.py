"""The MORE layout: what is written reads back, by us and by a loader that works as the authors' does."""

from __future__ import annotations

import ast
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from format_samples import box, documents, file_names, game, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from more_r1.document import Document, Entity, Object, Pair, Span
from more_r1.formats import FormatError
from more_r1.formats.fault import Fault
from more_r1.formats.more import read_more, write_more
from more_r1.formats.oracle import OracleFact, read_oracle, write_oracle
from more_r1.schema import Schema

SCHEMA = Schema.more()


def with_bytes(document: Document) -> Document:
    assert isinstance(document.image, Path)
    return document.model_copy(update={"image": document.image.read_bytes()})


@settings(max_examples=40, deadline=None)
@given(
    st.lists(file_names, min_size=1, max_size=3, unique=True).flatmap(
        lambda ids: st.tuples(*(documents(id, True) for id in ids))
    )
)
def test_any_documents_come_back(written: tuple[Document, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_more({"train": written}, folder, SCHEMA)
        faults: list[Fault] = []
        read = read_more(folder, "train", schema=SCHEMA, faults=faults)
        assert faults == []
        assert [with_bytes(document) for document in read] == list(written)


def test_texts_that_share_a_picture_come_back(tmp_path: Path) -> None:
    first, third = game("a.png"), game("b.png")
    second = game("a.png#2", tokens=("Bell", "and", "Ada", "of", "Gulls"))
    write_more({"valid": [first, third, second]}, tmp_path, SCHEMA)
    assert sorted(path.name for path in (tmp_path / "img_org/valid").iterdir()) == ["a.png", "b.png"]
    assert [with_bytes(document) for document in read_more(tmp_path, "valid")] == [first, third, second]


def test_an_id_with_a_number_of_its_own_keeps_its_own_picture(tmp_path: Path) -> None:
    written = [game("a.png"), game("a.png#2", image=picture("blue")), game("b#5", image=picture("blue"))]
    write_more({"valid": written}, tmp_path, SCHEMA)
    assert [with_bytes(document) for document in read_more(tmp_path, "valid")] == written


class AuthorsLoader:
    """What the benchmark's published code does with the files, told in our own words."""

    def __init__(self, folder: Path, split: str) -> None:
        with (folder / "txt" / f"{split}.txt").open(encoding="utf-8") as file:
            self.facts = [ast.literal_eval(line) for line in file]
        self.boxes = torch.load(folder / f"ent_{split}_dict.pth")  # weights_only is its default
        with (folder / "rel2id.json").open(encoding="utf-8") as file:
            self.ids = json.loads(file.readlines()[0])
        self.images = folder / "img_org" / split

    def sample(self, index: int) -> tuple[list[str], str, int, list[Image.Image], int]:
        """Words, entity, label id, the crops of all objects, and which of them is the pair's."""
        fact = self.facts[index]
        start, end = fact["h"]["pos"]
        assert len(fact["t"]["pos"]) == len(fact["t"]["box"]) == 4
        objects = self.boxes[fact["img_id"]]
        assert type(objects) is dict and len(objects) <= 10
        image = Image.open(self.images / fact["img_id"]).convert("RGB")
        width, height = image.size
        crops = []
        for cx, cy, w, h in objects.values():
            edges = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
            crops.append(image.crop(edges))
        which = list(objects.keys()).index(fact["t"]["name"])
        assert fact["h"]["name"] == " ".join(fact["token"][start:end])
        return fact["token"], fact["h"]["name"], self.ids[fact["relation"]], crops, which


def test_the_authors_loader_reads_what_we_write(tmp_path: Path) -> None:
    image = Image.new("RGB", (100, 60), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((10, 12, 39, 47), fill="red")
    draw.rectangle((60, 30, 79, 59), fill="blue")
    image.save(tmp_path / "drawn.png")
    document = game(
        image=tmp_path / "drawn.png",
        objects=(
            Object(id="person_0", box=box(0.1, 0.2, 0.4, 0.8)),
            Object(id="logo_1", box=box(0.6, 0.5, 0.8, 1.0)),
        ),
    )
    for split in ("train", "valid", "test"):
        write_more({split: [document]}, tmp_path / "more", SCHEMA)
        loader = AuthorsLoader(tmp_path / "more", split)
        seen = [loader.sample(index) for index in range(len(loader.facts))]
        assert [(entity, label, which) for _, entity, label, _, which in seen] == [
            ("Ada Bell", 4, 0),
            ("Gulls", 5, 0),
            ("Ada Bell", 0, 1),
        ]
        for words, _, _, crops, _ in seen:
            assert words == list(document.tokens)
            assert [crop.size for crop in crops] == [(30, 36), (20, 30)]
            assert [crop.getcolors() for crop in crops] == [[(30 * 36, (255, 0, 0))], [(20 * 30, (0, 0, 255))]]
        assert (tmp_path / "more/img_org" / split / "game.png").read_bytes() == (tmp_path / "drawn.png").read_bytes()


def by_hand(folder: Path, lines: list[str], boxes: object = None) -> Path:
    for name in ("txt", "img_org/test"):
        (folder / name).mkdir(parents=True)
    (folder / "txt/test.txt").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    (folder / "rel2id.json").write_text(json.dumps({label: number for number, label in enumerate(SCHEMA.labels)}))
    (folder / "img_org/test/x.jpg").write_bytes(picture())
    if boxes is not None:
        torch.save(boxes, folder / "ent_test_dict.pth")
    return folder


def line(
    tail: str, relation: str = "none", text: str = "['Ada', 'Bell']", head: str = "{'name': 'Bell', 'pos': [1, 2]}"
) -> str:
    return f"{{'token': {text}, 'h': {head}, 't': {tail}, 'img_id': 'x.jpg', 'relation': '{relation}'}}"


def test_boxes_of_older_dumps_are_strings(tmp_path: Path) -> None:
    old = line("{'name': 'person_0', 'pos': ['0.5', '0.25', '0.5', '0.5']}")
    new = line("{'name': 'person_0', 'box': (0.5, 0.25, 0.5, 0.5)}")
    boxes = {"x.jpg": {"person_0": (0.5, 0.25, 0.5, 0.5)}}
    first = read_more(by_hand(tmp_path / "old", [old], boxes), "test", faults=(faults := []))
    second = read_more(by_hand(tmp_path / "new", [new], boxes), "test", faults=faults)
    assert faults == []
    assert first[0].objects == second[0].objects == (Object(id="person_0", box=box(0.25, 0.0, 0.75, 0.5)),)
    without = read_more(by_hand(tmp_path / "none", [old]), "test", faults=faults)
    assert without[0].objects == first[0].objects
    assert [(Path(fault.file).name, fault.line) for fault in faults] == [("ent_test_dict.pth", None)]


def test_objects_come_from_the_pth_with_its_boxes(tmp_path: Path) -> None:
    boxes = {"x.jpg": {"logo_1": (0.5, 0.5, 0.1, 0.1), "person_0": (0.5, 0.25, 0.5, 0.5)}}
    folder = by_hand(tmp_path, [line("{'name': 'person_0', 'box': [0.5, 0.5, 1, 1]}")], boxes)
    (document,) = read_more(folder, "test")
    assert [(o.id, o.box.w) for o in document.objects] == [("logo_1", 0.1), ("person_0", 0.5)]
    assert [(p.object, p.entity) for p in document.pairs] == [("person_0", "1-2")]


def test_lines_of_a_document_need_not_stand_together(tmp_path: Path) -> None:
    tail, logo = "{'name': 'person_0', 'box': [0.5, 0.5, 1, 1]}", "{'name': 'logo_1', 'box': [0.5, 0.5, 1, 0.5]}"
    other = "['Bell', 'Bell']"
    folder = by_hand(tmp_path, [line(tail), line(tail, text=other), line(logo, "/org/loc/locate_at")])
    first, second = read_more(folder, "test", faults=[])
    assert (first.id, second.id) == ("x.jpg", "x.jpg#2")
    assert [(p.object, p.label) for p in first.pairs] == [("person_0", "none"), ("logo_1", "/org/loc/locate_at")]
    assert first.image == second.image == folder / "img_org/test/x.jpg"


def test_the_sidecar_gives_types_and_hops_and_takes_completions(tmp_path: Path) -> None:
    write_more({"test": [game()]}, tmp_path, SCHEMA)
    file = tmp_path / "oracle/test.jsonl"
    facts = read_oracle(file)
    assert facts[1] == OracleFact(
        img_id="game.png",
        object="person_0",
        span=(4, 5),
        object_type="per",
        entity_type="org",
        label="/per/org/opposed_to",
        hops=2,
    )
    write_oracle([fact.model_copy(update={"completion": "<think> é"}) for fact in facts], file)
    assert {fact.completion for fact in read_oracle(file)} == {"<think> é"}
    assert with_bytes(read_more(tmp_path, "test")[0]) == game()
    write_more({"test": [read_more(tmp_path, "test")[0].model_copy(update={"objects": game().objects})]}, tmp_path, SCHEMA)
    assert with_bytes(read_more(tmp_path, "test")[0]) == game()


def test_what_nobody_knows_leaves_no_sidecar(tmp_path: Path) -> None:
    plain = game(
        objects=tuple(o.model_copy(update={"type": None}) for o in game().objects),
        entities=tuple(e.model_copy(update={"type": None}) for e in game().entities),
        pairs=tuple(p.model_copy(update={"hops": None}) for p in game().pairs),
    )
    write_more({"test": [game()]}, tmp_path, SCHEMA)
    write_more({"test": [plain]}, tmp_path, SCHEMA)
    assert not (tmp_path / "oracle/test.jsonl").exists()
    assert with_bytes(read_more(tmp_path, "test")[0]) == plain


def test_equal_documents_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_more({"train": [game()], "test": [game("b.png")]}, tmp_path / name, SCHEMA)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert [str(file) for file in files] == [
        *("ent_test_dict.pth", "ent_train_dict.pth", "img_org/test/b.png", "img_org/train/game.png"),
        *("oracle/test.jsonl", "oracle/train.jsonl", "rel2id.json", "txt/test.txt", "txt/train.txt"),
    ]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


@pytest.mark.parametrize(
    ("documents", "what"),
    [
        ([game("../x.png")], "its id is no file name"),
        ([game("/etc/x.png")], "an absolute path"),
        ([game("a\\b.png")], "a backslash"),
        ([game("a\0.png")], "control characters"),
        ([game("a" * 300)], "more than 255 bytes"),
        ([game(pairs=())], "no pairs"),
        ([game(pairs=(Pair(object="logo_1", entity="0-2"),))], "the label 'None' is not in the schema"),
        ([game(pairs=(Pair(object="logo_1", entity="0-2", label="/org/per/owns"),))], "'/org/per/owns' is not in the schema"),
        ([game(), game()], "two documents have this id"),
        ([game(), game("game.png#2")], "another document has its picture and its text"),
        (
            [game(), game("game.png#2", tokens=tuple("abcde"), objects=(*game().objects, Object(id="c", box=box(0, 0, 1, 1))))],
            "other objects",
        ),
        ([game(objects=(*game().objects, Object(id="c", box=box(0, 0, 1.2, 1))))], "object 'c': box outside the image"),
        ([game(objects=(*game().objects, *(Object(id=str(n), box=box(0, 0, 1, 1)) for n in range(9))))], "11 objects"),
        (
            [
                game(
                    entities=(*game().entities, Entity(id="again", span=Span(start=0, end=2))),
                    pairs=(*game().pairs, Pair(object="person_0", entity="again", label="none")),
                )
            ],
            "object 'person_0' is twice with tokens [0, 2]",
        ),
    ],
)
def test_what_the_layout_cannot_hold_is_refused_before_writing(
    tmp_path: Path, documents: list[Document], what: str | None
) -> None:
    with pytest.raises(FormatError) as error:
        write_more({"test": documents}, tmp_path / "more", SCHEMA)
    assert what in str(error.value) and "\n" not in str(error.value)
    assert error.value.fault.mend
    assert not (tmp_path / "more").exists()


def test_a_split_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not a name for a split"):
        write_more({"../test": [game()]}, tmp_path / "more", SCHEMA)
    write_more({"test": [game()]}, tmp_path / "more", SCHEMA)
    for split in ("../txt/test", "dev"):
        with pytest.raises(FormatError, match="its splits are test"):
            read_more(tmp_path / "more", split)


def test_a_missing_picture_stops_the_writing_and_nothing_half_is_left(tmp_path: Path) -> None:
    write_more({"test": [game()]}, tmp_path, SCHEMA)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(FormatError, match="no such picture"):
        write_more({"test": [game(tokens=tuple("abcde"), image=tmp_path / "none.png")]}, tmp_path, SCHEMA)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_faulty_pairs_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_more({"test": [game(), game("b.png")]}, tmp_path, SCHEMA)
    change(tmp_path / "txt/test.txt", 2, lambda text: text.replace("opposed_to", "adores"))
    faults: list[Fault] = []
    with caplog.at_level(logging.WARNING):
        read = read_more(tmp_path, "test", faults=faults)
        assert caplog.text == ""
        assert read_more(tmp_path, "test") == read
    assert [len(document.pairs) for document in read] == [2, 3]
    assert [(fault.file, fault.line) for fault in faults] == [(str(tmp_path / "txt/test.txt"), 2)]
    assert "1 of 6 pairs left out" in caplog.text and "test.txt:2" in caplog.text
    small = Schema(relations=SCHEMA.relations[:1])
    assert read_more(tmp_path, "test", schema=small, faults=faults)[0].pairs[0].label == "none"


def change(file: Path, number: int, edit: Callable[[str], str]) -> None:
    lines = file.read_text(encoding="utf-8").split("\n")
    lines[number - 1] = edit(lines[number - 1])
    file.write_text("\n".join(lines), encoding="utf-8")
