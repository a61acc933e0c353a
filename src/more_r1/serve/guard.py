"""What stands before every route: whose requests are taken, and headers that keep browsers from doing more than the page asks.

A page of another site can make a visitor's browser send requests to this machine. It gets nowhere: a POST that a browser sends
says where it comes from (Origin, Sec-Fetch-Site), and a name of another site that leads here (DNS rebinding) shows in Host.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Answers hold strangers' pictures and texts; and the page is to be the new one after an update.
    "Cache-Control": "no-cache",
}


class Guard:
    """ASGI middleware. With `local` only hosts of this machine are answered to."""

    def __init__(self, app: ASGIApp, local: bool) -> None:
        self.app, self.local = app, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if (what := self._fault(Headers(scope=scope), str(scope["method"]))) is not None:
            await JSONResponse({"error": what}, 403)(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)

    def _fault(self, headers: Headers, method: str) -> str | None:
        """Why the request is not taken."""
        host = headers.get("host", "")
        if self.local and not is_local(host):
            return "this server answers to its own machine only; open it as http://127.0.0.1, or start it with --host"
        if method in ("GET", "HEAD"):
            return None
        origin = headers.get("origin")
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "the request comes from another site; use the server's own page, or no browser"
        if origin is not None and (urlsplit_or_none(origin) != host.lower() or not host):
            return "the request comes from another site; use the server's own page, or no browser"
        return None


def is_local(host: str) -> bool:
    """Whether a Host header names this machine, with or without a port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        urlsplit(f"//{host}").port  # noqa: B018  raises ValueError for a port that is none
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def urlsplit_or_none(origin: str) -> str | None:
    """Host and port of an origin; None if it has none, as `null`."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
