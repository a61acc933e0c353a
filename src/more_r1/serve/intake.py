"""Bodies of requests, read with a bound on each, on all of them together, and on the time that they take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from more_r1.serve.errors import RequestError

MAX_BODY = 32 * 2**20
MAX_HELD = 512 * 2**20
"""Bytes of all requests that are under way."""
SECONDS = 120.0
"""For a whole body."""
IDLE_SECONDS = 30.0
"""Between two pieces of it."""
GONE = 499
"""As nginx has it: nobody is there to read the answer."""


class Intake:
    """Counts the bytes that are held for all requests."""

    def __init__(self) -> None:
        self.held = 0

    def hold(self, size: int) -> None:
        """Count so many more. Raises RequestError, with 429, where they would be too many."""
        if self.held + size > MAX_HELD:
            raise RequestError(429, "too much is being sent at once; try again later", retry_after=2)
        self.held += size

    def release(self, size: int) -> None:
        """Count so many less."""
        self.held -= size

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body, counted until the request is done with. Raises RequestError: 408, 413, 429."""
        kept: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(SECONDS):
                    await self._read(request, kept)
            except TimeoutError as error:
                raise RequestError(408, "the request took too long to arrive; send it again") from error
            yield b"".join(kept)
        finally:
            self.release(sum(map(len, kept)))

    async def _read(self, request: Request, kept: list[bytes]) -> None:
        size = 0
        refusal: RequestError | None = None
        async for piece in pieces(request, IDLE_SECONDS):
            size += len(piece)
            if refusal is None:
                try:
                    if size > MAX_BODY:
                        raise RequestError(413, f"more than {MAX_BODY >> 20} MiB; send less at once")
                    self.hold(len(piece))
                    kept.append(piece)
                except RequestError as error:
                    # Few clients read an answer before they have sent all: the rest is taken and dropped.
                    refusal = error
            elif size > 4 * MAX_BODY:
                break
        if refusal is not None:
            raise refusal


async def pieces(request: Request, idle: float) -> AsyncIterator[bytes]:
    """The body piece by piece. Raises RequestError if nothing comes for so many seconds, or the client goes."""
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(idle):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise RequestError(408, f"nothing came for {idle:.0f} seconds; send it again") from error
        except ClientDisconnect as error:
            raise RequestError(GONE, "the client went away") from error
        yield piece
