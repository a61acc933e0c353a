"""traces.jsonl: what an expert wrote for each pair and what became of it, one line a call; what stage 1 learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from more_r1.formats.lines import read_lines

ACCEPTED: Final = "accepted"
Key = tuple[str, str, tuple[int, int]]
"""What names a pair in files: document, object, span of the entity in tokens."""


class TraceRecord(BaseModel):
    """One call of an expert on one pair; of a pair's records exactly one is `final` in the end.

    `label` is the gold one, `attempt` counts from 1, `fingerprint` is the sha256 of what was sent, pictures included. `cost` is
    in the currency of the recipe's prices. None is what nobody knows.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    img_id: str
    object: str
    span: tuple[int, int]
    label: str
    expert: str
    fingerprint: str
    attempt: int
    completion: str
    verdict: str
    reason: str = ""
    final: bool
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None

    @property
    def key(self) -> Key:
        return self.img_id, self.object, self.span

    @property
    def accepted(self) -> bool:
        return self.final and self.verdict == ACCEPTED


class _Completion(BaseModel):
    """The least that a line of traces must have; those of an oracle and of other tools have no verdict."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    img_id: str
    object: str
    span: tuple[int, int]
    completion: str | None = None
    verdict: str = ACCEPTED
    final: bool = True


def read_traces(path: Path) -> list[TraceRecord]:
    """All records in the order of the file, a half-written last line left out.

    Raises FormatError with the line that cannot be read, OSError where the file cannot.
    """
    mend = "write one JSON object a line, as `more-r1 annotate` does, or delete the line"
    return read_lines(path, TraceRecord, mend, appended=True)


def read_completions(path: Path) -> dict[Key, str]:
    """Accepted final completions by pair, from the file of `more-r1 annotate` or an oracle, or any with the same keys.

    A line without `verdict` counts as accepted. Raises as `read_traces`.
    """
    mend = "write one JSON object a line with img_id, object, span and completion, or delete the line"
    lines = read_lines(path, _Completion, mend, appended=True)
    return {
        (line.img_id, line.object, line.span): line.completion
        for line in lines
        if line.completion is not None and line.final and line.verdict == ACCEPTED
    }
