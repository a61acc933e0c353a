"""Documents -> predictions: every pair is asked, pairs of one document side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from more_r1.document import Document
from more_r1.models.generate import generate
from more_r1.models.load import Backbone
from more_r1.reasoning.prediction import Prediction, predicted
from more_r1.reasoning.prompt import build_prompt
from more_r1.schema import Schema

# Pairs that are decoded together: enough to fill the machine, few enough to lose little to a kill.
CHUNK_PAIRS = 192
MAX_NEW_TOKENS = 512


def predict(
    backbone: Backbone,
    documents: Sequence[Document],
    schema: Schema,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: Callable[[int], None] | None = None,
    *,
    keep_form: bool = False,
) -> Iterator[list[Prediction]]:
    """Ask for every pair of the documents, greedily; predictions come in chunks of whole documents, in the order of the pairs.

    With `keep_form` no completion can break the form, see form.py. `progress` is told how many pairs of the running chunk
    are done.
    """
    for chunk in _chunks(documents):
        pairs = [(document, pair) for document in chunk for pair in document.pairs]
        prompts = [build_prompt(document, pair, schema, backbone.form) for document, pair in pairs]
        completions = generate(backbone, prompts, max_new_tokens, progress, schema if keep_form else None)
        yield [
            predicted(document, pair, completion, schema, backbone.form)
            for (document, pair), completion in zip(pairs, completions, strict=True)
        ]


def _chunks(documents: Sequence[Document]) -> Iterator[list[Document]]:
    chunk: list[Document] = []
    pairs = 0
    for document in documents:
        chunk.append(document)
        pairs += len(document.pairs)
        if pairs >= CHUNK_PAIRS:
            yield chunk
            chunk, pairs = [], 0
    if pairs:
        yield chunk
