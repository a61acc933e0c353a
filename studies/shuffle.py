"""Which of the two pictures a model needs: its answers as things are, with whole pictures shuffled, with crops shuffled.

    python studies/shuffle.py --model tiny --data data/embedded --split test --limit 200 --out runs/shuffle.json

Every document is shown the whole picture of another document, or every pair the crop of a pair of another document; headline,
entity and the other picture stay. The seed of the shuffling is fixed. A model that reads both pictures loses by either.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from rich.console import Console
from rich.table import Table

from more_r1.document import Document
from more_r1.evaluation.metrics import Metrics, Outcome, measure
from more_r1.formats import load_documents
from more_r1.models.generate import generate
from more_r1.models.load import Backbone, load_backbone
from more_r1.models.predict import MAX_NEW_TOKENS
from more_r1.reasoning.prompt import Picture, Prompt, PromptForm, build_prompt
from more_r1.reasoning.trace import read_answer
from more_r1.schema import Schema

SEED = 0


def arrangements(documents: Sequence[Document], schema: Schema, form: PromptForm) -> dict[str, list[Prompt]]:
    """The prompts of all pairs in three ways, each in the order of the pairs. ValueError for fewer than two pictures."""
    if len({document.image for document in documents}) < 2:
        raise ValueError("nothing to shuffle; give documents with at least two different pictures")
    asked = [(document, build_prompt(document, pair, schema, form)) for document in documents for pair in document.pairs]
    plain = [prompt for _, prompt in asked]
    random = Random(SEED)
    # One other picture a document, not a pair: its pairs go on sharing what they begin with.
    wholes = {document.id: _other(document, [d for d in documents if d.pairs], random) for document in documents}
    crops = [(document, part) for document, prompt in asked for part in prompt.pictures if part.box is not None]
    return {
        "as it is": plain,
        "whole pictures shuffled": [swapped(prompt, whole=wholes[document.id].image) for document, prompt in asked],
        "crops shuffled": [swapped(prompt, crop=_other_crop(document, crops, random)) for document, prompt in asked],
    }


def swapped(prompt: Prompt, *, whole: Path | bytes | None = None, crop: Picture | None = None) -> Prompt:
    """The prompt with another whole picture, or another crop, in the place of its own."""

    def swap(part: str | Picture) -> str | Picture:
        if isinstance(part, str):
            return part
        if part.box is None:
            return part if whole is None else Picture(whole, None, part.pixels)
        return part if crop is None else crop

    return Prompt(tuple(tuple(swap(part) for part in segment) for segment in prompt.segments))


def _other(document: Document, documents: Sequence[Document], random: Random) -> Document:
    while (other := random.choice(documents)).image == document.image:
        pass
    return other


def _other_crop(document: Document, crops: Sequence[tuple[Document, Picture]], random: Random) -> Picture:
    while (drawn := random.choice(crops))[0].image == document.image:
        pass
    return drawn[1]


def answers(
    backbone: Backbone, documents: Sequence[Document], prompts: Sequence[Prompt], schema: Schema, max_new_tokens: int
) -> Metrics:
    """What the model answers to the prompts, measured against the pairs of the documents."""
    pairs = [pair for document in documents for pair in document.pairs]
    completions = generate(backbone, prompts, max_new_tokens)
    return measure(
        Outcome(gold=pair.label, predicted=read_answer(completion, schema, backbone.form.reasoning), hops=pair.hops)
        for pair, completion in zip(pairs, completions, strict=True)
        if pair.label is not None
    )


def main() -> None:
    """Ask in the three ways, print the three rows and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="model folder or hub name")
    parser.add_argument("--data", type=Path, required=True, help="MORE folder, .jsonl or .parquet")
    parser.add_argument("--split", help="split of a MORE folder")
    parser.add_argument("--limit", type=int, help="only the first so many documents")
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--max-new-tokens", type=int, default=MAX_NEW_TOKENS)
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    console, schema = Console(), Schema.more()
    backbone = load_backbone(options.model)
    documents = load_documents(options.data, options.split)[: options.limit]

    found: dict[str, Metrics] = {}
    for name, prompts in arrangements(documents, schema, backbone.form).items():
        with console.status(name):
            found[name] = answers(backbone, documents, prompts, schema, options.max_new_tokens)
    hops = sorted({number for metrics in found.values() for number in metrics.hops})
    table = Table("pictures", "accuracy", "F1", *(f"recall, hop {number}" for number in hops))
    for name, metrics in found.items():
        table.add_row(
            name, *(f"{100 * v:.1f}" for v in (metrics.accuracy, metrics.f1, *(metrics.hops[h].recall for h in hops)))
        )
    console.print(table)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        content = {name: metrics.model_dump(include={"accuracy", "f1", "pairs", "hops"}) for name, metrics in found.items()}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
