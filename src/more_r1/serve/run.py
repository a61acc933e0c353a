"""The server process: loads the app, says where it is, and drains what waits when it is told to stop."""

from __future__ import annotations

import socket
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from more_r1.serve.errors import ServeError


class _Server(uvicorn.Server):
    """Tells the app, before it waits for requests that are under way, that no more are to be taken."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.stop()
        await super().shutdown(sockets)


def serve(app: FastAPI, host: str, port: int, told: Callable[[str], None], *, open_page: bool = False) -> None:
    """Serve until told to stop (Ctrl-C, SIGTERM); `told` gets the address once there is one. Port 0 takes any that is free.

    Raises ServeError if the address cannot be had.
    """
    listening = _listen(host, port)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}"
    config = uvicorn.Config(app, http="h11", ws="none", log_level="error", access_log=False, server_header=False)
    told(address)
    if open_page:
        threading.Timer(0.5, webbrowser.open, (address,)).start()
    with suppress(KeyboardInterrupt):  # the server has seen to it already
        _Server(config, app).run([listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, proto)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ServeError(f"{host}:{port} cannot be listened on ({reason}); give another --host or --port") from error
    return listening
