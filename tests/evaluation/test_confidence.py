"""Calibration: figures of cases whose figures are known, the temperature, the file beside the weights, and the page."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folders import page, record, write

from more_r1.evaluation.calibrate import calibrate
from more_r1.evaluation.confidence import BINS, Reliability, fit_temperature, measure_confidence, reliability
from more_r1.evaluation.evaluate import EvaluationError, evaluate
from more_r1.evaluation.metrics import Metrics, PredictionError, measure, render
from more_r1.formats import load_documents
from more_r1.models.load import Backbone, load_backbone
from more_r1.models.manner import Calibration, ModelError, save_calibration
from more_r1.models.predict import Reading
from more_r1.reasoning.prediction import Prediction
from more_r1.schema import Schema

MORE = Schema.more()


def test_figures_of_a_known_case() -> None:
    """A hundred pairs at 0.9 of which 70 are right, a hundred at 0.5 of which 60 are."""
    found = reliability([0.9] * 100 + [0.5] * 100, [True] * 70 + [False] * 30 + [True] * 60 + [False] * 40)
    assert found.ece == pytest.approx((0.2 + 0.1) / 2)
    assert found.brier == pytest.approx((0.7 * 0.01 + 0.3 * 0.81 + 0.25) / 2)
    filled = {number: part for number, part in enumerate(found.bins) if part.pairs}
    assert {number: (part.pairs, part.accuracy) for number, part in filled.items()} == {7: (100, 0.6), 13: (100, 0.7)}
    # Risk 0.3 through the first half, then rising evenly to 0.35.
    assert found.risk_coverage[0] == (pytest.approx(0.005), pytest.approx(0.3))
    assert found.risk_coverage[-1] == (1, pytest.approx(0.35))
    assert found.aurc == pytest.approx((0.3 * 100 + sum((30 + 0.4 * k) / (100 + k) for k in range(1, 101))) / 200)


def test_the_calibration_error_of_a_known_law() -> None:
    """Right with probability c squared where confidence says c: the error is the mean of c - c squared."""
    random = np.random.default_rng(0)
    sure = random.random(40_000)
    found = reliability(list(sure), list(random.random(len(sure)) < sure**2))
    assert found.ece == pytest.approx(1 / 2 - 1 / 3, abs=0.01)
    assert reliability(list(sure), list(random.random(len(sure)) < sure)).ece < 0.015


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 1 / 15, 0.5, 0.9, 1.0]), st.booleans()), min_size=1, max_size=40))
def test_figures_lie_within_their_bounds_in_any_order(told: list[tuple[float, bool]]) -> None:
    found = reliability([sure for sure, _ in told], [right for _, right in told])
    turned = reliability([sure for sure, _ in told[::-1]], [right for _, right in told[::-1]])
    for name in ("ece", "brier", "aurc"):
        assert getattr(found, name) == pytest.approx(getattr(turned, name))
    assert sum(part.pairs for part in found.bins) == found.pairs == len(told) and len(found.bins) == BINS
    assert found.risk_coverage[-1] == (1.0, pytest.approx(sum(not right for _, right in told) / len(told)))
    assert Reliability.model_validate_json(found.model_dump_json()) == found


def test_a_confidence_that_ranks_well_has_less_risk() -> None:
    right = [True] * 50 + [False] * 50
    ranked = [1 - number / 100 for number in range(100)]
    good, bad, none = reliability(ranked, right), reliability(ranked[::-1], right), reliability([0.5] * 100, right)
    assert good.aurc < none.aurc < bad.aurc and none.aurc == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no pair"):
        reliability([], [])


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5, 8.0])
def test_the_temperature_is_found(true: float) -> None:
    """Gold labels drawn at a temperature are likeliest there."""
    random = np.random.default_rng(1)
    logits = random.normal(0, 3, (20_000, 6))
    weights = np.exp(logits / true)
    sums = (weights / weights.sum(1, keepdims=True)).cumsum(1)
    gold = (random.random((len(logits), 1)) > sums).sum(1).clip(0, 5)
    found, before, after = fit_temperature(logits.tolist(), gold.tolist())
    assert found == pytest.approx(true, rel=0.05)
    assert after <= before
    near = [fit_temperature((logits / other).tolist(), gold.tolist())[1] for other in (0.97 * found, 1.03 * found)]
    assert all(after < loss < after + 0.01 for loss in near)


def told(number: int, gold: str, predicted: str | None, probability: float) -> Prediction:
    """A prediction whose label has this probability and the others share the rest."""
    scores = None
    if predicted is not None:
        rest = math.log((1 - probability) / (len(MORE.labels) - 1))
        scores = [math.log(probability) if label == predicted else rest for label in MORE.labels]
    more = {"scores": scores, "confidence": None if predicted is None else probability}
    return Prediction.model_validate(record(number, gold, predicted, **more))


def test_what_has_no_confidence_is_left_out() -> None:
    predictions = [told(0, "none", "none", 0.8), told(1, "none", None, 0.8), told(2, "/per/per/partner", "none", 0.6)]
    found = measure_confidence(predictions, MORE, 1.0)
    assert found is not None and found.before == found.after
    assert (found.after.pairs, found.after.brier) == (2, pytest.approx((0.04 + 0.36) / 2))
    assert measure_confidence(predictions[1:2], MORE, 1.0) is None


def test_withheld_labels_are_counted_apart_from_broken_form() -> None:
    lines = [record(0, "none", "none"), record(1, "none", None), record(2, "/per/per/partner", None, abstained=True)]
    found = measure(lines)
    assert (found.broken, found.abstained, found.accuracy) == (pytest.approx(1 / 3), pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_a_model_is_calibrated_beside_its_weights(random_tiny_dir: Path, benchmark_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(random_tiny_dir, folder)
    backbone = load_backbone(folder)
    assert backbone.temperature == 1
    documents = load_documents(benchmark_dir, "valid")
    told: list[tuple[int, int]] = []
    fitted = calibrate(backbone, documents, MORE, "valid", max_new_tokens=112, progress=lambda *pair: told.append(pair))
    pairs = sum(len(document.pairs) for document in documents)
    assert (fitted.pairs, fitted.data, told[-1]) == (pairs, "valid", (pairs, pairs))
    assert fitted.nll_after < fitted.nll_before
    assert save_calibration(fitted, folder) == folder / "calibration.json"
    mended = load_backbone(folder)
    assert mended.temperature == pytest.approx(fitted.temperature)
    # Evaluation measures with it: random weights break the form, so that nothing has confidence.
    metrics = evaluate(mended, documents[:1], MORE, tmp_path / "out", max_new_tokens=4, reading=Reading(confidence=True))
    assert metrics.confidence is None
    with pytest.raises(EvaluationError, match="no labelled pair to calibrate on"):
        calibrate(backbone, [document.model_copy(update={"pairs": ()}) for document in documents], MORE, "valid")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"temperature": 0}', '{"temperature": -1}', '{"temperature": NaN}', "\xff"])
def test_a_calibration_that_cannot_be_used_is_named(random_tiny_dir: Path, tmp_path: Path, text: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(random_tiny_dir, folder)
    (folder / "calibration.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"calibration\.json: not a calibration") as caught:
        load_backbone(folder)
    assert "\n" not in str(caught.value)


def test_a_model_of_the_hub_has_no_folder_to_calibrate() -> None:
    fitted = Calibration(temperature=2, pairs=3, data="valid", nll_before=1, nll_after=0.5)
    with pytest.raises(ModelError, match="somebody/some-model: no model folder"):
        save_calibration(fitted, "somebody/some-model")


def measured(run: Path, temperature: float) -> Metrics:
    """A run folder with figures of confidence, as evaluate writes them."""
    predictions = [told(number, "none", "none" if number % 3 else "/per/per/partner", 0.55) for number in range(30)]
    write(run, [json.loads(one.model_dump_json()) for one in predictions])
    figures = {"confidence": measure_confidence(predictions, MORE, temperature)}
    metrics = measure(one.model_dump() for one in predictions).model_copy(update=figures)
    (run / "metrics.json").write_text(metrics.model_dump_json(exclude_none=True))
    return metrics


@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_the_page_shows_reliability_and_risk(tmp_path: Path, temperature: float) -> None:
    metrics = measured(tmp_path, temperature)
    assert metrics.confidence is not None
    found = page(tmp_path)
    assert [tag for tag, _ in found.tags].count("svg") == 2
    assert f"{100 * metrics.confidence.after.ece:.2f}" in found.text and "Risk by coverage" in found.text
    assert ("… before, %" in found.text) == ("was fitted on other pairs" in found.text) == (temperature != 1)
    assert f"before {100 * metrics.confidence.before.ece:.2f} %" in found.text or temperature == 1
    circles = {(attrs["cx"], attrs["cy"]) for tag, attrs in found.tags if tag == "circle"}
    # The only bin, before: 0.55 of the axis to the right, the accuracy of two thirds of it up.
    assert any(abs(float(x or 0) - (56 + 336 * 0.55)) < 1 and abs(float(y or 0) - 70) < 1 for x, y in circles)
    assert "expected calibration error" in str(render(metrics).renderables[-1])


def test_figures_of_confidence_that_are_none_are_named(tmp_path: Path) -> None:
    metrics = json.loads(measured(tmp_path, 1.0).model_dump_json(exclude_none=True))
    for change in ({"ece": 7}, {"bins": []}, {"risk_coverage": []}, {"aurc": "<b>"}):
        broken = {**metrics, "confidence": {**metrics["confidence"], "after": metrics["confidence"]["after"] | change}}
        (tmp_path / "metrics.json").write_text(json.dumps(broken))
        with pytest.raises(PredictionError, match=r"metrics\.json: confidence\.after"):
            page(tmp_path)


def test_an_evaluation_measures_confidence(benchmark_dir: Path, tmp_path: Path) -> None:
    documents = load_documents(benchmark_dir, "test")
    shipped: Backbone = load_backbone("tiny")
    shipped.temperature = 2.0
    metrics = evaluate(shipped, documents[:2], MORE, tmp_path, reading=Reading(confidence=True, joint=True))
    assert metrics.confidence is not None and metrics.confidence.temperature == 2
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert metrics.confidence.after.pairs == sum(line["confidence"] is not None for line in lines) > 0
    brier = np.mean([(line["confidence"] - (line["predicted"] == line["gold"])) ** 2 for line in lines if line["confidence"]])
    assert metrics.confidence.after.brier == pytest.approx(float(brier))
    assert Metrics.model_validate_json((tmp_path / "metrics.json").read_text()) == metrics
