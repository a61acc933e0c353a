"""POST /batch: documents in as JSON lines, answers out as JSON lines in their order, the first before the last is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from itertools import count
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from more_r1.serve.answers import Unanswered
from more_r1.serve.errors import RequestError
from more_r1.serve.intake import GONE, MAX_BODY, Intake, pieces

MAX_LINE = MAX_BODY
AT_ONCE = 16
"""Lines of one request that are worked on at a time: more are not read before the first of them is answered."""
IDLE_SECONDS = 600.0
"""A client may make its documents while they are answered."""
SEND_SECONDS = 60.0
"""A client that reads nothing for so long is given up."""

Line = bytes | RequestError
Ask = Callable[[bytes, int], Awaitable[BaseModel]]
"""The answer to a line, the number of which is given, from 1; or what is wrong with it."""


class Answers(Response):
    """Reads the request and writes the answers at the same time. When `stopping` is set, no more is read."""

    media_type = "application/jsonl"

    def __init__(self, request: Request, intake: Intake, ask: Ask, stopping: asyncio.Event) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._request, self._intake, self._ask, self._stopping = request, intake, ask, stopping
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        self._open: set[asyncio.Task[bytes]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """When the client goes, what is not begun is not worked on."""
        reading = asyncio.create_task(self._read())
        writing = asyncio.create_task(self._write(send))
        leaving = asyncio.create_task(self._leave(reading))
        try:
            await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
            with suppress(TimeoutError):  # nobody reads; the response stays unfinished, and the connection is closed
                (writing if writing.done() else leaving).result()
        finally:
            left: tuple[asyncio.Task[Any], ...] = (reading, writing, leaving, *self._open)
            for one in left:
                one.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _read(self) -> None:
        """Begin lines as there is room for them."""
        async with aclosing(lines(self._request, self._intake)) as given:
            for number in count(1):
                await self._room.acquire()
                try:
                    line: Line | None = await anext(given, None)
                except RequestError as error:
                    if error.status == GONE:
                        return
                    line = error
                if line is None:
                    break
                self._begin(line, number)
        self._tasks.put_nowait(None)

    async def _leave(self, reading: asyncio.Task[None]) -> None:
        """Ends when the client has gone. Breaks the reading off when the server stops."""
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((reading, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                await asyncio.wait((reading,))
                self._begin(RequestError(503, "the server is stopping; send this line and the rest again"), None)
                self._tasks.put_nowait(None)
            else:
                reading.result()
            while (await self._request.receive())["type"] != "http.disconnect":
                pass
        finally:
            stopped.cancel()

    async def _write(self, send: Send) -> None:
        """Send answers in the order of their lines; the first before the request is read to its end."""
        started = False
        task: asyncio.Task[bytes] | None
        while True:
            task = await self._tasks.get()
            body = b"" if task is None else await task
            async with asyncio.timeout(SEND_SECONDS):
                if not started:
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    started = True
                await send({"type": "http.response.body", "body": body, "more_body": task is not None})
            if task is None:
                return
            self._open.discard(task)
            self._room.release()

    def _begin(self, line: Line, number: int | None) -> None:
        task = asyncio.create_task(self._answered(line, number))
        if isinstance(line, bytes):
            task.add_done_callback(lambda _: self._intake.release(len(line)))
        self._open.add(task)
        self._tasks.put_nowait(task)

    async def _answered(self, line: Line, number: int | None) -> bytes:
        if isinstance(line, RequestError):
            answer: BaseModel = Unanswered(id=None if number is None else str(number), error=str(line))
        else:
            answer = await self._ask(line, number or 0)
        return answer.model_dump_json().encode() + b"\n"


async def lines(request: Request, intake: Intake) -> AsyncGenerator[Line, None]:
    """The lines that are not empty, as they come; for one that is too long, or for which there is no memory, what is wrong with
    it. The bytes of a line are held in `intake`, to be released by whoever takes it."""
    line = _Growing(intake)
    try:
        async for piece in pieces(request, IDLE_SECONDS):
            first, *others = piece.split(b"\n")
            line.add(first)
            for part in others:
                if (whole := line.taken()) is not None:
                    yield whole
                line.add(part)
        if (whole := line.taken()) is not None:
            yield whole
    finally:
        line.drop()


class _Growing:
    """A line that is not yet there to its end."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._kept = bytearray()
        self._fault: RequestError | None = None

    def add(self, part: bytes) -> None:
        if self._fault is not None:
            return
        try:
            if len(self._kept) + len(part) > MAX_LINE:
                raise RequestError(413, f"a line of more than {MAX_LINE >> 20} MiB; send a smaller picture")
            self._intake.hold(len(part))
            self._kept += part
        except RequestError as error:
            self._fault = error
            self.drop()

    def taken(self) -> Line | None:
        """The line, and a new one is begun; None if it is empty."""
        fault, line, self._fault = self._fault, bytes(self._kept), None
        if fault is None and line.strip():
            self._kept.clear()
            return line
        self.drop()
        return fault

    def drop(self) -> None:
        self._intake.release(len(self._kept))
        self._kept.clear()
