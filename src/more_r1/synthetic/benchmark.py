"""The embedded benchmark: documents in MORE's proportions, drawn and worded from the world, in the MORE layout."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from random import Random

from more_r1.document import Box, Document, Entity, Object, Pair, Span
from more_r1.formats.more import write_more
from more_r1.formats.oracle import OracleFact, write_oracle
from more_r1.schema import Schema
from more_r1.synthetic.drafts import Draft, make_split
from more_r1.synthetic.drawing import draw
from more_r1.synthetic.oracle import explain
from more_r1.synthetic.story import judge
from more_r1.synthetic.world import EVERYONE

# Documents of MORE's splits (15,486 / 1,742 / 3,036 pairs at 5.7 a document), and ours of unseen combinations.
SHARES = {"train": 15486 / 20264, "valid": 1742 / 20264, "test": 3036 / 20264}
UNSEEN = "test_new"
UNSEEN_SHARE = 0.08
DEFAULT_DOCUMENTS = 3559


def sizes(documents: int) -> dict[str, int]:
    """Documents of each split if train, valid and test have `documents` together."""
    shares = {**SHARES, UNSEEN: UNSEEN_SHARE}
    return {split: max(round(documents * share), 1) for split, share in shares.items()}


def drafts_of(split: str, documents: int = DEFAULT_DOCUMENTS, seed: int = 0) -> Iterator[Draft]:
    """The drafts of one split of the benchmark that `write_benchmark` writes for these numbers."""
    splits = sizes(documents)
    return make_split(splits[split], seed * 1000 + list(splits).index(split), unseen=split == UNSEEN)


def write_benchmark(folder: Path, documents: int = DEFAULT_DOCUMENTS, seed: int = 0) -> Generator[tuple[str, int], None, None]:
    """Write the embedded benchmark in the MORE layout with the oracle's reasoning in `oracle/SPLIT.jsonl`.

    Yields (split, documents done) as it goes. The same documents and seed give the same bytes. The folder is complete or
    absent; it must be new or empty, FileExistsError if not.
    """
    folder = folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; give a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        partial.chmod(0o755)  # mkdtemp makes private folders
        written: dict[str, list[Document]] = {}
        known: dict[str, list[OracleFact]] = {}
        for split in sizes(documents):
            pictures = partial / "img_org" / split
            pictures.mkdir(parents=True)
            written[split], known[split] = [], []
            for number, draft in enumerate(drafts_of(split, documents, seed)):
                random = Random(f"{seed}/{split}/{number}")
                document, facts = realise(draft, f"{split}_{number:05d}.png", pictures, random)
                written[split].append(document)
                known[split] += facts
                yield split, number + 1
        write_more(written, partial, Schema.more())
        for split, facts in known.items():
            write_oracle(facts, partial / "oracle" / f"{split}.jsonl")
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def realise(draft: Draft, id: str, folder: Path, random: Random) -> tuple[Document, list[OracleFact]]:
    """Draw a draft into `folder` and say it: the document, and what the oracle knows of every pair."""
    image, boxes = draw(draft.things, draft.story.scene, random)
    path = folder / id
    image.save(path)
    objects: list[Object] = []
    counts: Counter[str] = Counter()
    for thing, corners in zip(draft.things, boxes, strict=True):
        counts[thing.type] += 1
        box = Box.from_pixels(*corners, width=image.width, height=image.height)
        objects.append(Object(id=f"{thing.type}_{counts[thing.type]}", box=box, type=thing.type))
    entities = [
        Entity(id=f"{m.start}-{m.end}", span=Span(start=m.start, end=m.end), type=EVERYONE[m.name].type) for m in draft.asked
    ]
    pairs, facts = [], []
    for mention, entity in zip(draft.asked, entities, strict=True):
        for thing, shown in zip(draft.things, objects, strict=True):
            verdict = judge(thing, mention, draft.story)
            pairs.append(Pair(object=shown.id, entity=entity.id, label=verdict.label, hops=verdict.hops))
            facts.append(
                OracleFact(
                    img_id=id,
                    object=shown.id,
                    span=(mention.start, mention.end),
                    object_type=thing.type,
                    entity_type=entity.type,
                    label=verdict.label,
                    hops=verdict.hops,
                    completion=explain(draft.things, thing, mention, draft.story, random).render(),
                )
            )
    document = Document(
        id=id,
        image=path,
        tokens=draft.story.tokens,
        objects=tuple(objects),
        entities=tuple(entities),
        pairs=tuple(pairs),
    )
    return document, facts
