"""What the report shows of stage 2: its curves, the completions on the way, and how hard the pairs were."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folders import HOSTILE, STEPS, Page, page

from more_r1.evaluation.curves import CHARTS, curves
from more_r1.evaluation.metrics import PredictionError
from more_r1.evaluation.pool import read_pool
from more_r1.evaluation.report import write_report
from more_r1.evaluation.samples import samples
from more_r1.reasoning.trace import Trace

LABEL = "/per/org/member_of"
FIGURES = {
    "fingerprint": "f" * 64,
    "model": "runs/tiny-sft/best",
    "threshold": 0.5,
    "easy": 70,
    "hard": 1030,
    "labels": {LABEL: [10, 30], "none": [60, 1000]},
    "passed": [500, 530, 40, 20, 10],
}


def sample(step: int, answer: str = LABEL, **more: Any) -> dict[str, Any]:
    """A step of stage 2 with its sample."""
    shown = {"document": f"d{step}.png", "object": "per_1", "span": [0, 2], "gold": LABEL, "reward": 1.5}
    return {"step": step, "sample": shown | {"completion": Trace(STEPS, answer).render()} | more}


def log(run: Path, events: list[Any]) -> Path:
    (run / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return run


def measured(folder: Path, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "difficulty.json").write_text(json.dumps(FIGURES | more))
    return folder


def lines(found: Page) -> dict[str, list[tuple[float, float]]]:
    """The points of each polyline, by the class of the group that it is in."""
    drawn, name = {}, ""
    for tag, attrs in found.tags:
        name = attrs.get("class") or "" if tag == "g" else name
        if tag == "polyline":
            drawn[name] = [tuple(map(float, point.split(","))) for point in (attrs["points"] or "").split()]
    return drawn  # type: ignore[return-value]


def test_rewards_are_lines_of_one_chart_from_zero_with_a_legend(tmp_path: Path) -> None:
    events = [{"step": step, "reward": 2, "reward_format": 1, "reward_answer": (step - 1) / 2} for step in (1, 2, 3)]
    found = page(log(tmp_path, events))
    assert [tag for tag, _ in found.tags].count("svg") == 1
    assert lines(found) == {
        "line-0": [(56, 20), (224, 20), (392, 20)],
        "line-1": [(56, 95), (224, 95), (392, 95)],
        "line-3": [(56, 170), (224, 132.5), (392, 95)],  # the colour of its place, though no length is rewarded
    }
    assert "Mean reward total 2 format 1 answer 1 " in found.text and "length" not in found.text


def test_charts_share_the_axis_of_steps() -> None:
    events: list[dict[str, Any]]
    events = [
        {"step": 0, "valid_f1": 0.5},
        {"step": 5, "entropy": 0.2},
        {"step": 10, "entropy": 0.1},
        {"step": 10, "valid_f1": 1},
    ]
    (valid,), (entropy,) = curves(events)["Validation"], curves(events)["Completions"]
    assert [x for x, _ in valid.lines[0].points] == [0, 1] and [x for x, _ in entropy.lines[0].points] == [0.5, 1]


def test_a_share_that_stays_at_zero_lies_at_the_bottom() -> None:
    (clipped,) = curves([{"step": step, "clipped": 0.0} for step in range(3)])["Training"]
    assert [y for _, y in clipped.lines[0].points] == [0, 0, 0] and clipped.values[-1] == (1.0, "1")


def test_noisy_curves_end_with_a_mean_of_as_many_values_as_the_others() -> None:
    (reward,) = curves([{"step": step, "reward": step % 2} for step in range(65)])["Rewards"]
    assert reward.note == "each point the mean of 3 logged values" and len(reward.lines[0].points) == 22
    assert reward.lines[0].last == "0.3333"  # of steps 62 to 64


def test_all_that_an_update_logs_is_drawn() -> None:
    keys = [key for charts in CHARTS.values() for chart in charts for key in chart.keys]
    assert len(keys) == len(set(keys))
    drawn = curves([{"step": 1, **dict.fromkeys(keys, 0.5)}])
    assert list(drawn) == ["Validation", "Rewards", "Completions", "Training", "Cost of a step"]
    assert sum(len(curve.lines) for found in drawn.values() for curve in found) == len(keys)


def test_completions_are_spread_over_the_run() -> None:
    shown, unread = samples([*(sample(step) for step in range(1, 101)), {"step": 101, "loss": 1.0}])
    assert [one.step for one in shown] == [
        "1",
        "10",
        "19",
        "28",
        "37",
        "46",
        "55",
        "64",
        "73",
        "82",
        "91",
        "100",
    ] and unread == 0
    assert [one.step for one in samples([sample(7)])[0]] == ["7"]
    again = sample(1, "none")  # logged again by a run that went on from an earlier checkpoint
    assert [one.answer for one in samples([sample(1), sample(2), again])[0]] == ["none", LABEL]


def test_a_completion_is_shown_with_its_steps_apart(tmp_path: Path) -> None:
    broken = "<think> Step 1: all in Step 2: one</think>"
    found = page(log(tmp_path, [sample(1), sample(2, "none", span=[3, 4]), sample(3, completion=broken, reward=0)]))
    texts = [text.strip() for text in found.texts if text.strip()]
    start = texts.index("<think>")
    steps = [f"Step {number}: {text}" for number, text in enumerate(STEPS, 1)]
    assert texts[start : start + 9] == ["<think>", *steps, "</think>", f"<answer>{LABEL}</answer>"]
    assert f"Step 1 reward 1.5 Gold {LABEL} Answer {LABEL} ✓ Object per_1 in d1.png Entity words 1 to 2 of" in found.text
    assert f"Gold {LABEL} Answer none ✗ Object per_1 in d2.png Entity word 4 of the headline" in found.text
    assert "reward 0 Gold" in found.text and "Answer broken form ✗" in found.text
    assert texts[-4:-1] == ["<think>", "Step 1: all in", "Step 2: one"]


def test_answers_without_reasoning_are_answers() -> None:
    answers = [sample(step, completion="<answer>none</answer>") for step in (1, 2)]
    assert [one.answer for one in samples(answers)[0]] == ["none", "none"]
    assert [one.answer for one in samples([*answers, sample(3)])[0]] == [None, None, LABEL]


def test_a_long_completion_is_cut(tmp_path: Path) -> None:
    found = page(log(tmp_path, [sample(1, completion="word " * 100_000)]))
    assert "… and 496,000 characters more" in found.text and len(found.text) < 20_000


def test_samples_of_strangers_stay_texts_or_are_counted(tmp_path: Path) -> None:
    text = HOSTILE.replace("\ud800", "")
    hostile = sample(1, document=text, object=text, gold=text, completion=text)
    faults: list[dict[str, Any]]
    faults = [
        {"span": None},
        {"span": [10**30, 0]},
        {"reward": "much"},
        {"reward": math.inf},
        {"completion": 5},
        {"gold": "x" * 5000},
    ]
    events = [
        hostile,
        *(sample(2 + number, **fault) for number, fault in enumerate(faults)),
        {"step": 9, "sample": "<b>"},
        {"step": 10},
    ]
    events += [sample(11) | {"step": "<b>"}, sample(12) | {"step": 10**400}]
    html = write_report(log(tmp_path, events)).read_text(encoding="utf-8")
    found = Page(html)
    assert f"Samples that could not be read: {len(faults) + 3}." in found.text
    assert not [tag for tag, attrs in found.tags if tag in ("img", "b") or "onerror" in attrs]
    assert text in "".join(found.texts) and "49" not in found.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=5,
)
KEYS = ["loss", "reward", "reward_answer", "clipped", "tokens", "valid_f1"]
EVENT = st.fixed_dictionaries(
    {"step": st.integers(0, 9) | JSON},
    optional={key: st.floats() | JSON for key in KEYS}
    | {"sample": JSON | st.builds(sample, st.integers(0, 9)).map(lambda e: e["sample"])},
)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(EVENT, max_size=12))
def test_no_log_breaks_the_curves_or_leaves_their_frame(events: list[dict[str, Any]]) -> None:
    shown, unread = samples(events)
    assert len(shown) + unread <= len(events)
    for found in curves(events).values():
        for curve in found:
            assert curve.lines and all(line.points and line.last for line in curve.lines)
            assert all(-1e-9 <= place <= 1 + 1e-9 for line in curve.lines for point in line.points for place in point)


def test_a_folder_of_difficulty_alone_has_a_report(tmp_path: Path) -> None:
    found = page(measured(tmp_path / "difficulty"))
    assert "Easy pairs 70 Hard pairs 1,030 Pairs 1,100 Answers to a pair 4" in found.text
    assert "holds no figures" not in found.text
    assert "at least 50 % of its answers" in found.text and "runs/tiny-sft/best" in found.text
    assert f"none 60 1,000 5.66 {LABEL} 10 30 25.00" in found.text
    bars = [(attrs["class"], float(attrs["height"] or "")) for tag, attrs in found.tags if tag == "rect"]
    assert [name for name, _ in bars] == ["line-1", "line-1", "line-0", "line-0", "line-0"]  # two of four are half
    assert [height for _, height in bars] == pytest.approx([145 * n / 530 for n in (500, 530, 40, 20, 10)], abs=0.01)


def test_a_run_shows_the_difficulty_that_its_recipe_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = log(measured(tmp_path / "run"), [{"step": 1, "reward": 1}])
    (run / "difficulty.json").rename(measured(tmp_path / "pool") / "difficulty.json")
    assert "Hard pairs" not in page(run).text
    (run / "recipe.yaml").write_text("out: run\ndifficulty: pool\n")
    found = page(run)
    assert "Hard pairs 1,030" in found.text and "Mean reward" in found.text and "From pool ." in found.text
    measured(run, hard=3)  # its own comes first
    assert "Hard pairs 3 " in page(run).text


@pytest.mark.parametrize(
    "recipe",
    [
        "difficulty: elsewhere",
        "difficulty: [pool]",
        "difficulty: {a: &a {x: pool}, <<: *a}",
        "difficulty: " + "x" * 5000,
        'difficulty: "pool\\0"',
        "difficulty:",
        "- difficulty",
        "difficulty: *pool",
        "{" * 500,
        "a: &a0 {k: v}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 9)}]}}\n" for n in range(30)),
    ],
)
def test_a_recipe_that_names_no_folder_shows_no_difficulty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    monkeypatch.chdir(tmp_path)
    measured(tmp_path / "pool")
    assert read_pool(tmp_path / "run", recipe) is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"passed": [1]}, "passed"),
        ({"passed": [1, 10**400]}, "passed.1"),
        ({"passed": [0] * 2000}, "passed"),
        ({"easy": -1}, "easy"),
        ({"threshold": math.nan}, "threshold"),
        ({"labels": {"<b>": [1]}}, r"labels.<b>"),
        ({"labels": None}, "labels"),
    ],
)
def test_a_difficulty_that_is_none_is_named(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    with pytest.raises(PredictionError, match=rf"difficulty\.json: {field}.*: .*more-r1 difficulty"):
        write_report(measured(tmp_path, **change))


def test_no_pair_at_all_draws_no_bar(tmp_path: Path) -> None:
    found = page(measured(tmp_path, easy=0, hard=0, labels={}, passed=[0, 0]))
    assert {attrs["height"] for tag, attrs in found.tags if tag == "rect"} == {"0.00"}


def test_labels_and_names_in_difficulty_stay_texts(tmp_path: Path) -> None:
    text = HOSTILE.replace("\ud800", "")
    found = page(measured(tmp_path, model=text, labels={text: [1, 2]}))
    assert not [tag for tag, attrs in found.tags if tag == "img" or "onerror" in attrs]
    assert "".join(found.texts).count(text) == 2
