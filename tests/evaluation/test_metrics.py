"""The metrics against a second statement of the benchmark's definition, written from METHOD.md without ours in sight."""

import io
import json
import random
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from more_r1.evaluation.metrics import Metrics, Outcome, PredictionError, measure, read_predictions, render, score_file
from more_r1.reasoning.scoring import score
from more_r1.schema import Schema

LABELS = Schema.more().labels
golds = st.sampled_from(LABELS)
guesses = st.none() | golds


def benchmark(pairs: list[tuple[str, str | None]]) -> tuple[Fraction, Fraction, Fraction, Fraction]:
    """Accuracy, P, R, F1 of MORE, by walking over the pairs one at a time."""
    right = hit = claimed = wanted = 0
    for gold, predicted in pairs:
        if gold == predicted:
            right += 1
            if gold != "none":
                hit += 1
        if predicted is not None and predicted != "none":
            claimed += 1
        if gold != "none":
            wanted += 1
    accuracy = Fraction(right, len(pairs)) if pairs else Fraction(0)
    precision = Fraction(hit, claimed) if claimed else Fraction(0)
    recall = Fraction(hit, wanted) if wanted else Fraction(0)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else Fraction(0)
    return accuracy, precision, recall, f1


def assert_same(pairs: list[tuple[str, str | None]]) -> None:
    scores = score([gold for gold, _ in pairs], [predicted for _, predicted in pairs])
    assert (scores.accuracy, scores.precision, scores.recall, scores.f1) == pytest.approx([float(x) for x in benchmark(pairs)])
    assert scores.pairs == len(pairs)


def test_equals_the_benchmark_on_ten_thousand_pairs(tmp_path: Path) -> None:
    draw = random.Random(7)
    pairs = [
        (gold := draw.choice(LABELS) if draw.random() < 0.3 else "none", draw.choice([gold, gold, draw.choice(LABELS), None]))
        for _ in range(10_000)
    ]
    assert_same(pairs)
    file = tmp_path / "predictions.jsonl"
    file.write_text("".join(json.dumps({"gold": gold, "predicted": guess}) + "\n" for gold, guess in pairs))
    found = score_file(file)
    assert (found.accuracy, found.precision, found.recall, found.f1) == pytest.approx([float(x) for x in benchmark(pairs)])


@given(st.lists(st.tuples(golds, guesses), max_size=60))
def test_equals_the_benchmark_on_any_pairs(pairs: list[tuple[str, str | None]]) -> None:
    assert_same(pairs)


@given(golds, st.lists(guesses, max_size=20))
def test_equals_the_benchmark_on_one_class(gold: str, predicted: list[str | None]) -> None:
    assert_same([(gold, guess) for guess in predicted])


def test_all_none_is_right_and_has_no_f1() -> None:
    scores = score(["none"] * 5, ["none"] * 5)
    assert (scores.accuracy, scores.precision, scores.recall, scores.f1) == (1.0, 0.0, 0.0, 0.0)


def test_nothing_is_zero() -> None:
    assert set(vars(score([], [])).values()) == {0}
    assert measure([]).f1 == measure([]).macro_f1 == measure([]).broken == 0.0


def test_a_broken_form_is_wrong_even_where_the_gold_is_none() -> None:
    scores = score(["none", LABELS[1]], [None, None])
    assert (scores.accuracy, scores.predicted_positives, scores.gold_positives) == (0.0, 0, 1)


def test_lengths_that_differ_are_an_error() -> None:
    with pytest.raises(ValueError):
        score(["none"], [])


def outcome(gold: str, predicted: str | None, **counts: int) -> Outcome:
    return Outcome(gold=gold, predicted=predicted, **counts)


def test_per_label_macro_bucket_and_hops() -> None:
    metrics = measure(
        [
            outcome("a", "a", hops=1, objects=1, entities=1),
            outcome("a", "b", hops=3, objects=2, entities=1),
            outcome("b", None, hops=3, objects=4, entities=2),
            outcome("none", "a", objects=1, entities=3),
            outcome("none", "none"),
        ]
    )
    assert list(metrics.labels) == ["a", "b", "none"]
    assert metrics.labels["a"].model_dump() == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2, "predicted": 2}
    assert metrics.labels["b"].f1 == 0.0
    assert metrics.macro_f1 == 0.25  # of a and b; `none` has no part in it
    assert metrics.broken == 0.2
    assert {name: part.pairs for name, part in metrics.buckets.items()} == {
        "one entity, one object": 1,
        "one entity, several objects": 1,
        "several entities, one object": 1,
        "several entities, several objects": 1,
    }
    assert {hops: part.recall for hops, part in metrics.hops.items()} == {1: 1.0, 3: 0.0}


@given(st.lists(st.builds(Outcome, gold=golds, predicted=guesses, hops=st.none() | st.integers(1, 4)), max_size=30))
def test_the_parts_add_up_and_json_reads_back(outcomes: list[Outcome]) -> None:
    metrics = measure(outcomes)
    assert Metrics.model_validate_json(metrics.model_dump_json()) == metrics
    assert measure([outcome.model_dump() for outcome in outcomes]) == metrics
    assert sum(scores.support for scores in metrics.labels.values()) == metrics.pairs
    assert sum(scores.support for name, scores in metrics.labels.items() if name != "none") == metrics.gold_positives
    assert sum(part.pairs for part in metrics.hops.values()) == sum(outcome.hops is not None for outcome in outcomes)
    assert round(metrics.broken * metrics.pairs) == sum(outcome.predicted is None for outcome in outcomes)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"gold": "none"}', "predicted: field required"),
        ('{"predicted": null}', "gold: field required"),
        ('{"gold": null, "predicted": "none"}', "gold: input should be a valid string"),
        ('{"gold": 3, "predicted": "none"}', "gold: input should be a valid string"),
        ('{"gold": "none", "predicted": "none", "hops": "two"}', "hops: input should be a valid integer"),
        ("[1, 2]", "not a JSON object"),
        ("{'gold': 1}", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"gold": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, line: str, fault: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"gold": "none", "predicted": "none", "more": []}\n\n' + line + "\n")
    with pytest.raises(PredictionError, match=r"bad\.jsonl:3: ") as caught:
        score_file(file)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reading_streams(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"gold": "none", "predicted": null}\nbroken\n')
    assert next(iter(read_predictions(file))) == Outcome(gold="none", predicted=None)


@pytest.mark.parametrize("content", [None, b'\xff\xfe{"gold"'])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "gone.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PredictionError, match=r"gone\.jsonl: cannot be read"):
        score_file(file)


def test_the_tables_show_the_figures_and_obey_no_markup_of_a_label() -> None:
    hostile = "[bold]x[/italic]\x1b[2J"
    metrics = measure([outcome("a", "a", hops=2, objects=1, entities=1), outcome(hostile, None), outcome("none", "none")])
    out = io.StringIO()
    Console(file=out, width=140, force_terminal=False).print(render(metrics))
    text = out.getvalue()
    assert "66.67" in text and "one entity, one object" in text and "2 hops" in text
    assert "[bold]x[/italic]\ufffd[2J" in text
    assert "macro-F1 50.00 %" in text and "broken form 33.33 %" in text
