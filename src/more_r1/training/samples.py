"""The labelled pairs of a split, one by one: what stages draw from, and what they are validated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from accelerate.utils import gather_object

from more_r1.document import Document, Pair
from more_r1.formats import load_documents
from more_r1.formats.more import refuse_foreign
from more_r1.models.engine import Model
from more_r1.models.generate import generate
from more_r1.reasoning.prompt import Prompt, PromptForm, build_prompt
from more_r1.reasoning.scoring import score
from more_r1.reasoning.trace import read_answer
from more_r1.schema import Schema
from more_r1.training.examples import launched, share
from more_r1.training.recipe import RecipeError


@dataclass(frozen=True)
class Sample:
    """A pair with its document and gold label."""

    document: Document
    pair: Pair
    label: str

    @property
    def key(self) -> tuple[str, str, tuple[int, int]]:
        """What names the pair in files: document, object, span of the entity in tokens."""
        span = self.document.entity(self.pair.entity).span
        return self.document.id, self.pair.object, (span.start, span.end)

    def prompt(self, schema: Schema, form: PromptForm) -> Prompt:
        """The question to a model."""
        return build_prompt(self.document, self.pair, schema, form)


@dataclass(frozen=True)
class Asked:
    """A pair of a step: its number in the pool, and whether the stage-1 model got it right."""

    sample: Sample
    number: int
    easy: bool
    turn: int = 0
    """How often it came before in its epoch."""


def read_documents(data: Path, split: str, schema: Schema) -> list[Document]:
    """The documents of a split. Raises FormatError, with file and line, where the schema does not have a label.

    Such a pair is not left out as a faulty one is: where the schema is the wrong one, `none` alone would be left.
    """
    documents = load_documents(data, split)
    known = {*schema.labels, None}
    if any(pair.label not in known for document in documents for pair in document.pairs):
        refuse_foreign(data, split, schema)
    return documents


def read_samples(data: Path, split: str, schema: Schema | None = None) -> list[Sample]:
    """All labelled pairs of a split, in the order of the files; labels are those of `schema`, by default MORE's.

    Raises as `read_documents`, and RecipeError where there is no pair.
    """
    documents = read_documents(data, split, schema or Schema.more())
    pairs = [(document, pair) for document in documents for pair in document.pairs]
    samples = [Sample(document, pair, pair.label) for document, pair in pairs if pair.label is not None]
    if not samples:
        raise RecipeError(f"data={data}: the {split} split has no labelled pair")
    return samples


def some(samples: Sequence[Sample], most: int, seed: int) -> list[Sample]:
    """At most so many of them, in their own order, so that pairs of a document stay neighbours."""
    taken = Random(f"{seed} valid").sample(range(len(samples)), min(most, len(samples)))
    return [samples[index] for index in sorted(taken)]


def validate(model: Model, schema: Schema, samples: Sequence[Sample], max_new_tokens: int) -> dict[str, float]:
    """Figures of greedy answers, the samples split among the processes: the benchmark's four and the share of broken form."""
    prompts = [sample.prompt(schema, model.form) for sample in share(samples, launched())]
    completions = generate(model, prompts, max_new_tokens)
    answers = gather_object([read_answer(text, schema, model.form.reasoning) for text in completions])
    scores = score([sample.label for sample in samples], answers).model_dump()
    figures = {name: float(scores[name]) for name in ("f1", "accuracy", "precision", "recall")}
    return figures | {"broken": answers.count(None) / len(answers)}
