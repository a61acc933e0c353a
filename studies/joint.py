"""What joint reading of a document does to the figures, on predictions that have label scores. As in docs/relations.md.

    more-r1 evaluate --data data/embedded --split test --limit 300 --confidence --out runs/confidence
    python studies/joint.py runs/confidence/predictions.jsonl

Each pair by itself, by its most probable label, and the pairs of a document together (reasoning/joint.py), by the same scores.
"""

from __future__ import annotations

import argparse
from itertools import groupby
from pathlib import Path

from more_r1.evaluation.gallery import read_prediction
from more_r1.evaluation.metrics import read_records
from more_r1.reasoning.joint import Asked, read_jointly
from more_r1.reasoning.prediction import Prediction
from more_r1.reasoning.scoring import score
from more_r1.schema import Schema


def main() -> None:
    """Read and measure three ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--schema", type=Path, help="by default MORE's")
    options = parser.parse_args()
    schema = Schema.more() if options.schema is None else Schema.load(options.schema)
    read = [read_prediction(record, f"line {number}") for number, record in read_records(options.predictions)]
    gold = [one.gold or "" for one in read]
    # Without any rule, each pair has its most probable label.
    free = Schema.model_validate(
        {"relations": [{"label": relation.label, "meaning": relation.meaning} for relation in schema.relations]}
    )
    ways = {"answers": [one.predicted for one in read], "best scores": together(read, free), "joint": together(read, schema)}
    for name, labels in ways.items():
        figures = score(gold, labels)
        percent = ", ".join(f"{key} {100 * getattr(figures, key):.2f}" for key in ("accuracy", "precision", "recall", "f1"))
        print(f"{name}: {percent}")
    changed = [(g, a, b) for g, a, b in zip(gold, ways["best scores"], ways["joint"], strict=True) if a != b]
    mended, spoilt = sum(b == g for g, _, b in changed), sum(a == g for g, a, _ in changed)
    print(f"{len(read)} pairs; joint reading changes {len(changed)} labels: {mended} become right, {spoilt} become wrong")


def together(read: list[Prediction], schema: Schema) -> list[str | None]:
    """The labels of all documents under the rules of a schema; None for pairs without scores."""
    labels: list[str | None] = []
    for _, group in groupby(read, key=lambda one: one.document):
        members = list(group)
        asked = [
            Asked(one.object, one.name, dict(zip(schema.labels, one.scores, strict=True))) for one in members if one.scores
        ]
        found = iter(read_jointly(asked, schema))
        labels += [next(found) if one.scores else None for one in members]
    return labels


if __name__ == "__main__":
    main()
