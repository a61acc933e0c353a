"""Model and documents -> predictions.jsonl and metrics.json, in a folder that a killed run goes on from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from more_r1.document import Document
from more_r1.evaluation.confidence import measure_confidence
from more_r1.evaluation.metrics import Metrics, Outcome, measure
from more_r1.formats.fault import quoted
from more_r1.formats.paths import replacing
from more_r1.models.classifier import Classifier
from more_r1.models.load import Backbone, fingerprint
from more_r1.models.predict import MAX_NEW_TOKENS, PLAIN, Reading, predict
from more_r1.reasoning.prediction import Prediction
from more_r1.schema import Schema


class EvaluationError(ValueError):
    """An evaluation that cannot be run; the message names the folder and the mend."""


def evaluate(
    model: Backbone | Classifier,
    documents: Sequence[Document],
    schema: Schema,
    out: Path,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: Callable[[int, int], None] | None = None,
    reading: Reading = PLAIN,
) -> Metrics:
    """Ask for every pair of the documents, write `out/predictions.jsonl` and `out/metrics.json`, and return the metrics.

    Pairs without a gold label are predicted but not measured. `reading` says what is done beyond asking: with `confidence`
    that is measured, too. Predictions are kept as they come: an evaluation that was
    killed goes on where it stopped, if weights, questions and documents are the same; else it begins anew. `progress` is
    told (pairs done, pairs in all). Raises EvaluationError where there is no pair to ask about, and as `refuse_foreign`.
    """
    refuse_foreign(documents, schema)
    pairs = [(document.id, pair) for document in documents for pair in document.pairs]
    if not pairs:
        raise EvaluationError("no pair to ask about; the documents need objects, entities and pairs")
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "predictions.part"
    key = _fingerprint(model, documents, schema, max_new_tokens, reading)
    predictions, left = _resume(kept, key, documents)
    with kept.open("a", encoding="utf-8") as file:
        if not predictions:
            file.truncate(0)
            file.write(_header(key) + "\n")

        def tell(done: int) -> None:
            if progress is not None:
                progress(len(predictions) + done, len(pairs))

        for chunk in predict(model, left, schema, max_new_tokens, tell, reading=reading):
            file.write("".join(prediction.model_dump_json() + "\n" for prediction in chunk))
            file.flush()
            predictions += chunk
            tell(0)
    known = [prediction for prediction in predictions if prediction.gold is not None]
    metrics = measure(prediction.model_dump(include=set(Outcome.model_fields)) for prediction in known)
    if reading.confidence:
        metrics = metrics.model_copy(update={"confidence": measure_confidence(known, schema, model.temperature)})
    _replace(out / "predictions.jsonl", "".join(prediction.model_dump_json() + "\n" for prediction in predictions))
    _replace(out / "metrics.json", metrics.model_dump_json(indent=2, exclude_none=True) + "\n")
    kept.unlink()
    return metrics


def refuse_foreign(documents: Sequence[Document], schema: Schema) -> None:
    """Raises EvaluationError where a gold label is none of the schema's: no answer could be right, and nobody would be told."""
    known = {*schema.labels, None}
    for document in documents:
        for pair in document.pairs:
            if pair.label not in known:
                what = f"{quoted(document.id)}: the gold label {quoted(pair.label)} is not in the schema"
                raise EvaluationError(f"{what}; give the schema that these labels are of (--schema FILE), or mend the document")


def _fingerprint(
    model: Backbone | Classifier, documents: Sequence[Document], schema: Schema, max_new_tokens: int, reading: Reading
) -> str:
    """What the predictions depend on: weights, form, calibration, schema, documents, and how they are read. A picture in a file
    is taken to be the one that it was."""
    digest = hashlib.sha256()
    weights = fingerprint(model) if isinstance(model, Backbone) else model.fingerprint
    settings = [weights, str(model.temperature), schema.model_dump_json(), str(max_new_tokens), str(reading)]
    for text in [*settings, *(f"{d.id} {_picture(d)} {d.tokens} {d.objects} {d.entities} {d.pairs}" for d in documents)]:
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _picture(document: Document) -> str:
    """Where the picture is, or what it is."""
    return str(document.image) if isinstance(document.image, Path) else hashlib.sha256(document.image).hexdigest()


def _resume(kept: Path, key: str, documents: Sequence[Document]) -> tuple[list[Prediction], list[Document]]:
    """What an earlier run of the same evaluation predicted of whole documents, and the documents that are left."""
    if not kept.is_file():
        return [], list(documents)
    lines = kept.read_text(encoding="utf-8").split("\n")[:-1]  # a last line without its end was cut short by a kill
    if not lines or lines[0] != _header(key):
        return [], list(documents)
    done = whole = 0
    for document in documents:
        if whole + len(document.pairs) > len(lines) - 1:
            break
        done, whole = done + 1, whole + len(document.pairs)
    _replace(kept, "".join(line + "\n" for line in lines[: whole + 1]))
    return [Prediction.model_validate_json(line) for line in lines[1 : whole + 1]], list(documents[done:])


def _header(key: str) -> str:
    return json.dumps({"fingerprint": key})


def _replace(path: Path, text: str) -> None:
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8")
