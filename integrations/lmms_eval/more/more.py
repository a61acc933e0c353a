"""MORE for lmms-eval: the prompts, the reading of answers and the figures are those of more-r1. See docs/lmms-eval.md."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from datasets import Dataset, Image

from more_r1.document import Document
from more_r1.export.pictures import shown
from more_r1.formats.fault import Place
from more_r1.formats.record import from_record
from more_r1.models.manner import read_form
from more_r1.reasoning.prompt import Picture, Prompt, PromptForm, build_prompt
from more_r1.reasoning.scoring import Scores, score
from more_r1.reasoning.trace import read_answer
from more_r1.schema import Schema

# The model folder whose more_r1.json says how to ask; without it, in full words, as a model that never saw MORE is asked.
FORM = "MORE_R1_FORM"
Outcome = tuple[str, str | None]


def process_docs(documents: Dataset) -> Dataset:
    """One row a document to one row a pair, in their order: `asked` is its place in `pairs`, `label` what is right.

    Pairs without a label are left out, as `more-r1 evaluate` does not measure them.
    """
    asked = [
        (row, place, pair["label"])
        for row, pairs in enumerate(documents["pairs"])
        for place, pair in enumerate(pairs)
        if pair["label"] is not None
    ]
    rows, places, labels = zip(*asked, strict=True) if asked else ((), (), ())
    pairs = documents.cast_column("image", Image(decode=False)).select(rows)
    return pairs.add_column("asked", list(places)).add_column("label", list(labels))


def doc_to_messages(doc: Mapping[str, Any], lmms_eval_specific_kwargs: object = None) -> list[dict[str, Any]]:
    """What a chat model is shown: one message of texts and both pictures, in the order of the form."""
    parts = [part for segment in _prompt(doc).segments for part in segment]
    content = [{"type": "image", "url": shown(p)} if isinstance(p, Picture) else {"type": "text", "text": p} for p in parts]
    return [{"role": "user", "content": content}]


def doc_to_visual(doc: Mapping[str, Any], lmms_eval_specific_kwargs: object = None) -> list[Any]:
    """For models that take pictures first and then a text: the whole picture and the crop."""
    return [shown(picture) for picture in _prompt(doc).pictures]


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: object = None) -> str:
    """For models that take pictures first and then a text: the text."""
    return "".join(part for segment in _prompt(doc).segments for part in segment if isinstance(part, str))


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Outcome]:
    """The gold label, and the one that the completion ends in, for each figure."""
    outcome = (doc["label"], read_answer(results[0], _schema(), _form().reasoning))
    return dict.fromkeys(("f1", "accuracy", "precision", "recall", "broken"), outcome)


def f1(outcomes: Sequence[Outcome]) -> float:
    """Micro-F1 over the labels other than `none`."""
    return _scores(outcomes).f1


def accuracy(outcomes: Sequence[Outcome]) -> float:
    """Over all pairs."""
    return _scores(outcomes).accuracy


def precision(outcomes: Sequence[Outcome]) -> float:
    """Micro-precision over the labels other than `none`."""
    return _scores(outcomes).precision


def recall(outcomes: Sequence[Outcome]) -> float:
    """Micro-recall over the labels other than `none`."""
    return _scores(outcomes).recall


def broken(outcomes: Sequence[Outcome]) -> float:
    """The share of completions that broke the form, which are wrong."""
    return sum(predicted is None for _, predicted in outcomes) / len(outcomes)


def _scores(outcomes: Sequence[Outcome]) -> Scores:
    return score([gold for gold, _ in outcomes], [predicted for _, predicted in outcomes])


def _prompt(doc: Mapping[str, Any]) -> Prompt:
    record = {name: doc[name] for name in Document.model_fields if name != "image"}
    # lmms-eval asks for the text of documents without their pictures, too.
    picture = doc["image"]["bytes"] if "image" in doc else b""
    document = from_record(record, picture, Place("the dataset"))
    return build_prompt(document, document.pairs[doc["asked"]], _schema(), _form())


@lru_cache(maxsize=1)
def _form() -> PromptForm:
    folder = os.environ.get(FORM)
    return read_form(folder) if folder else PromptForm()


@lru_cache(maxsize=1)
def _schema() -> Schema:
    return Schema.more()
