"""An endpoint on loopback that misbehaves on purpose, pairs to ask it about, and the command in a process to be killed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

from more_r1.document import Box, Document, Entity, Object, Pair, Span
from more_r1.experts.annotate import AnnotateRecipe
from more_r1.formats.more import write_more
from more_r1.reasoning.trace import Trace
from more_r1.schema import NONE, Schema

LABELS = ("/per/org/member_of", "/per/per/partner", NONE)
KEY = "sk-planted-0123456789abcdef-NOBODY-MAY-SEE-THIS"


def write_data(folder: Path, pairs: int) -> Path:
    """A MORE folder whose train split has one pair a document; its headline says the number."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "orange").save(file, "PNG")
    documents = [
        Document(
            id=f"{number:04}.png",
            image=file.getvalue(),
            tokens=("Ann", "sings", "at", f"no{number}x"),
            objects=(Object(id="thing", box=Box(cx=0.5, cy=0.5, w=0.5, h=0.5)),),
            entities=(Entity(id="0-1", span=Span(start=0, end=1)),),
            pairs=(Pair(object="thing", entity="0-1", label=LABELS[number % len(LABELS)]),),
        )
        for number in range(pairs)
    ]
    write_more({"train": documents}, folder, Schema.more())
    return folder


def good(label: str, note: str = "") -> str:
    """A trace that the filter accepts on a pair of `write_data`."""
    types = ("per", "org") if label == NONE else tuple(label.split("/")[1:3])
    steps = (
        f"The photograph is a wide view of a stage in warm light{note}, and the crop cuts out one singer at its centre.",
        "The headline speaks of a concert, which fits what the lamps, the curtain and the crowd in front of them let us see.",
        "The performer wears the scarf of the group that is mentioned, so the two of them plainly have something in common.",
        f"The object is ({types[0]}) and the entity is ({types[1]}).",
        ", ".join(Schema.more().candidates(*types)),
        "Weighing the scarf against the fact that no rival is anywhere to be seen, one possibility is left standing.",
    )
    return Trace(steps, label).render()


@dataclass(frozen=True)
class Asked:
    """One request: of which pair, as which one of that pair, when, and what it said."""

    number: int
    count: int
    time: float
    label: str
    text: str
    body: dict[str, Any]
    headers: dict[str, str]


Script = Callable[[Asked], "str | dict[str, Any]"]
# What ends a call: all else is a failure of transport, and asked again within the call.
ENDS = ("good", "bad", "empty", "refusal", "sorry", "filter", "filter400", "filter403", "error400")


@dataclass
class Endpoint:
    """The server: `script` says how to behave on each request."""

    script: Script
    url: str = ""
    stall: float = 1.0
    asked: list[Asked] = field(default_factory=list)
    ended: Counter[int] = field(default_factory=Counter)
    """Answers by pair that end a call, sent or tried to be sent."""
    busy: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_idle(self) -> None:
        while self.busy:
            time.sleep(0.01)


def completion(text: str | None, finish: str = "stop", refusal: str | None = None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": refusal}
    usage = {"prompt_tokens": 900, "completion_tokens": 200, "total_tokens": 1100}
    return {"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": finish}]} | {
        "usage": usage
    }


@contextlib.contextmanager
def serving(script: Script, stall: float = 1.0) -> Iterator[Endpoint]:
    """Serve until the block ends."""
    endpoint = Endpoint(script, stall=stall)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            text = "".join(part.get("text", "") for part in body["messages"][0]["content"])
            number, label = int(re.findall(r"no(\d+)x", text)[0]), re.findall(r"the label is (\S+?)\. Lead", text)[0]
            headers = {name.lower(): value for name, value in self.headers.items()}
            with endpoint.lock:
                count = sum(one.number == number for one in endpoint.asked) + 1
                asked = Asked(number, count, time.monotonic(), label, text, body, headers)
                endpoint.asked.append(asked)
                endpoint.busy += 1
            try:
                behave(self, asked, script(asked))
            except OSError:
                pass  # the other side was killed
            finally:
                with endpoint.lock:
                    endpoint.busy -= 1

    def behave(handler: Handler, asked: Asked, how: str | dict[str, Any]) -> None:
        if how in ENDS or isinstance(how, dict):
            with endpoint.lock:
                endpoint.ended[asked.number] += 1
        echo = f"You sent {asked.headers.get('authorization')}"
        match how:
            case dict():
                send(handler, 200, how)
            case "good":
                send(handler, 200, completion(good(asked.label)))
            case "bad":
                send(handler, 200, completion(f"<think> Step 1: no more. {echo} </think>"))
            case "empty":
                send(handler, 200, completion(None) | {"choices": []})
            case "refusal":
                send(handler, 200, completion(None, refusal=f"I will not. {echo}"))
            case "sorry":
                send(handler, 200, completion("I'm sorry, but I can't help with identifying people."))
            case "filter":
                send(handler, 200, completion("<think> Step", "content_filter"))
            case "filter400":
                send(handler, 400, {"error": {"code": "content_filter", "message": "filtered"}})
            case "filter403":  # as OpenRouter's moderators answer
                metadata = {"reasons": ["violence"], "flagged_input": "a man with a ...", "provider_name": "x"}
                send(handler, 403, {"error": {"code": 403, "message": "requires moderation", "metadata": metadata}})
            case "error400":
                send(handler, 400, {"error": {"code": "bad_image", "message": f"too small. {echo}"}})
            case "429":
                send(handler, 429, {"error": {"message": f"slow down. {echo}"}})
            case "429 seconds":
                send(handler, 429, {"error": {"message": "slow down"}}, {"Retry-After": "0.05"})
            case "429 later":
                send(handler, 429, {"error": {"message": "slow down"}}, {"Retry-After": "60"})
            case "429 date":
                send(handler, 429, {"error": {"message": "slow down"}}, {"Retry-After": formatdate(time.time(), usegmt=True)})
            case "500" | "503" | "401" | "402":
                send(handler, int(str(how)), {"error": {"message": f"Incorrect or broken. {echo} {KEY[:12]}***{KEY[-8:]}"}})
            case "stall":
                time.sleep(endpoint.stall)
                handler.close_connection = True
            case "drip":  # blanks, one at a time, and a good answer at last
                raw = json.dumps(completion(good(asked.label))).encode()
                handler.send_response(200)
                handler.send_header("Content-Type", "application/json")
                handler.send_header("Content-Length", str(40 + len(raw)))
                handler.end_headers()
                for _ in range(40):
                    handler.wfile.write(b" ")
                    time.sleep(endpoint.stall / 20)
                handler.wfile.write(raw)
            case "drip headers":  # one at a time, and a good answer at last
                handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
                for number in range(40):
                    handler.wfile.write(f"X-{number}: wait\r\n".encode())
                    time.sleep(endpoint.stall / 20)
                raw = json.dumps(completion(good(asked.label))).encode()
                handler.wfile.write(f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw)
            case "reset":
                handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                handler.connection.close()
                handler.close_connection = True
            case "truncated":
                raw = json.dumps(completion(good(asked.label))).encode()
                send_raw(handler, 200, raw[: len(raw) // 2], {"Content-Type": "application/json"})
            case "cut":
                raw = json.dumps(completion(good(asked.label))).encode()
                handler.send_response(200)
                handler.send_header("Content-Type", "application/json")
                handler.send_header("Content-Length", str(len(raw)))
                handler.end_headers()
                handler.wfile.write(raw[: len(raw) // 2])
                handler.close_connection = True
            case "html":
                send_raw(handler, 200, b"<html>Welcome to the cafe</html>", {"Content-Type": "text/html"})
            case "huge":
                send(handler, 200, completion(good(asked.label) + "x" * 10_000_000))
            case "huge500":
                send(handler, 500, {"error": {"message": "x" * 10_000_000}})
            case _:
                raise AssertionError(how)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, body: object, headers: dict[str, str] | None = None) -> None:
    send_raw(handler, status, json.dumps(body).encode(), {"Content-Type": "application/json"} | (headers or {}))


def send_raw(handler: BaseHTTPRequestHandler, status: int, raw: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(raw)))
    handler.end_headers()
    handler.wfile.write(raw)


def recipe(data: Path, out: Path, url: str, tries: int = 3, max_cost: float | None = None, **expert: Any) -> AnnotateRecipe:
    """Quick retries, all pairs."""
    quick = {"first_wait": 0.01, "longest_wait": 0.2, "timeout": 5, "poll": 0.02, "whole_pixels": 3136, "crop_pixels": 3136}
    settings = {"kind": "openai", "model": "m", "base_url": url, **quick, **expert}
    given = {"out": out, "data": data, "share": 1.0, "tries": tries, "max_cost": max_cost, "expert": settings}
    return AnnotateRecipe.model_validate(given)


def records(out: Path) -> list[dict[str, Any]]:
    """All records, of which the last may be half written."""
    lines = (out / "traces.jsonl").read_bytes().split(b"\n")[:-1] if (out / "traces.jsonl").exists() else []
    return [json.loads(line) for line in lines]


def command(arguments: list[str], output: Path, environment: dict[str, str]) -> None:
    """`more-r1 ARGUMENTS`, for a process of its own; what it prints goes to a file."""
    from more_r1.cli import main

    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["more-r1", *arguments]
    main()
