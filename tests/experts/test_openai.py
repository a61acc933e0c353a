"""An expert behind an endpoint, through `run_annotate`, on a server that misbehaves."""

from __future__ import annotations

import email.utils
import errno
import json
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from misbehaving import KEY, Asked, completion, good, recipe, records, serving, write_data

from more_r1.experts.annotate import plan, run_annotate
from more_r1.experts.desk import Figures, Request
from more_r1.experts.filter import Bounds, judge_trace
from more_r1.experts.journal import Call
from more_r1.experts.keys import scrub
from more_r1.experts.limits import Limiter, StoppedError
from more_r1.experts.money import Budget
from more_r1.experts.reply import ExpertError
from more_r1.experts.settings import OpenAI
from more_r1.experts.transport import retry_after
from more_r1.formats.traces import TraceRecord
from more_r1.schema import Schema
from more_r1.training.samples import read_samples


def silent(_: Figures) -> None:
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "more", 6)


BUSY = ("429", "429 seconds", "429 date", "500", "503", "huge500")
SLOW = ("stall", "drip", "drip headers")
BROKEN = (*SLOW, "reset", "truncated", "cut", "html", "huge")


@pytest.mark.parametrize("how", BUSY + BROKEN)
def test_a_failure_of_transport_is_tried_again_within_the_call(data: Path, tmp_path: Path, how: str) -> None:
    with serving(lambda asked: how if asked.count == 1 else "good", stall=0.6) as endpoint:
        run_annotate(recipe(data, tmp_path / "run", endpoint.url, timeout=0.4 if how in SLOW else 10), silent)
    assert [one["verdict"] for one in records(tmp_path / "run")] == ["accepted"] * 6
    assert {one["attempt"] for one in records(tmp_path / "run")} == {1}
    assert {one.number: one.count for one in endpoint.asked} == dict.fromkeys(range(6), 2)
    assert (tmp_path / "run" / "traces.jsonl").stat().st_size < 20_000


@pytest.mark.parametrize(
    ("how", "verdict"),
    [
        ("empty", "empty"),
        ("refusal", "refusal"),
        ("sorry", "refusal"),
        ("filter", "content_filter"),
        ("filter400", "content_filter"),
        ("filter403", "content_filter"),
        ("error400", "error"),
        ("bad", "form"),
    ],
)
def test_what_is_no_trace_has_its_own_verdict_and_is_asked_again(data: Path, tmp_path: Path, how: str, verdict: str) -> None:
    with serving(lambda asked: how if asked.count == 1 or asked.number == 0 else "good") as endpoint:
        figures = run_annotate(recipe(data, tmp_path / "run", endpoint.url, tries=2), silent)
    assert (figures.calls[verdict], figures.final[verdict], figures.accepted) == (7, 1, 5)
    finals = [one for one in records(tmp_path / "run") if one["final"]]
    assert sorted(one["img_id"] for one in finals) == [f"{number:04}.png" for number in range(6)]
    told = [one.text.count("An earlier text of yours was rejected") for one in endpoint.asked if one.count == 2]
    # A reason is told where the text was at fault.
    assert told == [1 if how == "bad" else 0] * 6


def test_a_call_that_never_gets_through_is_an_error(data: Path, tmp_path: Path) -> None:
    with serving(lambda asked: "500" if asked.number == 3 else "good") as endpoint:
        run_annotate(recipe(data, tmp_path / "run", endpoint.url, tries=2, transport_tries=3), silent)
    bad = [one for one in records(tmp_path / "run") if one["img_id"] == "0003.png"]
    assert [(one["verdict"], one["attempt"], one["final"]) for one in bad] == [("error", 1, False), ("error", 2, True)]
    assert sum(one.number == 3 for one in endpoint.asked) == 2 * 3
    assert "Incorrect or broken" in bad[0]["reason"]


@pytest.mark.parametrize("concurrency", [1, 2, 16])
def test_an_endpoint_that_answers_nothing_is_given_up_and_uses_no_pair_up(tmp_path: Path, concurrency: int) -> None:
    data, out = write_data(tmp_path / "more", 40), tmp_path / "run"
    hows = ["503"]
    with serving(lambda _: hows[-1]) as endpoint:
        settings = recipe(data, out, endpoint.url, transport_tries=2, concurrency=concurrency, price_in=1, price_out=1)
        for _ in range(3):
            with pytest.raises(ExpertError, match=r"10 calls failed in a row.*run again"):
                run_annotate(settings, silent)
            assert records(out) == []
        assert plan(settings).spent == 0
        hows.append("good")
        figures = run_annotate(settings, silent)
    assert (figures.accepted, figures.calls.total()) == (40, 40)
    assert figures.cost == pytest.approx(40 * 1100 / 10**6)


def test_pairs_that_fail_while_others_get_through_are_done_in_the_end(tmp_path: Path) -> None:
    data, out = write_data(tmp_path / "more", 12), tmp_path / "run"
    with serving(lambda asked: "500" if asked.number >= 9 else "good") as endpoint:
        settings = recipe(data, out, endpoint.url, transport_tries=2, concurrency=1)
        figures = run_annotate(settings, silent)  # the last three, three times each, with nothing after them
    assert (figures.final["error"], figures.calls["error"], figures.accepted) == (3, 9, 9)
    assert [one["attempt"] for one in records(out)[-9:]] == [1, 2, 3] * 3


@pytest.mark.parametrize("second", ["good", "error400", "bad"])
def test_what_was_held_back_is_recorded_before_what_came_after(data: Path, tmp_path: Path, second: str) -> None:
    with serving(lambda asked: "good" if asked.number > 2 else "500" if asked.count == 1 else second) as endpoint:
        run_annotate(recipe(data, tmp_path / "run", endpoint.url, transport_tries=1, tries=2, concurrency=1), silent)
    made = [(one["attempt"], one["final"]) for one in records(tmp_path / "run")]
    assert made == [(1, False), (2, True)] * 3 + [(1, True)] * 3


def test_an_empty_account_uses_no_pair_up(data: Path, tmp_path: Path) -> None:
    hows = ["402"]
    with serving(lambda _: hows[-1]) as endpoint:
        with pytest.raises(ExpertError, match="no money left there"):
            run_annotate(recipe(data, tmp_path / "run", endpoint.url, tries=1), silent)
        hows.append("good")
        assert run_annotate(recipe(data, tmp_path / "run", endpoint.url, tries=1), silent).accepted == 6


@pytest.mark.parametrize(
    "text",
    [
        "I'm unable to identify people in images.",
        "I am not able to help with that.",
        "Sorry but I can't do this.",
        "Unfortunately, I can’t identify who is shown.",
        "I apologize, but I cannot identify the person.",
        "I apologise for the inconvenience. I can't say who this is.",
        "As an AI, I can't identify people.",
        "As an AI language model, I'm not able to do that.",
    ],
)
def test_refusals_in_words_are_refusals(data: Path, tmp_path: Path, text: str) -> None:
    with serving(lambda asked: completion(text) if asked.count == 1 else "good") as endpoint:
        figures = run_annotate(recipe(data, tmp_path / "run", endpoint.url, tries=2), silent)
    assert (figures.calls["refusal"], figures.calls["form"], figures.accepted) == (6, 0, 6)


def test_tokens_that_no_number_can_hold_are_no_answer(data: Path, tmp_path: Path) -> None:
    absurd = completion("x")
    absurd["usage"]["prompt_tokens"] = 10**400
    prices = {"price_in": 1, "price_out": 1}
    with serving(lambda asked: absurd if asked.count == 1 else "good") as endpoint:
        assert run_annotate(recipe(data, tmp_path / "run", endpoint.url, transport_tries=2, **prices), silent).accepted == 6


def test_images_text_and_settings_arrive(data: Path, tmp_path: Path) -> None:
    extra = {"extra": {"reasoning_effort": "low"}, "temperature": 0.3, "max_tokens": 77, "detail": "low"}
    with serving(lambda _: "good") as endpoint:
        run_annotate(recipe(data, tmp_path / "run", endpoint.url, **extra), silent)
    body = endpoint.asked[0].body
    assert (body["model"], body["max_completion_tokens"], body["temperature"]) == ("m", 77, 0.3)
    assert body["reasoning_effort"] == "low"
    images = [part["image_url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    assert len(images) == 2 and all(one["url"].startswith("data:image/jpeg;base64,") for one in images)
    assert {one["detail"] for one in images} == {"low"}
    (record, *_) = records(tmp_path / "run")
    assert (record["tokens_in"], record["tokens_out"], record["expert"], record["cost"]) == (900, 200, "m", None)
    assert len({one["fingerprint"] for one in records(tmp_path / "run")}) == 6


def test_steps_that_a_server_sets_apart_as_reasoning_are_put_back(data: Path, tmp_path: Path) -> None:
    def script(asked: Asked) -> dict[str, Any]:
        thoughts, answer = good(asked.label).removeprefix("<think>").split("</think>")
        # What a model thinks before it writes is no part of the trace.
        hidden = thoughts if asked.number % 2 else "Let me see what they want."
        made = completion(answer if asked.number % 2 else good(asked.label))
        made["choices"][0]["message"]["reasoning_content"] = hidden
        return made

    with serving(script) as endpoint:
        assert run_annotate(recipe(data, tmp_path / "run", endpoint.url), silent).accepted == 6
    assert all(one["completion"] == good(one["label"]) for one in records(tmp_path / "run"))


def test_without_key_env_no_key_is_sent(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda _: "good") as endpoint:
        run_annotate(recipe(data, tmp_path / "run", endpoint.url), silent)
    assert all(KEY not in json.dumps(one.headers) for one in endpoint.asked)


def test_a_key_is_sent_and_seen_nowhere(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PLANTED", KEY)
    caplog.set_level("DEBUG")
    hows = ("bad", "refusal", "error400", "429", "500")

    def script(asked: Asked) -> object:
        if asked.number == 5:
            return completion(good(asked.label, f" and {KEY}"))
        return hows[asked.number % 5] if asked.count < 3 else "good"

    out = tmp_path / "run"
    with serving(script) as endpoint:  # type: ignore[arg-type]
        run_annotate(recipe(data, out, endpoint.url, key_env="PLANTED", transport_tries=2), silent)
    assert {one.headers["authorization"] for one in endpoint.asked} == {f"Bearer {KEY}"}
    with serving(lambda _: "401") as endpoint, pytest.raises(ExpertError, match="refuses to be asked") as error:
        run_annotate(recipe(data, tmp_path / "other", endpoint.url, key_env="PLANTED"), silent)
    seen = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    seen += "".join(traceback.format_exception(error.value)) + caplog.text
    assert "[key]" in seen
    for part in (KEY, KEY[:12], KEY[-8:]):
        assert part not in seen


def test_a_key_that_is_none_is_not_taken_out_of_texts(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL", "none")
    with serving(lambda _: "good") as endpoint:
        figures = run_annotate(recipe(data, tmp_path / "run", endpoint.url, key_env="LOCAL"), silent)
    assert (figures.accepted, figures.calls.total()) == (6, 6)
    assert all(one["completion"] == good(one["label"]) for one in records(tmp_path / "run"))


def test_prices_and_tokens_become_cost_and_what_may_have_been_charged_counts_at_its_most(data: Path, tmp_path: Path) -> None:
    with serving(lambda asked: "truncated" if asked.number == 0 and asked.count == 1 else "good") as endpoint:
        settings = recipe(data, tmp_path / "run", endpoint.url, price_in=1000, price_out=10_000, max_tokens=500)
        figures = run_annotate(settings, silent)
    costs = {one["img_id"]: one["cost"] for one in records(tmp_path / "run")}
    plain = 0.9 + 2.0
    assert costs.pop("0000.png") > plain + 5.0
    assert set(costs.values()) == {plain}
    assert figures.cost == pytest.approx(5 * plain + max(one["cost"] for one in records(tmp_path / "run")))


@pytest.mark.parametrize("concurrency", [1, 8])
def test_max_cost_is_never_passed_and_can_be_raised(tmp_path: Path, concurrency: int) -> None:
    data, out = write_data(tmp_path / "more", 20), tmp_path / "run"
    prices = {"price_in": 1000, "price_out": 10_000, "max_tokens": 300, "image_tokens": 100, "concurrency": concurrency}

    def script(_: Asked) -> str:
        time.sleep(0.1)  # so that calls overlap
        return "good"

    with serving(script) as endpoint:
        figures = run_annotate(recipe(data, out, endpoint.url, max_cost=20.0, **prices), silent)
        assert figures.stopped and figures.cost is not None
        # A call costs 2.9, and 3 for the answer and some 2.5 for the question at the most.
        assert 20 - 6 < figures.cost <= 20
        assert len(endpoint.asked) == figures.accepted < 20
        again = run_annotate(recipe(data, out, endpoint.url, max_cost=100.0, **prices), silent)
    assert (again.stopped, again.accepted, len(endpoint.asked)) == ("", 20, 20)


def test_requests_a_second_stay_within_the_limit(tmp_path: Path) -> None:
    data = write_data(tmp_path / "more", 30)
    with serving(lambda asked: "500" if asked.count == 1 and asked.number % 3 == 0 else "good") as endpoint:
        run_annotate(recipe(data, tmp_path / "run", endpoint.url, requests_per_minute=60 * 25, concurrency=4), silent)
    times = sorted(one.time for one in endpoint.asked)
    assert len(times) == 40
    # Sent evenly; of the four that can be under way, three may be late.
    assert times[-1] - times[0] >= (40 - 1 - 3) / 25
    assert max(sum(start <= time < start + 1 for time in times) for start in times) <= 25 + 4


def test_the_limiter_spaces_requests_and_tokens_and_waits_when_told() -> None:
    stop = threading.Event()
    for limiter, count, tokens, least in (
        (Limiter(60 * 50, None, stop), 11, 1, 10 / 50),
        (Limiter(None, 60 * 1000, stop), 5, 50, 4 * 0.05),
        (Limiter(None, None, stop), 100, 50, 0),
    ):
        begin = time.monotonic()
        threads = [threading.Thread(target=limiter.take, args=(tokens,)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - begin >= least
    limiter = Limiter(None, 60 * 10, stop)
    limiter.take(1000)  # a hundred seconds' worth
    limiter.give_back(1000)
    begin = time.monotonic()
    limiter.take(1)
    assert time.monotonic() - begin < 5
    limiter = Limiter(None, None, stop)
    limiter.hold(0.2)
    begin = time.monotonic()
    limiter.take(1)
    assert time.monotonic() - begin >= 0.2
    limiter.hold(100)
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(StoppedError):
        limiter.take(1)


@given(st.integers(min_value=0, max_value=10_000))
def test_retry_after_reads_seconds_and_dates_and_is_bounded(seconds: int) -> None:
    assert retry_after({"retry-after": str(seconds)}, 100) == min(seconds, 100)
    date = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
    found = retry_after({"retry-after": date}, 100)
    assert found is not None and min(seconds, 100) - 2 <= found <= min(seconds, 100)


@pytest.mark.parametrize("said", ["", "soon", "nan", "Wed, 99 Foo 2020", "-", f"Mon, 20 Nov 1995 19:12:08 +{'9' * 15}"])
def test_retry_after_that_says_nothing(said: str) -> None:
    assert retry_after({"retry-after": said} if said else {}, 100) is None


@pytest.mark.parametrize("said", ["x" * 300_000, "sk-" * 100_000, "<think>" * 40_000, f"{'x' * 200_000}{KEY}{'x' * 200_000}"])
def test_an_endless_word_costs_no_time(said: str) -> None:
    start = time.perf_counter()
    assert KEY not in scrub(said, KEY)
    verdict = judge_trace(said, "none", (None, None), Schema.more(), Bounds())
    assert (verdict.name, time.perf_counter() - start < 5) == ("form", True)


def test_a_request_that_cannot_be_written_down_holds_no_other_back(data: Path, tmp_path: Path) -> None:
    settings = recipe(data, tmp_path, "http://localhost:1", price_in=1, price_out=1).expert
    assert isinstance(settings, OpenAI)

    class Full:
        records: ClassVar[list[TraceRecord]] = []
        lost: ClassVar[dict[Call, float]] = {}

        def sending(self, call: Call, most: float | None) -> None:
            raise OSError(errno.ENOSPC, "no space left")

    request = Request(read_samples(data, "train")[0])
    cost = settings.cost(101, settings.max_tokens)
    assert cost is not None
    budget = Budget(settings, cost, Full())  # type: ignore[arg-type]
    for _ in range(2):  # the second would wait for the bill of the first
        with pytest.raises(OSError, match="no space"):
            budget.reserve(request, 100, 0.0)
    assert budget.spent == 0


def test_retry_after_holds_all_calls_back_and_is_bounded(data: Path, tmp_path: Path) -> None:
    def script(asked: Asked) -> str:
        if asked.number == 1:
            time.sleep(0.3)  # the other thread has been told to wait by then
        return "429 later" if asked.number == 0 and asked.count == 1 else "good"

    with serving(script) as endpoint:
        run_annotate(recipe(data, tmp_path / "run", endpoint.url, concurrency=2, longest_wait=1), silent)
    begin = min(one.time for one in endpoint.asked)
    later = [one.time - begin for one in endpoint.asked if one.number > 1 or one.count > 1]
    assert len(later) == 5 and min(later) >= 1
    assert max(later) < 30
