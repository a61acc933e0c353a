"""How hard the pairs were that stage 1 left to stage 2: the figures of a difficulty.json, ready to be drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from more_r1.evaluation.metrics import PredictionError
from more_r1.evaluation.settings import setting
from more_r1.schema import NONE

FIGURES = "difficulty.json"
_Count = Annotated[int, Field(ge=0, le=10**12)]


class _Figures(BaseModel):
    """What is used of a difficulty.json, see training/measured.py."""

    model: str = ""
    threshold: float = Field(gt=0, le=1)
    easy: _Count
    hard: _Count
    labels: dict[str, tuple[_Count, _Count]]
    passed: tuple[_Count, ...] = Field(min_length=2, max_length=1025)


@dataclass(frozen=True)
class Bar:
    """The pairs with so many right answers. `height` is a fraction of the tallest bar's."""

    right: int
    pairs: int
    height: float
    easy: bool


@dataclass(frozen=True)
class Pool:
    """Easy and hard pairs, as a whole, by pass rate and by gold label: (label, easy, hard, share of easy ones)."""

    folder: str
    model: str
    threshold: float
    easy: int
    hard: int
    bars: tuple[Bar, ...]
    labels: tuple[tuple[str, int, int, float], ...]

    @property
    def asked(self) -> int:
        """How many answers there are to a pair."""
        return len(self.bars) - 1


def read_pool(run: Path, recipe: str | None) -> Pool | None:
    """The pool that was measured in the folder `run`, else the one that its recipe names under `difficulty` and that is there.

    Relative paths of a recipe hold from here. Raises PredictionError for a difficulty.json that cannot be used.
    """
    named = setting(recipe, "difficulty")
    for folder in (run, *([Path(named)] if named else [])):
        file = folder / FIGURES
        try:
            if file.is_file():
                return _pool(file)
        except OSError:  # a name that is too long, a folder that is closed to us
            continue
    return None


def _pool(file: Path) -> Pool:
    try:
        figures = _Figures.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise PredictionError(f"{file}: {field}: {first['msg']}; write it anew with `more-r1 difficulty`") from error
    asked, tallest = len(figures.passed) - 1, max(*figures.passed, 1)
    return Pool(
        folder=str(file.parent),
        model=figures.model,
        threshold=figures.threshold,
        easy=figures.easy,
        hard=figures.hard,
        bars=tuple(
            Bar(right, pairs, pairs / tallest, right / asked >= figures.threshold) for right, pairs in enumerate(figures.passed)
        ),
        labels=tuple(
            (label, easy, hard, easy / max(easy + hard, 1))
            for label, (easy, hard) in sorted(figures.labels.items(), key=lambda row: (row[0] != NONE, row[0]))
        ),
    )
