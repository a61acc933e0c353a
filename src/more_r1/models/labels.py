"""How likely each label of the schema is after a trace: the labels as continuations of prompt and trace, scored together.

The document, the pair and the trace are there once, and its labels branch off behind it (models/forest.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from more_r1.models.decode import batches
from more_r1.models.engine import Model
from more_r1.models.forest import Forest, Sample, logprobs
from more_r1.models.load import Backbone
from more_r1.models.processor import Encoder, Segment
from more_r1.reasoning.prompt import Prompt, PromptForm
from more_r1.reasoning.trace import read_answer
from more_r1.schema import Schema

# Logits of all labels of so many tokens are held at a time.
SCORED_TOKENS = 4096
_OPEN, _CLOSE = "<answer>", "</answer>"


@torch.no_grad()
def label_scores(
    model: Model, prompts: Sequence[Prompt], completions: Sequence[str], schema: Schema
) -> list[tuple[float, ...] | None]:
    """For each prompt and its completion: the log-probability of every label of the schema, in its order, given the trace.

    A label's score is the log-probability of its tokens behind `<answer>` and of the one that ends it, normalised over the
    labels, so that the exponentials of a row sum to 1. None where the completion breaks the form. Which prompts are scored
    together changes nothing but rounding; prompts that begin alike are fastest side by side.
    """
    if not isinstance(model, Backbone):
        return model.label_scores(prompts, completions, schema)
    encoder = model.encoder
    asked: dict[int, list[Sample]] = {}
    for place, trace, labels in branches(encoder, model.form, completions, schema):
        path = (*encoder.prompt(prompts[place]), Segment(trace))
        asked[place] = [(path, label) for label in labels]

    scores: list[tuple[float, ...] | None] = [None] * len(prompts)
    for places in _batches(asked):
        forest = Forest.build([sample for place in places for sample in asked[place]], encoder)
        found = torch.stack([tokens.sum() for tokens in logprobs(model.model, forest)])
        rows = found.double().view(len(places), -1).log_softmax(-1).tolist()
        for place, row in zip(places, rows, strict=True):
            scores[place] = tuple(row)
    return scores


def branches(
    encoder: Encoder, form: PromptForm, completions: Sequence[str], schema: Schema
) -> Iterator[tuple[int, tuple[int, ...], list[tuple[int, ...]]]]:
    """Of each completion that keeps the form: its place, the tokens of its trace, and those of every label behind them."""
    spelled: dict[str, tuple[tuple[int, ...], list[tuple[int, ...]]]] = {}
    for place, completion in enumerate(completions):
        if read_answer(completion, schema, form.reasoning) is None:
            continue
        trace = completion[: completion.index(_OPEN) + len(_OPEN)]
        # From the last space on, tokens may depend on the label; what is before it is tokenised alike whatever follows.
        cut = max(trace.rfind(" "), 0)
        if trace[cut:] not in spelled:
            spelled[trace[cut:]] = _spell(encoder, trace[cut:], schema)
        common, labels = spelled[trace[cut:]]
        before = tuple(encoder.tokenizer(trace[:cut], add_special_tokens=False)["input_ids"]) if cut else ()
        yield place, (*before, *common), labels


def _spell(encoder: Encoder, opening: str, schema: Schema) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The tokens that all labels have in common behind an opening, and those of each label from there to its end.

    The whole is tokenised together, for some tokenizers join the bracket of `<answer>` with what follows it.
    """
    found = []
    for label in schema.labels:
        coded = encoder.tokenizer(opening + label + _CLOSE, add_special_tokens=False, return_offsets_mapping=True)
        # As far as the first token that reaches beyond the label.
        last = next(i for i, (_, end) in enumerate(coded["offset_mapping"]) if end > len(opening) + len(label))
        found.append(tuple(coded["input_ids"][: last + 1]))
    shared = 0
    while len({ids[shared] for ids in found}) == 1:  # no label is the beginning of another, for each has its end
        shared += 1
    return found[0][:shared], [ids[shared:] for ids in found]


def _batches(asked: dict[int, list[Sample]]) -> Iterator[list[int]]:
    """Places of neighbours, as many as SCORED_TOKENS allow."""
    places = iter(asked)
    room = max((sum(len(label) for _, label in samples) for samples in asked.values()), default=0)
    for batch in batches((samples[0][0] for samples in asked.values()), room, SCORED_TOKENS):
        yield [next(places) for _ in batch]
