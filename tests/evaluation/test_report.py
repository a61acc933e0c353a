import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from run_folders import HOSTILE, STEPS, Page, draw, page, record, write

from more_r1.evaluation.gallery import choose, read_prediction
from more_r1.evaluation.metrics import PredictionError, score_file
from more_r1.evaluation.report import write_report

LABEL, OTHER = "/per/org/member_of", "/per/org/leader_of"


def test_a_run_that_has_just_begun_says_so(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").touch()
    assert "holds no figures" in page(tmp_path).text


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="gone: no such folder"):
        write_report(tmp_path / "gone")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PredictionError, match=f"^{tmp_path}: no run's folder, it has none of metrics.json, .*; give"):
        write_report(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_figures_stand_beside_the_published_ones_marked_as_other_data(tmp_path: Path) -> None:
    pairs = [(LABEL, LABEL), (LABEL, OTHER), ("none", "none"), ("none", None)]
    run = write(tmp_path, [record(number, *pair) for number, pair in enumerate(pairs)])
    (run / "metrics.json").write_text(score_file(run / "predictions.jsonl").model_dump_json())
    text = page(run).text
    assert "This run, on its own data 50.00 50.00 50.00 50.00" in text
    assert text.index("Other data:") < text.index("MORE-R1 84.91 65.88 69.83 67.80")
    assert "one entity, several objects" in text and "By hops of evidence" in text and "Broken form 25.00" in text


def test_without_metrics_the_predictions_are_measured(tmp_path: Path) -> None:
    run = write(tmp_path, [record(0, LABEL, LABEL), record(1, None, LABEL)])
    found = page(run)
    assert "F1 100.00" in found.text and "1 pairs, 1 of them with a relation" in found.text
    assert len(found.data["pairs"]) == 2


def test_the_confusion_counts_what_was_answered(tmp_path: Path) -> None:
    pairs = [(LABEL, OTHER), (LABEL, OTHER), (LABEL, None), (OTHER, OTHER)]
    run = write(tmp_path, [record(number, *pair) for number, pair in enumerate(pairs)])
    titles = {attrs.get("title") for tag, attrs in page(run).tags if tag == "td"}
    assert {f"{LABEL} → {OTHER}: 2", f"{LABEL} → broken form: 1", f"{LABEL} → {LABEL}: 0", f"{OTHER} → {OTHER}: 1"} <= titles


def test_curves_leave_out_what_is_no_number_and_survive_half_a_line(tmp_path: Path) -> None:
    nan = float("nan")
    events: list[dict[str, Any]]
    events = [{"step": step, "loss": 4 / step, "lr": 1e-4, "grad_norm": nan if step == 2 else 1.0} for step in range(1, 9)]
    events += [{"step": 8, "valid_f1": 0.5, "valid_accuracy": 0.7}, {"step": 9, "loss": "high"}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"step": 10, "lo')
    found = page(tmp_path)
    assert sum(tag == "svg" for tag, _ in found.tags) == 4
    points = next(attrs["points"] for tag, attrs in found.tags if tag == "polyline")
    assert points is not None
    places = [tuple(map(float, point.split(","))) for point in points.split()]
    assert len(places) == 8 and places[0] == (56.0, 20.0) and places[-1] == (392.0, 170.0)
    assert "1 values were not finite" in found.text and "could not be read: 1" in found.text and "last 0.5" in found.text


def test_a_long_log_is_averaged(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("".join(json.dumps({"step": step, "loss": step % 2}) + "\n" for step in range(2400)))
    found = page(tmp_path)
    assert "each point the mean of 10 logged values" in found.text
    assert len(next(attrs["points"] or "" for tag, attrs in found.tags if tag == "polyline").split()) == 240


def test_each_picture_is_there_once_small_and_the_steps_are_read(tmp_path: Path) -> None:
    draw(tmp_path, 0)
    data = page(write(tmp_path, [record(0, LABEL, LABEL), record(1, LABEL, None), record(2, "none", "none")])).data
    first, second = data["documents"]
    kind, code = first["uri"].split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(code))).size == (480, 240) == (first["width"], first["height"])
    assert second["uri"] is None and "no such image" in second["why"]
    assert [pair["document"] for pair in data["pairs"]].count(0) == 2
    by_object = {pair["object"]: pair for pair in data["pairs"]}
    assert by_object["person_0"]["steps"] == list(STEPS) and by_object["person_1"]["steps"] == []
    assert by_object["person_0"]["corners"] == pytest.approx([0.0, 0.4, 0.5, 0.8])


def test_a_broken_picture_and_one_that_is_no_path_cost_only_themselves(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    images = ["text.png", "a\0b", "x" * 5000, None, str(tmp_path)]
    records = [record(2 * number, "none", "none", image=image) for number, image in enumerate(images)]
    assert [document["uri"] for document in page(write(tmp_path, records)).data["documents"]] == [None] * 5


def test_texts_from_data_stay_texts(tmp_path: Path) -> None:
    fields = {"document": HOSTILE, "tokens": [HOSTILE, "x"], "object": HOSTILE, "span": [0, 1], "image": HOSTILE}
    run = tmp_path / "<b>run"
    run.mkdir()
    answered = f"<think> Step 1: {HOSTILE} </think><answer>{HOSTILE}</answer>"
    texts = ((HOSTILE, HOSTILE), (None, HOSTILE), (HOSTILE, answered), ("/a", "<answer>/a</answer>"))
    write(run, [record(n, HOSTILE, label, completion=text, **fields) for n, (label, text) in enumerate(texts)])
    (run / "recipe.yaml").write_text(HOSTILE.replace("\ud800", ""))
    html = write_report(run).read_text(encoding="utf-8")
    found = Page(html)
    assert len(found.scripts) == 2 and "onerror" not in found.scripts[1]
    assert not [attrs for tag, attrs in found.tags if "onerror" in attrs or attrs.get("src") == "x"]
    assert found.data["documents"][0]["tokens"][0] == HOSTILE
    block = html.partition('id="data">')[2].partition("</script>")[0]
    assert not set("<>&\u2028\u2029") & set(block)
    assert "<b>run" not in html and "{{ 7*7 }}" in found.text and "49" not in found.text


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    draw(tmp_path, 0)
    found = page(write(tmp_path, [record(0, LABEL, LABEL)]))
    policy = next(attrs["content"] for _, attrs in found.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")
    for tag, attrs in found.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "action", "srcset"):
            assert (attrs.get(name) or "#").startswith("#")


def test_the_number_of_browsed_predictions_is_limited_and_said(tmp_path: Path) -> None:
    records = [record(number, "none" if number % 3 else LABEL, "none") for number in range(50)]
    found = page(write(tmp_path, records), browse=12)
    assert len(found.data["pairs"]) == 12 and "12 of 50 predictions can be browsed" in found.text
    wrong = [pair for pair in found.data["pairs"] if pair["gold"] != pair["predicted"]]
    assert len(wrong) == 9  # 6, and 3 more as no right one has a relation


def test_the_choice_is_mixed_whole_and_the_same_every_time() -> None:
    kinds = [(LABEL, LABEL), ("none", "none"), ("none", "none"), (LABEL, "none"), ("none", None)]
    everything = [read_prediction(record(number, *kinds[number % 5]), "here") for number in range(200)]
    chosen = choose(everything, 40)
    assert chosen == choose(everything, 40)
    right = [p for p in chosen if p.gold == p.predicted]
    assert (len(chosen), len(right), sum(p.gold != "none" for p in right)) == (40, 20, 10)
    documents = [p.document for p in chosen]
    assert documents == [name for name in dict.fromkeys(documents) for _ in range(documents.count(name))]
    assert sorted(p.object for p in choose(everything, 500)) == sorted(p.object for p in everything)
    assert choose([], 40) == [] and choose(everything, 0) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"box": [0, 0, 1]}, "box"),
        ({"box": [0, 0, float("nan"), 1]}, "box"),
        ({"tokens": None}, "tokens"),
        ({"span": ["a", 1]}, "span"),
    ],
)
def test_a_record_that_does_not_fit_is_named(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    write(tmp_path, [record(0, LABEL, LABEL), record(1, LABEL, LABEL, **change)])
    with pytest.raises(PredictionError, match=rf"predictions\.jsonl:2: {fault}"):
        write_report(tmp_path)
    assert not list(tmp_path.glob("*.html"))


def test_metrics_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"f1": "high"}')
    with pytest.raises(PredictionError, match=r"metrics\.json: "):
        write_report(tmp_path)
