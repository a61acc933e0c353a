"""Evaluation: what is written, and that a killed run goes on without asking twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import run

from more_r1.document import Span
from more_r1.evaluation import evaluate as module
from more_r1.evaluation.evaluate import EvaluationError, evaluate
from more_r1.formats import load_documents
from more_r1.formats.jsonl import write_jsonl
from more_r1.formats.parquet import write_parquet
from more_r1.models import predict as predict_module
from more_r1.models.load import Backbone
from more_r1.models.manner import folder_of
from more_r1.models.predict import PLAIN
from more_r1.schema import NONE, Schema

SCHEMA = Schema.more()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_module, "CHUNK_PAIRS", 3)


def test_predictions_are_of_every_pair_in_order(random_tiny: Backbone, benchmark_dir: Path, tmp_path: Path) -> None:
    documents = load_documents(benchmark_dir, "test")
    told: list[tuple[int, int]] = []
    metrics = evaluate(
        random_tiny, documents, SCHEMA, tmp_path, max_new_tokens=4, progress=lambda done, total: told.append((done, total))
    )
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    pairs = [(d.id, p.object, p.entity, p.label) for d in documents for p in d.pairs]
    assert [(line["document"], line["object"], line["entity"], line["gold"]) for line in lines] == pairs
    assert metrics.pairs == len(pairs)
    assert metrics.broken == 1.0  # four random tokens keep no form
    assert told[-1] == (len(pairs), len(pairs))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {path.name for path in tmp_path.iterdir()} == {"predictions.jsonl", "metrics.json"}


def test_a_killed_evaluation_goes_on_where_it_stopped(
    random_tiny: Backbone, benchmark_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = load_documents(benchmark_dir, "test")
    whole = evaluate(random_tiny, documents, SCHEMA, tmp_path / "whole", max_new_tokens=4)

    class KilledError(Exception):
        pass

    calls = []

    def killing(*arguments: object, **more: object) -> list[str]:
        calls.append(arguments)
        if len(calls) == 3:
            raise KilledError
        return real(*arguments, **more)  # type: ignore[arg-type]

    real = predict_module.generate
    monkeypatch.setattr(predict_module, "generate", killing)
    with pytest.raises(KilledError):
        evaluate(random_tiny, documents, SCHEMA, tmp_path / "killed", max_new_tokens=4)
    part = tmp_path / "killed" / "predictions.part"
    part.write_bytes(part.read_bytes() + b'{"document": "cut sh')
    again = evaluate(random_tiny, documents, SCHEMA, tmp_path / "killed", max_new_tokens=4)
    assert again == whole
    prompts = [prompt for call in calls[:2] + calls[3:] for prompt in call[1]]  # type: ignore[attr-defined, index]
    assert len(prompts) == whole.pairs
    same = [(tmp_path / name / "predictions.jsonl").read_bytes() for name in ("whole", "killed")]
    assert same[0] == same[1]


def test_another_question_does_not_go_on_from_old_answers(random_tiny: Backbone, benchmark_dir: Path, tmp_path: Path) -> None:
    documents = load_documents(benchmark_dir, "test")
    key = module._fingerprint(random_tiny, documents, SCHEMA, 4, PLAIN)
    (tmp_path / "predictions.part").write_text(module._header("another") + "\nnonsense\n", encoding="utf-8")
    assert evaluate(random_tiny, documents, SCHEMA, tmp_path, max_new_tokens=4).pairs > 0
    assert key != module._fingerprint(random_tiny, documents, SCHEMA, 5, PLAIN)
    assert key != module._fingerprint(random_tiny, documents[:-1], SCHEMA, 4, PLAIN)
    first = documents[0]
    moved = first.entities[0].model_copy(update={"span": Span(start=0, end=len(first.tokens))})
    for change in ({"entities": (moved, *first.entities[1:])}, {"image": b"another picture"}):
        changed = [first.model_copy(update=change), *documents[1:]]
        assert key != module._fingerprint(random_tiny, changed, SCHEMA, 4, PLAIN)


def test_no_pairs_is_an_error(random_tiny: Backbone, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no pair"):
        evaluate(random_tiny, [], SCHEMA, tmp_path)


@pytest.mark.parametrize("verb", ["evaluate", "calibrate"])
@pytest.mark.parametrize("kind", ["folder", "jsonl", "parquet"])
def test_gold_labels_that_the_schema_lacks_are_refused_before_anything_is_asked(
    kind: str,
    verb: str,
    benchmark_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A figure of 0 would look like the model's."""
    schema, data, model = tmp_path / "mine.yaml", tmp_path / f"data.{kind}", tmp_path / "tiny"
    schema.write_text("relations: {/per/per/friend: is a friend of}")
    shutil.copytree(folder_of("tiny"), model)
    documents = load_documents(benchmark_dir, "test")
    label = next(pair.label for document in documents for pair in document.pairs if pair.label != NONE)
    monkeypatch.setattr(predict_module, "generate", None)  # nobody is asked
    if kind == "folder":
        given: tuple[object, ...] = (benchmark_dir, "--split", "test")
    else:
        (write_jsonl if kind == "jsonl" else write_parquet)(documents, data)
        given = (data,)
    out = ("--out", tmp_path / "out") if verb == "evaluate" else ()
    assert run(monkeypatch, verb, "--data", *given, "--model", model, "--schema", schema, *out) == 1
    printed = capsys.readouterr()
    assert f"the gold label {label!r} is not in the schema; give the schema that these labels are of" in printed.err
    assert printed.err.count("\n") == 1 and not printed.out and not (tmp_path / "out").exists()
