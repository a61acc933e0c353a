"""What is wrong with a file, where, and how to mend it: collected by readers that can go on, raised by those that cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. `line` counts from 1; it is None where the file as a whole or a binary file is meant."""

    file: str
    line: int | None
    record: str
    what: str
    mend: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.record, f"{self.what}; {self.mend}") if part)


class FormatError(ValueError):
    """A file, or a record of it, that cannot be used; reads as one line and carries it as `fault`."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


@dataclass(frozen=True)
class Place:
    """Where a reader stands; `refuse` raises FormatError for it."""

    file: str
    line: int | None = None
    record: str = ""

    def refuse(self, what: str, mend: str) -> NoReturn:
        raise FormatError(Fault(self.file, self.line, self.record, what, mend))


def quoted(text: object, limit: int = 60) -> str:
    """Text of a stranger in quotes, short and with control codes escaped, fit for one line of a message."""
    text = str(text)
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
