"""Model and labelled documents -> the temperature of its confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from more_r1.document import Document
from more_r1.evaluation.confidence import fit_temperature
from more_r1.evaluation.evaluate import EvaluationError, refuse_foreign
from more_r1.models.engine import Model
from more_r1.models.manner import Calibration
from more_r1.models.predict import MAX_NEW_TOKENS, Reading, predict
from more_r1.schema import Schema


def calibrate(
    model: Model,
    documents: Sequence[Document],
    schema: Schema,
    data: str,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Ask for every labelled pair as `extract` does, and fit the temperature on the scores; `data` says what they are.

    They must not be those that the model was trained on, where it is surer than elsewhere. `progress` is told (pairs done,
    pairs in all). Raises EvaluationError where no pair has a label, and where one is none of the schema's.
    """
    refuse_foreign(documents, schema)
    labels = schema.labels
    known = [d.model_copy(update={"pairs": tuple(pair for pair in d.pairs if pair.label is not None)}) for d in documents]
    total = sum(len(document.pairs) for document in known)
    if not total:
        raise EvaluationError(f"{data}: no labelled pair to calibrate on; give documents with gold labels")
    scores: list[tuple[float, ...]] = []
    gold: list[int] = []

    def tell(done: int) -> None:
        if progress is not None:
            progress(len(gold) + done, total)

    for chunk in predict(model, known, schema, max_new_tokens, tell, keep_form=True, reading=Reading(confidence=True)):
        for one in chunk:
            assert one.scores is not None and one.gold is not None  # the form is kept, and only labelled pairs are asked
            scores.append(one.scores)
            gold.append(labels.index(one.gold))
        tell(0)
    temperature, before, after = fit_temperature(scores, gold)
    return Calibration(temperature=temperature, pairs=len(gold), data=data, nll_before=before, nll_after=after)
