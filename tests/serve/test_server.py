"""The app behind real sockets: streams, clients that are slow or go away, too many at once, and stopping."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from served import body_of

from more_r1.document import Document
from more_r1.models.load import Backbone
from more_r1.schema import Schema
from more_r1.serve import app as app_module
from more_r1.serve import intake as intake_module
from more_r1.serve.app import create_app
from more_r1.serve.batch import AT_ONCE
from more_r1.serve.errors import ServeError
from more_r1.serve.run import serve

SECONDS = 120
ROOM = 4


class Held:
    """Proposers' place: documents are held here until they are let through, one after another."""

    def __init__(self) -> None:
        self.passes = threading.Semaphore(0)
        self.reached: list[str] = []
        self.prepared: list[str] = []

    def __call__(self, document: Document, **_: object) -> Document:
        self.reached.append(document.id)
        assert self.passes.acquire(timeout=SECONDS)
        self.prepared.append(document.id)
        return document

    def let(self, count: int) -> None:
        self.passes.release(count)


@contextlib.contextmanager
def running(app: Any) -> Iterator[int]:
    """Its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", http="h11", ws="none"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    held = Held()
    monkeypatch.setattr(app_module, "propose", held)
    return held


@pytest.fixture
def port(shipped: Backbone, held: Held) -> Iterator[int]:
    with running(create_app(shipped, Schema.more(), room=ROOM)) as port:
        yield port
        held.let(10_000)


def post(port: int, path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], dict[str, Any]]:
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    connection.request("POST", path, json.dumps(body))
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), json.loads(answer.read())


def waiting(port: int) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    connection.request("GET", "/health")
    return int(json.loads(connection.getresponse().read())["waiting"])


def until(what: Any, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def quick(document: Document, id: str) -> dict[str, Any]:
    """A document about which nothing is asked: it is found to have nobody in it."""
    return body_of(document.model_copy(update={"id": id, "entities": (), "pairs": ()}))


def test_too_many_at_once_are_told_when_to_come_again(port: int, held: Held, documents: list[Document]) -> None:
    with ThreadPoolExecutor(16) as pool:
        sent = [pool.submit(post, port, "/propose", body_of(documents[0])) for _ in range(16)]
        until(lambda: sum(one.done() for one in sent) == 16 - ROOM - 1)  # one is begun
        held.let(16)
        answers = [one.result() for one in sent]
    assert sorted(status for status, _, _ in answers) == [200] * (ROOM + 1) + [429] * (16 - ROOM - 1)
    for status, headers, answer in answers:
        if status == 429:
            assert headers["retry-after"] == "1"
            assert "try again" in answer["error"]
    held.let(1)
    assert post(port, "/propose", body_of(documents[0]))[0] == 200


def test_a_client_that_goes_away_is_not_worked_for(port: int, held: Held, documents: list[Document]) -> None:
    first = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    first.request("POST", "/propose", json.dumps(quick(documents[0], "begun")))
    until(lambda: held.reached == ["begun"])
    second = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    second.request("POST", "/extract", json.dumps(quick(documents[0], "gone")))
    lines = socket.create_connection(("127.0.0.1", port))
    batch = b"".join(json.dumps(quick(documents[0], f"line {n}")).encode() + b"\n" for n in range(2))
    lines.sendall(b"POST /batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(batch) + batch)
    until(lambda: waiting(port) == 3)
    second.close()
    lines.close()
    time.sleep(1)
    held.let(1)
    assert json.loads(first.getresponse().read())["id"] == "begun"
    held.let(1)
    assert post(port, "/propose", quick(documents[0], "next"))[0] == 200
    assert held.prepared == ["begun", "next"]


class Stream:
    """A batch that is sent piece by piece."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self.socket.sendall(b"POST /batch HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.read = self.socket.makefile("rb")

    def send(self, line: dict[str, Any]) -> None:
        raw = json.dumps(line).encode() + b"\n"
        self.socket.sendall(b"%x\r\n%b\r\n" % (len(raw), raw))

    def end(self) -> None:
        self.socket.sendall(b"0\r\n\r\n")

    def answer(self) -> dict[str, Any] | None:
        """The next; None at the end."""
        line = self.read.readline()
        while line not in (b"", b"0\r\n"):
            if line.startswith(b"{"):
                return dict(json.loads(line))
            line = self.read.readline()
        return None


def test_the_first_answer_comes_before_the_last_line(port: int, held: Held, documents: list[Document]) -> None:
    held.let(10)
    stream = Stream(port)
    for number in range(5):
        stream.send(quick(documents[0], f"a{number}"))
        answer = stream.answer()
        assert answer is not None
        assert (answer["id"], "no entity" in answer["error"]) == (f"a{number}", True)
    stream.end()
    assert stream.answer() is None


def test_a_batch_takes_no_more_than_its_part(port: int, held: Held, documents: list[Document]) -> None:
    stream = Stream(port)
    for number in range(3 * AT_ONCE):
        stream.send(quick(documents[0], str(number)))
    stream.end()
    until(lambda: waiting(port) == ROOM // 2 - 1)  # one is begun
    time.sleep(0.3)
    assert waiting(port) == ROOM // 2 - 1
    # There is room for another client.
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(post, port, "/propose", quick(documents[0], "other"))
        until(lambda: waiting(port) == ROOM // 2)
        held.let(10_000)
        assert other.result()[0] == 200
    answers = [stream.answer() for _ in range(3 * AT_ONCE)]
    assert [answer and answer["id"] for answer in answers] == [str(number) for number in range(3 * AT_ONCE)]
    assert stream.answer() is None


def test_a_batch_is_read_no_further_than_it_is_answered(port: int, held: Held, documents: list[Document]) -> None:
    stream = Stream(port)
    stream.socket.settimeout(1)
    sent = 0
    stream.send(quick(documents[0], "held"))  # none of the others is answered before it
    with contextlib.suppress(TimeoutError):
        while sent < 60:
            stream.send({**quick(documents[0], str(sent)), "id": " " * 2**20})  # wrong, but large
            sent += 1
    # The buffers of both sockets hold some megabytes more.
    assert AT_ONCE <= sent < 50
    stream.socket.close()


def test_slow_clients_are_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "IDLE_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as slow:
        slow.sendall(b'POST /tokens HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"text":')
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")
    monkeypatch.setattr(intake_module, "SECONDS", 1.0)
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as slow:
        slow.sendall(b"POST /tokens HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        for _ in range(8):
            slow.sendall(b" ")
            time.sleep(0.15)
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_long_body_gets_its_answer(port: int) -> None:
    """The client sends all before it reads: nothing of it may be left unread, or it would see a broken connection."""
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    connection.request("POST", "/extract", b" " * (2 * intake_module.MAX_BODY))
    answer = connection.getresponse()
    assert answer.status == 413
    assert "32 MiB" in json.loads(answer.read())["error"]


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from more_r1.cli import app

    for missing in ("fastapi", "uvicorn", "python_multipart"):
        with monkeypatch.context() as context:
            for module in [name for name in sys.modules if name.startswith("more_r1.serve")]:
                context.delitem(sys.modules, module)
            context.setitem(sys.modules, missing, None)
            error = CliRunner().invoke(app, ["serve"]).exception
            assert type(error).__name__ == "ServeError"
            assert f"serving needs {missing}; pip install 'more-r1[serve]'" == str(error)


def test_an_address_that_is_taken_costs_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"127.0.0.1:{port} cannot be listened on .*give another --host or --port"):
            serve(FastAPI(), "127.0.0.1", port, print)
    with pytest.raises(ServeError):
        serve(FastAPI(), "no such host", 0, print)


def test_the_command_serves_and_stops_when_all_is_answered(documents: list[Document]) -> None:
    command = [sys.executable, "-m", "more_r1", "serve", "--port", "0", "--threads", "1", "--queue", "8"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found is not None, process.communicate()
        port = int(found[1])
        body = body_of(documents[0].model_copy(update={"pairs": documents[0].pairs[:1]}))
        stream = Stream(port)  # never ends by itself
        stream.send(body)
        answer = stream.answer()
        assert answer is not None
        assert len(answer["predictions"]) == 1
        connections = [HTTPConnection("127.0.0.1", port, timeout=SECONDS) for _ in range(4)]
        for connection in connections:
            connection.request("POST", "/extract", json.dumps(body))
        until(lambda: waiting(port) > 0)
        process.send_signal(signal.SIGTERM)
        answers = [connection.getresponse() for connection in connections]
        assert [answer.status for answer in answers] in ([200] * 4, [200, 200, 200, 503])
        assert all(answer.read() for answer in answers)
        last = stream.answer()
        assert last is not None
        assert "stopping" in last["error"]
        assert stream.answer() is None
        _, errors = process.communicate(timeout=SECONDS)
        assert "Traceback" not in errors
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port))
    finally:
        process.kill()
