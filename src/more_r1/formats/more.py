"""The layout of the MORE benchmark, read and written.

    txt/SPLIT.txt            one pair a line, see fact.py
    rel2id.json              {label: id} on its first line
    ent_SPLIT_dict.pth       the boxes of all objects of an image, see boxes.py
    img_org/SPLIT/IMG_ID     the pictures
    oracle/SPLIT.jsonl       the embedded benchmark's own sidecar, see oracle.py

The lines of one img_id with the same tokens are one document. Its objects are all that the .pth has for the image, with
the boxes of the .pth, as in the authors' code; the lines' own boxes count where there is no .pth.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from more_r1.document import Box, Document
from more_r1.formats.boxes import write_boxes
from more_r1.formats.fact import Fact, parse_fact
from more_r1.formats.fault import Fault, FormatError, Place, quoted
from more_r1.formats.oracle import OracleFact, write_oracle
from more_r1.formats.paths import path_fault, replacing
from more_r1.formats.scan import MAX_OBJECTS, SPLIT_NAME, read_labels, scan, splits
from more_r1.schema import Schema


def read_more(
    folder: str | Path, split: str, *, schema: Schema | None = None, faults: list[Fault] | None = None
) -> list[Document]:
    """The documents of a split, in the order of its lines; pictures stay on disk.

    A faulty pair is left out. What was wrong is added to `faults`, or logged as one warning if that is None. A relation is
    known if rel2id.json has it and, where a schema is given, the schema too. Raises FormatError if there is no such split.
    """
    read = scan(Path(folder), split, schema)
    if faults is not None:
        faults.extend(read.faults)
    elif read.faults:
        logging.getLogger(__name__).warning(
            "%s, %s: %d of %d pairs left out, %d faults, the first: %s. All of them: more-r1 data check",
            *(folder, split, read.left_out, read.facts, len(read.faults), read.faults[0]),
        )
    return read.documents


def refuse_foreign(folder: str | Path, split: str, schema: Schema) -> None:
    """Raises FormatError for the first line of the split whose relation the schema does not have; lines that are none pass."""
    path = Path(folder) / "txt" / f"{split}.txt"
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                fact = parse_fact(raw, Place(str(path), number))
            except FormatError:
                continue
            if fact.relation not in schema.labels:
                what = f"the relation {quoted(fact.relation)} is not in the schema"
                mend = "give the one that these labels are of as schema=FILE, or mend the line"
                Place(str(path), number, fact.title).refuse(what, mend)


def write_more(documents_by_split: Mapping[str, Sequence[Document]], folder: str | Path, schema: Schema) -> None:
    """Write splits of documents; equal documents give equal bytes.

    A document's id is its img_id (a file name); an id that ends in `#2` and so on shares the picture and the objects of
    the document before the `#`. Types and hops go into the sidecar, if any is known. The layout has no place for entities
    in no pair and for the ids of entities. Raises FormatError, before anything is written, for documents that the layout
    or the authors' loader cannot hold: no pairs, unknown or foreign labels, unsafe ids, unsound boxes, more than 10 objects.
    So it does for a folder that has another split with other labels than the schema's.
    """
    folder = Path(folder)
    written = {split: _Split(split, documents, schema) for split, documents in documents_by_split.items()}
    table = folder / "rel2id.json"
    if any(split not in written for split in splits(folder)) and set(read_labels(table)) != set(schema.labels):
        Place(str(table)).refuse("the splits that are there have other labels", "give their schema, or another folder")
    for split, content in written.items():
        for img_id, image in content.images.items():
            _write_image(image, folder / "img_org" / split / img_id)
        write_boxes(content.boxes, folder / f"ent_{split}_dict.pth")
        oracle = folder / "oracle" / f"{split}.jsonl"
        if content.oracle_knows:
            write_oracle(content.oracle, oracle)
        else:
            oracle.unlink(missing_ok=True)
    labels = {label: number for number, label in enumerate(schema.labels)}
    _write_text(json.dumps(labels) + "\n", table)
    # Last, as a split is there once its lines are.
    for split, content in written.items():
        _write_text("".join(fact.render() + "\n" for fact in content.facts), folder / "txt" / f"{split}.txt")


class _Split:
    """The files of one split in memory, pictures as they were given."""

    def __init__(self, split: str, documents: Sequence[Document], schema: Schema) -> None:
        if not SPLIT_NAME.fullmatch(split):
            Place(quoted(split)).refuse("not a name for a split", "use letters, digits, _ and -")
        self.facts: list[Fact] = []
        self.oracle: list[OracleFact] = []
        self.boxes: dict[str, dict[str, Box]] = {}
        self.images: dict[str, Path | bytes] = {}
        self.texts: Counter[str] = Counter()
        self.place = Place(split)
        ids: set[str] = set()
        texts: set[tuple[str, tuple[str, ...]]] = set()
        for document in documents:
            self.place = Place(split, None, f"document {quoted(document.id)}")
            if document.id in ids:
                self.place.refuse("two documents have this id", "give each its own")
            img_id = self._img_id(document)
            if (img_id, document.tokens) in texts:
                self.place.refuse("another document has its picture and its text", "make them one document")
            ids.add(document.id)
            texts.add((img_id, document.tokens))
            self.texts[img_id] += 1
            self._add_image(document, img_id)
            self._add_pairs(document, img_id, schema)

    @property
    def oracle_knows(self) -> bool:
        """Whether the sidecar says anything that the lines do not."""
        return any((fact.object_type, fact.entity_type, fact.hops) != (None, None, None) for fact in self.oracle)

    def _img_id(self, document: Document) -> str:
        base, _, number = document.id.rpartition("#")
        shared = self.images.get(base) == document.image and number == str(self.texts[base] + 1)
        img_id = base if shared else document.id
        if (what := path_fault(img_id)) is not None:
            self.place.refuse(f"its id is no file name: {what}", "name it like a picture, as 0001.png")
        return img_id

    def _add_image(self, document: Document, img_id: str) -> None:
        boxes = {object.id: object.box for object in document.objects}
        if self.boxes.setdefault(img_id, boxes) != boxes:
            self.place.refuse("other objects than in the first document of its picture", "give them the same")
        if len(boxes) > MAX_OBJECTS:
            self.place.refuse(f"{len(boxes)} objects, the benchmark's own loader takes {MAX_OBJECTS}", "leave some out")
        for name, box in boxes.items():
            if (what := box.fault()) is not None:
                self.place.refuse(f"object {quoted(name)}: {what}", "give cx, cy, w, h as fractions of the image")
        self.images[img_id] = document.image

    def _add_pairs(self, document: Document, img_id: str, schema: Schema) -> None:
        if not document.pairs:
            self.place.refuse("no pairs, and the layout has lines for pairs only", "leave the document out")
        seen = set()
        for pair in document.pairs:
            entity, object = document.entity(pair.entity), document.object(pair.object)
            span = (entity.span.start, entity.span.end)
            if pair.label not in schema.labels:
                self.place.refuse(
                    f"the label {quoted(pair.label)} is not in the schema",
                    "give every pair a label of it, or the schema that has it",
                )
            if (object.id, span) in seen:
                self.place.refuse(f"object {quoted(object.id)} is twice with tokens {list(span)}", "keep one of the pairs")
            seen.add((object.id, span))
            name = document.name(entity)
            self.facts.append(Fact(document.tokens, name, span, object.id, object.box, img_id, pair.label))
            self.oracle.append(
                OracleFact(
                    img_id=document.id,
                    object=object.id,
                    span=span,
                    object_type=object.type,
                    entity_type=entity.type,
                    label=pair.label,
                    hops=pair.hops,
                )
            )


def _write_image(image: Path | bytes, path: Path) -> None:
    if isinstance(image, Path):
        if not image.is_file():
            Place(str(image)).refuse("no such picture", "put it there, or leave its document out")
        if path.exists() and path.samefile(image):
            return
    with replacing(path) as fresh:
        if isinstance(image, bytes):
            fresh.write_bytes(image)
        else:
            shutil.copyfile(image, fresh)


def _write_text(text: str, path: Path) -> None:
    with replacing(path) as fresh:
        fresh.write_bytes(text.encode())
