"""Reading the MORE layout (see more.py): the sound documents of a split, and every fault of the rest."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from PIL import Image

from more_r1.document import Box, Document, DocumentError, Entity, Object, Pair, Span, open_image
from more_r1.formats.boxes import read_boxes
from more_r1.formats.fact import Fact, is_text, parse_fact, read_box
from more_r1.formats.fault import Fault, FormatError, Place, quoted
from more_r1.formats.oracle import OracleFact, read_oracle
from more_r1.formats.paths import path_fault
from more_r1.schema import Schema

# The authors' loader stops at an image with more.
MAX_OBJECTS = 10
SPLIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

_MAX_TABLE = 1_000_000
_UNKNOWN = OracleFact(img_id="", object="", span=(0, 0))
Result = TypeVar("Result")


@dataclass(frozen=True)
class Scan:
    """One split as read: what is sound, and what was left out and why."""

    split: str
    facts: int
    """Lines of the file, each a pair or meant to be one."""
    documents: list[Document] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    @property
    def left_out(self) -> int:
        """How many lines gave no pair."""
        return self.facts - sum(len(document.pairs) for document in self.documents)


def splits(folder: Path) -> list[str]:
    """The splits that the folder has: train, valid, test, then others by name."""
    usual = ("train", "valid", "test")
    found = sorted(path.stem for path in folder.glob("txt/*.txt") if SPLIT_NAME.fullmatch(path.stem))
    return [name for name in usual if name in found] + [name for name in found if name not in usual]


def scan(folder: Path, split: str, schema: Schema | None = None, decode: bool = False) -> Scan:
    """Read a split and find its faults. With `decode` every picture is decoded once, else only its header is read.

    Raises FormatError if there is no such split.
    """
    path = folder / "txt" / f"{split}.txt"
    if not SPLIT_NAME.fullmatch(split) or not path.is_file():
        there = ", ".join(splits(folder)) or "none: expected txt/train.txt and others"
        Place(str(folder)).refuse(f"no split {quoted(split)}", f"its splits are {there}")
    faults: list[Fault] = []
    known = _Known(folder, split, schema, faults)
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[int, Fact]]] = {}
    number = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                fact = parse_fact(raw, Place(str(path), number))
                known.check(fact, Place(str(path), number, fact.title))
            except FormatError as error:
                faults.append(error.fault)
                continue
            groups.setdefault((fact.img_id, fact.tokens), []).append((number, fact))
    known.count_objects()

    lines_of: dict[str, list[int]] = {}
    for (img_id, _), lines in groups.items():
        lines_of.setdefault(img_id, []).extend(line for line, _ in lines)
    wrong = dict(zip(lines_of, _picture_faults([known.images / img_id for img_id in lines_of], decode), strict=True))
    for img_id, what in wrong.items():
        if what is not None:
            mend = f"put the picture there; its {len(lines_of[img_id])} pairs are left out"
            faults.append(Fault(str(path), min(lines_of[img_id]), f"image {quoted(img_id)}", what, mend))

    result = Scan(split, number, faults=faults)
    ids: set[str] = set()
    for (img_id, _), lines in groups.items():
        if wrong[img_id] is not None:
            continue
        id, count = img_id, 1
        while id in ids:
            count += 1
            id = f"{img_id}#{count}"
        ids.add(id)
        result.documents.append(known.document(id, [fact for _, fact in lines]))
    return result


class _Known:
    """What the other files of a split say, and the checks of a line against them."""

    def __init__(self, folder: Path, split: str, schema: Schema | None, faults: list[Fault]) -> None:
        self.faults = faults
        self.images = folder / "img_org" / split
        self.pth = folder / f"ent_{split}_dict.pth"
        self.boxes = self._try(lambda: read_boxes(self.pth))
        self.labels = {"rel2id.json": self._try(lambda: read_labels(folder / "rel2id.json"))}
        self.labels["the schema"] = schema.labels if schema else None
        oracle = folder / "oracle" / f"{split}.jsonl"
        facts = self._try(lambda: read_oracle(oracle)) if oracle.is_file() else None
        self.oracle = {(fact.img_id, fact.object, fact.span): fact for fact in facts or ()}
        self.objects: dict[str, dict[str, Box]] = {}
        self.seen: dict[tuple[str, tuple[str, ...], str, tuple[int, int]], tuple[int | None, str]] = {}

    def _try(self, read: Callable[[], Result]) -> Result | None:
        try:
            return read()
        except FormatError as error:
            self.faults.append(error.fault)
            return None

    def check(self, fact: Fact, place: Place) -> None:
        """Raises FormatError for the first thing that is wrong with the line."""
        if (what := path_fault(fact.img_id)) is not None:
            place.refuse(f"unsafe img_id: {what}", "name a picture inside img_org/SPLIT")
        for source, labels in self.labels.items():
            if labels is not None and fact.relation not in labels:
                place.refuse(f"unknown relation {quoted(fact.relation)}", f"use a label of {source}, or add it there")
        if (what := fact.box.fault()) is not None:
            place.refuse(what, "give cx, cy, w, h as fractions of the image")
        start, end = fact.span
        if not 0 <= start < end <= len(fact.tokens):
            place.refuse(f"span [{start}, {end}) outside the {len(fact.tokens)} tokens", "correct h.pos")
        if fact.name != (words := " ".join(fact.tokens[start:end])):
            place.refuse(f"span [{start}, {end}) does not match the tokens: {quoted(words)}", "correct h.pos or h.name")
        self._check_object(fact, place)
        key = (fact.img_id, fact.tokens, fact.object, fact.span)
        if key in self.seen:
            line, relation = self.seen[key]
            what = f"duplicate pair, it is on line {line} already"
            if relation != fact.relation:
                what += f" with another relation, {quoted(relation)}"
            place.refuse(what, "keep one of the two")
        self.seen[key] = (place.line, fact.relation)

    def _check_object(self, fact: Fact, place: Place) -> None:
        if self.boxes is None:
            box = self.objects.setdefault(fact.img_id, {}).setdefault(fact.object, fact.box)
            if box != fact.box:
                place.refuse("the object has another box on an earlier line", "give one object one box")
            return
        if fact.img_id not in self.objects:
            self.objects[fact.img_id] = dict(self._sound_objects(fact.img_id))
        if fact.object not in self.objects[fact.img_id]:
            what = f"object missing from {self.pth.name}, or without a sound box there"
            place.refuse(what, "add its box under its img_id and name")

    def _sound_objects(self, img_id: str) -> Iterable[tuple[str, Box]]:
        for name, values in (self.boxes or {}).get(img_id, {}).items():
            place = Place(str(self.pth), None, f"{quoted(img_id)}, object {quoted(name)}")
            try:
                if type(name) is not str or not is_text(name):
                    place.refuse("the object's name is no text", "name objects as the lines do")
                box = read_box(values, place)
                if (what := box.fault()) is not None:
                    place.refuse(what, "give cx, cy, w, h as fractions of the image")
            except FormatError as error:
                self.faults.append(error.fault)
            else:
                yield name, box

    def count_objects(self) -> None:
        """Add a fault for every image with more objects than the authors' loader takes."""
        for img_id, objects in self.objects.items():
            if len(objects) > MAX_OBJECTS:
                what = f"{len(objects)} objects, the benchmark's own loader takes {MAX_OBJECTS}"
                self.faults.append(Fault(str(self.pth), None, quoted(img_id), what, "keep those that are in pairs"))

    def document(self, id: str, facts: list[Fact]) -> Document:
        """One document of facts that passed the check."""
        object_types: dict[str, str | None] = {}
        entities: dict[tuple[int, int], Entity] = {}
        pairs = []
        for fact in facts:
            known = self.oracle.get((id, fact.object, fact.span), _UNKNOWN)
            start, end = fact.span
            entity = Entity(id=f"{start}-{end}", span=Span(start=start, end=end), type=known.entity_type)
            entities.setdefault(fact.span, entity)
            object_types.setdefault(fact.object, known.object_type)
            pairs.append(Pair(object=fact.object, entity=entity.id, label=fact.relation, hops=known.hops))
        img_id = facts[0].img_id
        return Document(
            id=id,
            image=self.images / img_id,
            tokens=facts[0].tokens,
            objects=tuple(Object(id=n, box=b, type=object_types.get(n)) for n, b in self.objects[img_id].items()),
            entities=tuple(entities.values()),
            pairs=tuple(pairs),
        )


def _picture_faults(paths: list[Path], decode: bool) -> list[str | None]:
    # Pillow decodes outside of the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda path: _picture_fault(path, decode), paths))


def _picture_fault(path: Path, decode: bool) -> str | None:
    try:
        if not path.is_file():
            return "missing image"
        if decode:
            open_image(path)
        else:
            with Image.open(path):
                pass
    except DocumentError as error:
        return f"unreadable image: {str(error).removeprefix(f'{path}: ')}"
    except Exception as error:  # as in open_image
        return f"unreadable image: {error}"
    return None


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels of a rel2id.json. Raises FormatError."""
    place = Place(str(path), 1)
    try:
        with path.open(encoding="utf-8") as file:
            data = json.loads(file.readline(_MAX_TABLE))
    except OSError as error:
        Place(str(path)).refuse(f"cannot be read ({error.strerror})", "put the benchmark's table of labels there")
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or sorted(map(str, data.values())) != sorted(map(str, range(len(data)))):
        place.refuse("not a table of labels and their ids from 0", 'write {"none": 0, ...} as JSON on the first line')
    return tuple(data)
