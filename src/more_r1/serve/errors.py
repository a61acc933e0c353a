"""What goes wrong while serving: before it begins, and with one request."""

from __future__ import annotations

from typing import NoReturn


class ServeError(ValueError):
    """A server that cannot start; the message names the mend."""


class RequestError(Exception):
    """A request that gets no answer: `status` is HTTP's, the message one line with the mend. It names no file of the server.

    No ValueError, for those inside a validator of pydantic become its own.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(_line(message))
        self.status = status
        self.retry_after = retry_after
        """Seconds after which it is worth another try."""


def extra_missing(error: ImportError) -> NoReturn:
    """Say how to install what serving needs; an import of another kind that fails is a bug and stays what it is."""
    if error.name is None or error.name.partition(".")[0] not in ("fastapi", "starlette", "uvicorn", "python_multipart"):
        raise error
    raise ServeError(f"serving needs {error.name}; pip install 'more-r1[serve]'") from error


# A stranger's own text may be part of a message.
_LONGEST = 300


def _line(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
