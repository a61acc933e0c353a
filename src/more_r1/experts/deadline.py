"""Connections on which a request and its answer have so many seconds together.

The timeouts of httpx2 are of one read each: an answer that drips in, its headers or its body, would never be late.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore2
import httpx2


def hold_to(client: httpx2.Client, seconds: float) -> None:
    """Give each request of the client `seconds`, from its first byte out to the last byte in; then httpx2.ReadTimeout, or
    WriteTimeout, is raised."""
    for transport in (client._transport, *client._mounts.values()):  # the mounts are proxies of the environment
        if isinstance(transport, httpx2.HTTPTransport):
            # httpcore2 takes a backend of one's own, which httpx2 has no argument for.
            transport._pool._network_backend = _Backend(seconds)


class _Backend(httpcore2.NetworkBackend):
    def __init__(self, seconds: float) -> None:
        self._plain, self._seconds = httpcore2.SyncBackend(), seconds

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        return _Stream(self._plain.connect_tcp(host, port, timeout, local_address, socket_options), self._seconds)

    def sleep(self, seconds: float) -> None:
        self._plain.sleep(seconds)


class _Stream(httpcore2.NetworkStream):
    """One connection, of HTTP/1.1: its requests come one after another, each written before its answer is read."""

    def __init__(self, stream: httpcore2.NetworkStream, seconds: float) -> None:
        self._stream, self._seconds = stream, seconds
        self._end, self._answered = 0.0, True

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._answered:
            self._end, self._answered = time.monotonic() + self._seconds, False
        self._stream.write(buffer, self._left(httpcore2.WriteTimeout))

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._answered = True
        return self._stream.read(max_bytes, self._left(httpcore2.ReadTimeout))

    def _left(self, late: type[httpcore2.TimeoutException]) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise late(f"took more than {self._seconds:g} seconds")
        return left

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._seconds)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
