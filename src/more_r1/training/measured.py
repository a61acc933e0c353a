"""What a model answered to the pairs that stage 1 left: difficulty.jsonl, one line a pair, and the figures of difficulty.json.

Easy and hard are not stored: they follow from the answers and a threshold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field

from more_r1.training.recipe import RecipeError

# A part becomes the lines when all pairs have been asked.
LINES, FIGURES, PART = "difficulty.jsonl", "difficulty.json", "difficulty.part"


class Measured(BaseModel):
    """A pair of the pool and what a model answered to it: one line of difficulty.jsonl."""

    model_config = ConfigDict(frozen=True)  # open to other keys: passed and asked are written for others, and derived here

    document: str
    object: str
    span: tuple[int, int]
    label: str
    """The gold one."""
    predicted: tuple[str | None, ...] = Field(min_length=1)
    """The greedy answer, or one for each sampled completion; None is a completion that broke the form."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> int:
        """How many of the answers are right."""
        return self.predicted.count(self.label)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def asked(self) -> int:
        """How often the model was asked."""
        return len(self.predicted)

    @property
    def key(self) -> tuple[str, str, tuple[int, int]]:
        """As samples.Sample has it."""
        return self.document, self.object, self.span

    @property
    def learnability(self) -> float:
        """How much a group of rollouts can teach, p (1 - p): the variance of a reward that is earned with probability p.

        Sampling by it is Rutherford et al. 2024 (arXiv 2408.15099), for language models Foster et al. 2025 (arXiv 2502.12272).
        p is known from a few answers only; this is the unbiased estimate from them, the variance of the sample. It is 0 where
        all answers agreed: such pairs are most of a pool, and few of their groups would teach anything. One answer alone tells
        nothing, so that all are alike.
        """
        if self.asked == 1:
            return 1.0
        return self.passed * (self.asked - self.passed) / (self.asked * (self.asked - 1))


class Difficulty(BaseModel):
    """The figures of a pool: difficulty.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    """A hash of all that the answers depend on: model, questions and how they were asked."""
    model: str
    weights: str | None = None
    """A hash of the model alone; None in folders from before it was kept."""
    threshold: float = Field(gt=0, le=1)
    easy: int
    hard: int
    labels: dict[str, tuple[int, int]]
    """Easy and hard pairs of each gold label."""
    passed: tuple[int, ...]
    """How many pairs had 0, 1, 2, ... right answers; as many entries as there were answers to a pair, and one."""


def split(measured: Sequence[Measured], threshold: float) -> tuple[list[Measured], list[Measured]]:
    """The easy pairs, those with a pass rate of at least `threshold`, and the hard ones."""
    easy = [one for one in measured if one.passed / one.asked >= threshold]
    return easy, [one for one in measured if one.passed / one.asked < threshold]


def figures(measured: Sequence[Measured], threshold: float, model: str, weights: str, fingerprint: str) -> Difficulty:
    """Count the pairs."""
    easy, hard = (Counter(one.label for one in part) for part in split(measured, threshold))
    passed = Counter(one.passed for one in measured)
    return Difficulty(
        fingerprint=fingerprint,
        model=model,
        weights=weights,
        threshold=threshold,
        easy=easy.total(),
        hard=hard.total(),
        labels={label: (easy[label], hard[label]) for label in sorted(easy | hard)},
        passed=tuple(passed[number] for number in range(max(one.asked for one in measured) + 1)),
    )


def read_difficulty(path: Path) -> list[Measured]:
    """All pairs of a difficulty.jsonl, or of the folder that has one. Raises RecipeError with the line that cannot be used."""
    file = path / LINES if path.is_dir() else path
    if not file.exists() and (file.parent / PART).exists():
        raise RecipeError(f"{file.parent}: not all pairs have been asked; run `more-r1 difficulty` to its end")
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise RecipeError(f"{file}: cannot be read ({error.strerror}); `more-r1 difficulty` writes it") from error
    measured = [read_line(raw, file, number) for number, raw in enumerate(lines, 1)]
    if not measured:
        raise RecipeError(f"{file}: has no pair; delete it and run `more-r1 difficulty` again")
    numbers: dict[object, int] = {}
    for number, one in enumerate(measured, 1):
        if (first := numbers.setdefault(one.key, number)) != number:
            raise RecipeError(f"{file}:{number}: the same pair as in line {first}; delete one of them")
    return measured


def read_figures(folder: Path) -> Difficulty:
    """The figures of a folder. Raises RecipeError where there are none."""
    file = folder / FIGURES
    try:
        return Difficulty.model_validate_json(file.read_bytes())
    except OSError as error:
        raise RecipeError(f"{file}: cannot be read ({error.strerror}); `more-r1 difficulty` writes it") from error
    except ValidationError as error:
        raise RecipeError(f"{file}: {_fault(error)}; delete the folder and run `more-r1 difficulty` again") from error


def line(one: Measured) -> str:
    """A pair as it stands in the file."""
    return one.model_dump_json() + "\n"


def read_line(raw: bytes, file: Path, number: int) -> Measured:
    """One pair. Raises RecipeError that names file and line."""
    try:
        return Measured.model_validate_json(raw)
    except ValidationError as error:
        raise RecipeError(f"{file}:{number}: {_fault(error)}; delete the file and run `more-r1 difficulty` again") from error


def _fault(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))} {first['msg']}".strip()
