"""What the report shows of a run of `more-r1 annotate`: counts by verdict, label and reason, the cost, and the calls."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import HOSTILE as ANY_HOSTILE
from run_folders import STEPS, Page, annotated, call, page, record, write

from more_r1.evaluation.report import write_report
from more_r1.evaluation.settings import setting
from more_r1.evaluation.traces import count_traces, read_pairs
from more_r1.formats.fault import FormatError
from more_r1.formats.more import read_more
from more_r1.reasoning.trace import Trace

HOSTILE = ANY_HOSTILE.replace("\ud800", "")  # JSON of traces cannot hold half a character
LABEL = "/per/org/member_of"


CALLS = [
    call(0, "form", False, tokens_in=900, tokens_out=5, cost=0.5),
    call(1, label="none", tokens_in=1000, tokens_out=50, cost=0.25),
    call(0, attempt=2, tokens_in=950, tokens_out=60, cost=0.5),
    call(2, "types", False),
    call(2, "types", False, attempt=2),
    call(2, "refusal", True, attempt=3, reason=""),
    call(3, "error", False, label="none"),
]


def test_counts_by_verdict_label_attempt_and_reason_and_the_cost(tmp_path: Path) -> None:
    text = page(annotated(tmp_path, CALLS)).text
    assert "Accepted 2 Rejected 1 Still open 1 Accepted, % 66.67 Calls 7 Cost 1.25 Tokens sent 2,850 Tokens written 115" in text
    assert "4 pairs were asked about" in text and "4 calls say none" in text
    assert "Verdict Calls % accepted 2 28.57 types 2 28.57 error 1 14.29 form 1 14.29 refusal 1 14.29" in text
    assert "Attempt Calls Accepted % 1 4 1 25.00 2 2 1 50.00 3 1 0 0.00" in text
    assert f"Label Pairs Accepted Rejected % none 2 1 0 100.00 {LABEL} 2 1 1 50.00" in text
    assert "Verdict Reason Calls types types it is 2 error error it is 1 form form it is 1 Traces to read" in text
    assert "asked last" not in text and "All 4 pairs." in text and "holds no figures" not in text


def test_the_rounds_of_several_experts_stand_apart(tmp_path: Path) -> None:
    calls = [call(0, "answer", False, expert="round 1"), call(1, expert="round 1"), call(0, expert="round 2", attempt=2)]
    text = page(annotated(tmp_path, calls)).text
    assert "Expert Pairs Accepted Rejected % round 1 1 1 0 100.00 round 2 1 1 0 100.00" in text


def test_a_run_that_has_just_begun_says_so(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_text("")
    found = page(tmp_path)
    assert "Accepted 0 Rejected 0 Accepted, % 0.00 Calls 0 0 pairs were asked about" in found.text
    assert "Traces to read" not in found.text and "Cost" not in found.text
    (tmp_path / "traces.jsonl").write_text(json.dumps(call(0, "form", False)) + "\n" + '{"img_id": "d')
    found = page(tmp_path)
    assert "Still open 1" in found.text and [pair["outcome"] for pair in found.data["pairs"]] == ["open"]


def test_calls_are_in_order_with_picture_box_and_headline(benchmark_dir: Path, tmp_path: Path) -> None:
    document = read_more(benchmark_dir, "train")[2]
    one = document.pairs[0]
    span = document.entity(one.entity).span
    own = {"img_id": document.id, "object": one.object, "span": [span.start, span.end]}
    calls = [
        call(0, "answer", False, **own, completion=Trace(STEPS, "none").render()),
        call(0, "form", False, **own, attempt=2, completion="<think> no"),
        call(0, **own, attempt=3, cost=0.001, tokens_in=7),
        call(8, img_id="gone.png"),
    ]
    data = page(annotated(tmp_path / "run", calls, benchmark_dir)).data
    place = next(index for index, shown in enumerate(data["documents"]) if shown["id"] == document.id)
    pair = next(pair for pair in data["pairs"] if pair["document"] == place)
    assert [(one["attempt"], one["verdict"], one["reason"]) for one in pair["calls"]] == [
        (1, "answer", "answer it is"),
        (2, "form", "form it is"),
        (3, "accepted", ""),
    ]
    assert [one["answer"] for one in pair["calls"]] == ["none", None, LABEL]
    assert [one["steps"] for one in pair["calls"]] == [list(STEPS), [], list(STEPS)]
    assert (pair["outcome"], pair["gold"], pair["calls"][2]["cost"], pair["calls"][2]["tokens_in"]) == (
        "accepted",
        LABEL,
        0.001,
        7,
    )
    box = document.object(one.object).box
    assert pair["corners"] == pytest.approx([min(max(value, 0), 1) for value in box.corners])
    shown = data["documents"][place]
    assert shown["uri"].startswith("data:image/jpeg;base64,") and tuple(shown["tokens"]) == document.tokens
    assert shown["tokens"][slice(*pair["span"])] == list(document.tokens[span.start : span.end])
    (other,) = (pair for pair in data["pairs"] if pair["document"] != place)
    missing = data["documents"][other["document"]]
    assert missing["uri"] is None and "no such document" in missing["why"] and other["corners"] is None


@pytest.mark.parametrize("recipe", [None, "data: gone", "data: [a]", 'data: "a\\0b"', "data: " + "x" * 5000, "{", "data: *x"])
def test_without_their_data_traces_stand_alone(tmp_path: Path, recipe: str | None) -> None:
    annotated(tmp_path, CALLS)
    if recipe is not None:
        (tmp_path / "recipe.yaml").write_text(recipe)
    data = page(tmp_path).data
    assert len(data["pairs"]) == 4 and all(shown["uri"] is None and shown["why"] for shown in data["documents"])
    assert {tuple(pair["span"]) for pair in data["pairs"]} == {(0, 0)}


def test_the_page_stays_small_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    long = call(0, "form", completion="word " * 400_000)
    calls = [*(call(1, "form", False, attempt=number, reason=f"reason {number}") for number in range(1, 41)), long]
    calls += [call(2 + number, label=f"/per/per/x{number}") for number in range(60)]
    path = write_report(annotated(tmp_path, calls), browse=30)
    assert path.stat().st_size < 200_000
    found = Page(path.read_text(encoding="utf-8"))
    assert "30 of 62 pairs can be browsed here" in found.text
    assert "21 rarer reasons are left out" in found.text and "21 rarer labels are left out" in found.text
    pairs = {pair["object"]: pair for pair in found.data["pairs"]}
    assert len(pairs) == 30
    assert [one["attempt"] for one in pairs["per_1"]["calls"]] == list(range(29, 41)) and pairs["per_1"]["calls_left_out"] == 28
    assert len(pairs["per_0"]["calls"][0]["completion"]) == 6000 and pairs["per_0"]["calls"][0]["left_out"] == 1_994_000


def test_texts_of_strangers_stay_texts(tmp_path: Path) -> None:
    names = ("img_id", "object", "label", "expert", "verdict", "reason", "completion")
    calls = [call(0, **dict.fromkeys(names, HOSTILE)), call(1, **dict.fromkeys(names, HOSTILE + "2"), final=False)]
    html = write_report(annotated(tmp_path, calls)).read_text(encoding="utf-8")
    found = Page(html)
    assert len(found.scripts) == 2 and "onerror" not in found.scripts[1]
    assert not [attrs for tag, attrs in found.tags if "onerror" in attrs or attrs.get("src") == "x"]
    block = html.partition('id="data">')[2].partition("</script>")[0]
    assert not set("<>&\u2028\u2029") & set(block)
    assert [pair["calls"][0]["reason"] for pair in found.data["pairs"]] == [HOSTILE, HOSTILE + "2"]
    assert "{{ 7*7 }}" in found.text and "49" not in found.text
    options = [attrs.get("value") for tag, attrs in found.tags if tag == "option"]
    assert options.count(HOSTILE) == 2  # a label and a verdict
    policy = next(attrs["content"] for _, attrs in found.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    annotated(tmp_path, [*CALLS, {"img_id": "d"}, call(4)])
    with pytest.raises(FormatError, match=r"traces\.jsonl:8: .*malformed line"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_predictions_come_first(tmp_path: Path) -> None:
    found = page(write(annotated(tmp_path, CALLS), [record(0, LABEL, LABEL)]))
    assert "All 1 predictions." in found.text and "Calls by verdict" in found.text and "calls" not in found.data["pairs"][0]


NUMBER = st.none() | st.integers(-5, 10**400) | st.integers(0, 2000)
VERDICT = st.sampled_from(["accepted", "form", "types", "error"])


@settings(deadline=None, max_examples=20)
@given(
    st.lists(
        st.builds(
            call,
            st.integers(0, 5),
            VERDICT,
            st.booleans(),
            attempt=st.integers(-3, 10**30),
            tokens_in=NUMBER,
            tokens_out=NUMBER,
            cost=st.none() | st.floats(),
            span=st.tuples(st.integers(-2, 10**30), st.integers(-2, 3)),
        ),
        max_size=12,
    )
)
def test_every_call_is_counted_once(tmp_path_factory: pytest.TempPathFactory, calls: list[dict[str, Any]]) -> None:
    run = annotated(tmp_path_factory.mktemp("any") / "run", calls)
    pairs = read_pairs(run / "traces.jsonl")
    found = count_traces(pairs)
    assert sum(n for _, n, _ in found.verdicts) == found.all.calls == len(calls) == sum(len(pair.calls) for pair in pairs)
    assert found.all.pairs == len({(one["object"], tuple(one["span"])) for one in calls})
    assert found.all.accepted + found.all.rejected + found.all.open == found.all.pairs == sum(row.pairs for row in found.labels)
    ended = {(one["object"], tuple(one["span"])) for one in calls if one["final"]}
    assert found.all.pairs - found.all.open == len(ended)
    if found.costs.cost is not None:
        known = [one["cost"] for one in calls if one["cost"] is not None and 0 <= one["cost"] < 1e12]
        assert math.isclose(found.costs.cost, sum(known)) and found.costs.unknown == len(calls) - len(known)
    write_report(run)


@pytest.mark.parametrize(
    ("recipe", "value"),
    [
        (None, None),
        ("a: 1", None),
        ("data: x", "x"),
        ("data: x\ndata: y", "y"),
        ("data: [x]", None),
        ("- data", None),
        ("{", None),
    ],
)
def test_a_setting_of_a_recipe(recipe: str | None, value: str | None) -> None:
    assert setting(recipe, "data") == value
