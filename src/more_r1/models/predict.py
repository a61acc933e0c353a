"""Documents -> predictions: every pair is asked, pairs of one document side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from more_r1.document import Document
from more_r1.models.engine import Model
from more_r1.models.generate import generate
from more_r1.models.labels import label_scores
from more_r1.models.sampling import Sampling, rollout_seed
from more_r1.reasoning.joint import Asked, read_jointly
from more_r1.reasoning.prediction import Prediction, predicted
from more_r1.reasoning.prompt import Prompt, build_prompt
from more_r1.reasoning.scoring import probability
from more_r1.reasoning.trace import read_answer
from more_r1.schema import Schema

# Pairs that are decoded together: enough to fill the machine, few enough to lose little to a kill.
CHUNK_PAIRS = 192
MAX_NEW_TOKENS = 512


@dataclass(frozen=True)
class Reading:
    """What is done beyond asking each pair once. All of it is off by default, for it costs time."""

    types: bool = False
    """The answer must be one that the types of step 4 allow, where it names them. For decoding that keeps the form."""
    confidence: bool = False
    """Say how probable the label is given the trace."""
    samples: int = 0
    """Draw so many traces more of each pair, and say what share of them agrees."""
    joint: bool = False
    """Read the pairs of a document together, see reasoning/joint.py."""
    min_confidence: float = 0.0
    """Withhold labels that are less probable."""

    @property
    def scores(self) -> bool:
        """Whether the labels need scores."""
        return self.confidence or self.joint or self.min_confidence > 0


PLAIN = Reading()


def predict(
    model: Model,
    documents: Sequence[Document],
    schema: Schema,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: Callable[[int], None] | None = None,
    *,
    keep_form: bool = False,
    reading: Reading = PLAIN,
) -> Iterator[list[Prediction]]:
    """Ask for every pair of the documents, greedily; predictions come in chunks of whole documents, in the order of the pairs.

    With `keep_form` no completion can break the form, see form.py. `progress` is told how many pairs of the running chunk
    are done. What else is done, `reading` says; confidence is at the temperature of the model's calibration.
    """
    for chunk in _chunks(documents):
        pairs = [(document, pair) for document in chunk for pair in document.pairs]
        prompts = [build_prompt(document, pair, schema, model.form) for document, pair in pairs]
        held = schema if keep_form else None
        completions = generate(model, prompts, max_new_tokens, progress, held, types=reading.types)
        found = [
            predicted(document, pair, completion, schema, model.form)
            for (document, pair), completion in zip(pairs, completions, strict=True)
        ]
        if reading.scores:
            scores = label_scores(model, prompts, completions, schema)
            found = [one.model_copy(update={"scores": row}) for one, row in zip(found, scores, strict=True)]
        if reading.joint:
            found = [one for document in _by_document(chunk, found) for one in _together(document, schema)]
        if reading.samples:
            found = _with_agreement(model, prompts, found, schema, max_new_tokens, held, reading)
        yield [_sure(one, schema, model.temperature, reading) for one in found]


def _sure(prediction: Prediction, schema: Schema, temperature: float, reading: Reading) -> Prediction:
    """With the confidence, and without the label where that is too low."""
    if prediction.scores is None or prediction.predicted is None:
        return prediction
    confidence = probability(prediction.scores, schema.labels.index(prediction.predicted), temperature)
    prediction = prediction.model_copy(update={"confidence": confidence})
    if confidence < reading.min_confidence:
        return prediction.model_copy(update={"predicted": None, "abstained": True})
    return prediction


def _by_document(chunk: Sequence[Document], predictions: Sequence[Prediction]) -> Iterator[Sequence[Prediction]]:
    start = 0
    for document in chunk:
        yield predictions[start : start + len(document.pairs)]
        start += len(document.pairs)


def _together(predictions: Sequence[Prediction], schema: Schema) -> list[Prediction]:
    """The predictions of one document with the labels that go together; those without scores stay as they are."""
    asked = {
        place: Asked(one.object, one.name, dict(zip(schema.labels, one.scores, strict=True)))
        for place, one in enumerate(predictions)
        if one.scores is not None
    }
    labels = dict(zip(asked, read_jointly(list(asked.values()), schema), strict=True))
    return [
        one.model_copy(update={"predicted": labels[place]}) if place in labels else one for place, one in enumerate(predictions)
    ]


def _with_agreement(
    model: Model,
    prompts: Sequence[Prompt],
    predictions: Sequence[Prediction],
    schema: Schema,
    max_new_tokens: int,
    held: Schema | None,
    reading: Reading,
) -> list[Prediction]:
    """With the share of drawn traces that end in the same label; a draw depends on nothing but its own pair."""
    repeated = [prompt for prompt in prompts for _ in range(reading.samples)]
    seeds = [
        rollout_seed(0, 0, (one.document, one.object, one.span), number)
        for one in predictions
        for number in range(reading.samples)
    ]
    texts = generate(model, repeated, max_new_tokens, keep_form=held, types=reading.types, sampling=Sampling(), seeds=seeds)
    answers = [read_answer(text, schema, model.form.reasoning) for text in texts]
    groups = [answers[start : start + reading.samples] for start in range(0, len(answers), reading.samples)]
    return [
        one if one.predicted is None else one.model_copy(update={"agreement": group.count(one.predicted) / reading.samples})
        for one, group in zip(predictions, groups, strict=True)
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
