"""A whole benchmark in figures: what the authors' table prints, and every fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from more_r1.document import Document
from more_r1.formats.fault import Fault, Place
from more_r1.formats.scan import scan, splits
from more_r1.schema import NONE, Schema

Bucket = tuple[bool, bool]
BUCKETS: dict[Bucket, str] = {
    (False, False): "1 entity, 1 object",
    (False, True): "1 entity, several objects",
    (True, False): "several entities, 1 object",
    (True, True): "several of both",
}


def bucket(document: Document) -> Bucket:
    """Whether the document has several entities, and several objects. All its pairs are in this bucket.

    Entities are those in pairs (the MORE layout has no others), objects all of the picture, in a pair or not.
    """
    return len(document.entities) > 1, len(document.objects) > 1


@dataclass(frozen=True)
class Counts:
    """The sound part of a split, or of all splits, in figures."""

    split: str
    left_out: int
    """Pairs that were left out as faulty; not part of the other figures."""
    documents: int
    images: int
    objects: int
    """Objects of all images, each image once."""
    labels: Counter[str]
    """Pairs by label."""
    facts_in: Counter[Bucket]
    """Pairs by bucket."""
    none_in: Counter[Bucket]
    """Pairs without a relation by bucket."""

    @property
    def facts(self) -> int:
        return self.labels.total()

    @property
    def objects_per_image(self) -> float:
        """0 without images."""
        return self.objects / max(self.images, 1)

    def none_share(self, of: Bucket) -> float | None:
        """The share of pairs without a relation in a bucket, 0 to 1; None where it is empty."""
        return self.none_in[of] / self.facts_in[of] if self.facts_in[of] else None


@dataclass(frozen=True)
class CheckReport:
    """What `check_more` found; `sound` is what `--strict` asks."""

    folder: str
    splits: tuple[Counts, ...]
    total: Counts
    faults: tuple[Fault, ...]
    labels: tuple[str, ...]
    """The labels of the schema in its order."""

    @property
    def sound(self) -> bool:
        return not self.faults


def check_more(folder: str | Path, schema: Schema) -> CheckReport:
    """Read every split, decode every picture once, count and collect faults. Raises FormatError if there is no split."""
    folder = Path(folder)
    names = splits(folder)
    if not names:
        Place(str(folder)).refuse("no MORE folder, it has no txt/*.txt", "give the folder with txt, img_org and rel2id.json")
    scans = [scan(folder, name, schema, decode=True) for name in names]
    counts = tuple(_count(read.split, read.left_out, read.documents) for read in scans)
    total = _count("total", sum(read.left_out for read in scans), [document for read in scans for document in read.documents])
    # What is wrong with rel2id.json shows in every split.
    faults = tuple(dict.fromkeys(fault for read in scans for fault in read.faults))
    return CheckReport(str(folder), counts, total, faults, schema.labels)


def _count(split: str, left_out: int, documents: Sequence[Document]) -> Counts:
    objects = {document.image: len(document.objects) for document in documents}
    pairs = [(bucket(document), pair.label or NONE) for document in documents for pair in document.pairs]
    return Counts(
        split=split,
        left_out=left_out,
        documents=len(documents),
        images=len(objects),
        objects=sum(objects.values()),
        labels=Counter(label for _, label in pairs),
        facts_in=Counter(of for of, _ in pairs),
        none_in=Counter(of for of, label in pairs if label == NONE),
    )
