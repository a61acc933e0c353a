"""OpenAI's Batch API against a small server of its kind: submit, poll, collect, and go on after a kill at any point."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from misbehaving import completion, good, recipe, records, send, send_raw, write_data

from more_r1.experts import batch as batch_room
from more_r1.experts import batch_calls
from more_r1.experts.annotate import AnnotateRecipe, plan, run_annotate
from more_r1.experts.desk import Figures
from more_r1.experts.reply import ExpertError
from more_r1.training.recipe import RecipeError


def silent(_: Figures) -> None:
    pass


@dataclass
class Provider:
    """Files and batches. `answer` is what a request gets: a body with 200, a status, or None for one that expires."""

    answer: Callable[[int, str], dict[str, Any] | int | None]
    fault: Callable[[str], str | None] = lambda _: None
    """How to misbehave on a request: `500`, `drop` to do what is asked and then reset, or what to answer instead."""
    url: str = ""
    polls: int = 2
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def make(self, given: dict[str, Any]) -> dict[str, Any]:
        id = f"batch_{len(self.batches)}"
        lines = [json.loads(line) for line in self.files[given["input_file_id"]].splitlines()]
        self.batches[id] = given | {"id": id, "object": "batch", "status": "validating", "created_at": int(time.time())}
        self.batches[id] |= {"lines": lines, "polls": 0}
        return self.batches[id]

    def look(self, id: str) -> dict[str, Any]:
        made = self.batches[id]
        made["polls"] += 1
        counts = {"total": len(made["lines"]), "completed": 0, "failed": 0}
        if made["polls"] < self.polls:
            return made | {"status": "in_progress", "request_counts": counts}
        if "output_file_id" not in made:
            output, failed = [], []
            for line in made["lines"]:
                text = "".join(part.get("text", "") for part in line["body"]["messages"][0]["content"])
                number, label = int(re.findall(r"no(\d+)x", text)[0]), re.findall(r"the label is (\S+?)\. Lead", text)[0]
                answer = self.answer(number, label)
                out: dict[str, Any] = {"id": "r", "custom_id": line["custom_id"], "response": None, "error": None}
                if answer is None:
                    failed.append(out | {"error": {"code": "batch_expired", "message": "too late"}})
                elif isinstance(answer, int):
                    body = {"error": {"message": "no", "code": "content_filter" if answer == 400 else None}}
                    failed.append(out | {"response": {"status_code": answer, "body": body}})
                else:
                    output.append(out | {"response": {"status_code": 200, "body": answer}})
            for name, lines in (("output_file_id", output), ("error_file_id", failed)):
                made[name] = f"{id}-{name}" if lines else None
                self.files[f"{id}-{name}"] = "".join(json.dumps(line) + "\n" for line in reversed(lines)).encode()
        return made | {"status": "completed" if made["output_file_id"] else "expired", "request_counts": counts}


@contextlib.contextmanager
def provider(answer: Callable[[int, str], dict[str, Any] | int | None]) -> Iterator[Provider]:
    state = Provider(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def serve(self, work: Callable[[bytes], Any]) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            name = f"{self.command} {self.path.partition('?')[0]}"
            state.seen.append(name)
            how = state.fault(name)
            if how == "500":
                return send(self, 500, {"error": {"message": "down"}})
            found = work(raw) if how in (None, "drop") else str(how).encode()
            if how == "drop":
                self.close_connection = True
            elif isinstance(found, bytes):
                send_raw(self, 200, found, {"Content-Type": "application/octet-stream"})
            else:
                send(self, 200, {key: value for key, value in found.items() if key not in ("lines", "polls")})

        def do_POST(self) -> None:
            def work(raw: bytes) -> Any:
                if self.path == "/v1/batches":
                    return state.make(json.loads(raw))
                parts = BytesParser().parsebytes(b"Content-Type: " + self.headers["content-type"].encode() + b"\r\n\r\n" + raw)
                content = next(p for p in parts.get_payload() if p.get_param("name", header="content-disposition") == "file")
                id = f"file_{len(state.files)}"
                state.files[id] = content.get_payload(decode=True)
                return {"id": id, "object": "file"}

            self.serve(work)

        def do_GET(self) -> None:
            def work(_: bytes) -> Any:
                if self.path.endswith("/content"):
                    return state.files[self.path.split("/")[-2]]
                if self.path.startswith("/v1/batches/"):
                    return state.look(self.path.split("/")[-1])
                made = [{k: v for k, v in one.items() if k not in ("lines", "polls")} for one in state.batches.values()]
                return {"object": "list", "data": list(reversed(made)), "has_more": False}

            self.serve(work)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # of clients that went away
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "more", 9)


def settings(data: Path, out: Path, url: str, **more: Any) -> AnnotateRecipe:
    return recipe(data, out, url, mode="batch", price_in=1000, price_out=10_000, **more)


def right(number: int, label: str) -> dict[str, Any]:
    return completion(good(label))


def sound(out: Path) -> None:
    """Every pair has one final record, no call has two."""
    made = records(out)
    assert Counter(one["img_id"] for one in made if one["final"]) == Counter(f"{number:04}.png" for number in range(9))
    assert len({(one["img_id"], one["attempt"]) for one in made}) == len(made)


def test_all_pairs_go_in_one_batch_and_their_answers_are_judged(data: Path, tmp_path: Path) -> None:
    with provider(right) as state:
        figures = run_annotate(settings(data, tmp_path / "run", state.url), silent)
    assert (figures.accepted, len(state.batches)) == (9, 1)
    assert figures.cost == pytest.approx(9 * 2.9)
    sound(tmp_path / "run")
    (made,) = state.batches.values()
    assert (made["endpoint"], made["completion_window"]) == ("/v1/chat/completions", "24h")
    assert {line["url"] for line in made["lines"]} == {"/v1/chat/completions"}
    assert made["lines"][0]["body"]["messages"][0]["content"][1]["type"] == "image_url"


def test_what_is_rejected_or_expired_goes_into_the_next_batch(data: Path, tmp_path: Path) -> None:
    asked: Counter[int] = Counter()

    def answer(number: int, label: str) -> dict[str, Any] | int | None:
        asked[number] += 1
        if number == 0:
            return 400
        if asked[number] == 1 and number < 4:
            return (completion("<think> no"), None, 500)[number - 1]
        return right(number, label)

    with provider(answer) as state:
        figures = run_annotate(settings(data, tmp_path / "run", state.url, tries=2), silent)
    sound(tmp_path / "run")
    assert (figures.accepted, dict(figures.final)) == (
        8,
        {"accepted": 8, "content_filter": 1} | dict.fromkeys(("form", "error"), 0),
    )
    assert [len(one["lines"]) for one in state.batches.values()] == [9, 4]
    # What expired was the first attempt, and is so again.
    assert [one["attempt"] for one in records(tmp_path / "run") if one["img_id"] == "0002.png"] == [1]
    second = json.dumps(list(state.batches.values())[1]["lines"])
    assert second.count("An earlier text of yours was rejected") == 1
    # A text that was rejected is paid for; what expired or failed is not.
    assert figures.cost == pytest.approx(9 * 2.9)


class Killed(BaseException):
    """What a kill is to the code: nothing runs after it."""


# Of a run, in this order; a batch is polled until it is over.
REQUESTS = ("POST /v1/files", "POST /v1/batches", "GET /v1/batches/batch_0", "GET /v1/batches/batch_0", "/content")
PAGES = ("<html>try later</html>", '{"id": "x", "sta', "[]", "{}", '"x"', "")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("when", range(len(REQUESTS)))
def test_a_run_killed_at_any_request_goes_on_and_pays_once(data: Path, tmp_path: Path, when: int, after: bool) -> None:
    """Before each request of a run in turn, or after the server has done it: files, batches, polls, contents."""
    out = tmp_path / "run"
    with provider(right) as state:
        state.fault = lambda name: ("drop" if after else "500") if len(state.seen) == when + 1 else None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch_calls, "retrying", lambda *_: lambda call: call())
            with pytest.raises(ExpertError):
                run_annotate(settings(data, out, state.url), silent)
        assert len(state.seen) == when + 1 and state.seen[-1].endswith(REQUESTS[when])
        figures = run_annotate(settings(data, out, state.url), silent)
    sound(out)
    assert figures.accepted == 9
    assert figures.cost == pytest.approx(9 * 2.9)
    assert sum(len(one["lines"]) for one in state.batches.values()) == 9


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("when", range(4))
def test_what_is_no_reply_is_tried_again(data: Path, tmp_path: Path, when: int, page: str) -> None:
    """Once in the place of each request's reply; then on and on, which ends the run in one line and not the work."""
    with provider(right) as state:
        state.fault = lambda name: page if len(state.seen) == when + 1 else None
        figures = run_annotate(settings(data, tmp_path / "once", state.url), silent)
        assert (figures.accepted, len(state.batches)) == (9, 1)
    with provider(right) as state:
        state.fault = lambda name: page if len(state.seen) > when else None
        with pytest.raises(ExpertError, match=r"the answer is .*run again"):
            run_annotate(settings(data, tmp_path / "on", state.url, transport_tries=2), silent)
        state.fault = lambda _: None
        assert run_annotate(settings(data, tmp_path / "on", state.url), silent).accepted == 9
    assert len(state.batches) == 1


def test_a_transfer_that_takes_too_long_says_how_long_it_was_given(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_calls, "_SECONDS", 0.2)  # a call has five
    with provider(right) as state:
        state.fault = lambda _: time.sleep(1)
        with pytest.raises(ExpertError, match=r"no answer in 0\.2 seconds; run again"):
            run_annotate(settings(data, tmp_path / "run", state.url, transport_tries=1), silent)


def test_a_failed_request_does_not_make_a_second_batch(data: Path, tmp_path: Path) -> None:
    with provider(right) as state:
        faults = iter(["drop"])
        state.fault = lambda name: next(faults, None) if name == "POST /v1/batches" else None
        figures = run_annotate(settings(data, tmp_path / "run", state.url), silent)
    assert (figures.accepted, len(state.batches)) == (9, 1)
    assert state.seen.count("POST /v1/batches") == 1 and "GET /v1/batches" in state.seen


def test_a_batch_without_answers_is_said_and_can_be_made_again(data: Path, tmp_path: Path) -> None:
    with provider(lambda *_: None) as state:
        with pytest.raises(ExpertError, match=r"is expired and has no answers.*run again"):
            run_annotate(settings(data, tmp_path / "run", state.url), silent)
        assert records(tmp_path / "run") == []
        state.answer = right
        assert run_annotate(settings(data, tmp_path / "run", state.url), silent).cost == pytest.approx(9 * 2.9)


@pytest.mark.parametrize("broken", ["<html>try later</html>", '{"custom_id": "0"', '{"custom_id": "77"}'])
def test_answers_that_cannot_be_read_are_fetched_again_and_not_paid_again(data: Path, tmp_path: Path, broken: str) -> None:
    out = tmp_path / "run"
    with provider(right) as state:
        state.fault = lambda name: broken if name.endswith("/content") else None
        for _ in range(2):
            with pytest.raises(ExpertError, match="1 lines of the answers of batch batch_0 cannot be read; run again"):
                run_annotate(settings(data, out, state.url), silent)
        state.fault = lambda _: None
        figures = run_annotate(settings(data, out, state.url), silent)
    assert (figures.accepted, len(state.batches)) == (9, 1)
    assert figures.cost == pytest.approx(9 * 2.9)
    sound(out)


def test_a_list_of_batches_that_is_none_does_not_mean_that_there_are_none(data: Path, tmp_path: Path) -> None:
    out, usual = tmp_path / "run", batch_calls.retrying
    with provider(right) as state:
        state.fault = lambda name: "drop" if name == "POST /v1/batches" else '{"error": {}}' if "batches" in name else None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                batch_calls, "retrying", lambda recipe, stop: usual(recipe.model_copy(update={"transport_tries": 1}), stop)
            )
            for _ in range(2):
                with pytest.raises(ExpertError):
                    run_annotate(settings(data, out, state.url), silent)
        state.fault = lambda _: None
        assert run_annotate(settings(data, out, state.url), silent).accepted == 9
    assert len(state.batches) == 1


@pytest.mark.parametrize("when", [1, 9])
def test_what_was_never_sent_costs_nothing(data: Path, tmp_path: Path, when: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill while the calls of a batch are prepared, twice."""
    out = tmp_path / "run"
    with provider(right) as state:
        for _ in range(2):
            prepared = iter(range(1, when))

            def fingerprint(body: Any, prepared: Iterator[int] = prepared) -> str:
                if next(prepared, None) is None:
                    raise Killed
                return "f"

            monkeypatch.setattr(batch_room, "fingerprint", fingerprint)
            with pytest.raises(Killed):
                run_annotate(settings(data, out, state.url, max_cost=300.0), silent)
            assert plan(settings(data, out, state.url)).spent == 0
        monkeypatch.undo()
        figures = run_annotate(settings(data, out, state.url, max_cost=300.0), silent)
    assert (figures.accepted, figures.cost) == (9, pytest.approx(9 * 2.9))


def test_estimates_of_batches_grow_to_what_is_charged(data: Path, tmp_path: Path) -> None:
    def dear(number: int, label: str) -> dict[str, Any]:
        made = completion("<think> no")
        made["usage"]["prompt_tokens"] = 50_000
        return made

    with provider(dear) as state:
        figures = run_annotate(settings(data, tmp_path / "run", state.url, tries=3, max_cost=1000.0), silent)
    # A second batch is as dear as the first, and no dearer one is made.
    assert figures.stopped and figures.cost is not None and figures.cost <= 1000


def test_calls_without_a_price_count_at_todays(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with provider(right) as state:
        run_annotate(recipe(data, out, state.url, mode="batch"), silent)
        assert plan(settings(data, out, state.url)).spent == pytest.approx(9 * 2.9)


def test_batches_under_way_are_not_paid_for_a_second_time_live(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with provider(right) as state:
        state.fault = lambda name: "500" if name.startswith("GET") else None
        with pytest.raises(ExpertError):
            run_annotate(settings(data, out, state.url, transport_tries=1), silent)
        live = recipe(data, out, state.url, mode="live", price_in=1000, price_out=10_000)
        with pytest.raises(RecipeError, match=r"batches are under way.*mode=batch"):
            run_annotate(live, silent)
        state.fault = lambda _: None
        run_annotate(settings(data, out, state.url), silent)
        assert run_annotate(live, silent).accepted == 9
    assert not any("chat/completions" in name for name in state.seen)


def test_batches_keep_to_max_cost_and_to_the_size_of_a_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = {"max_tokens": 300, "image_tokens": 100}
    with provider(right) as state:
        figures = run_annotate(settings(data, tmp_path / "run", state.url, max_cost=20.0, **prices), silent)
        # What a batch leaves of the money is spent on another.
        assert len(state.batches) > 1 and (figures.cost or 0) > 20 - 6
        assert figures.stopped and 0 < figures.accepted < 9 and figures.cost is not None and figures.cost <= 20
        monkeypatch.setattr(batch_room, "MOST_FILE", 15_000)
        before = len(state.batches)
        figures = run_annotate(settings(data, tmp_path / "run", state.url, max_cost=100.0, **prices), silent)
    assert not figures.stopped and figures.accepted == 9
    assert len(state.batches) > before + 1
    sound(tmp_path / "run")
