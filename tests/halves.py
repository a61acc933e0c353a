"""A task that a tiny model learns in seconds: the colour of a picture's half decides its label. And a model halfway there."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from more_r1.document import Box, Document, Entity, Object, Pair, Span
from more_r1.formats.more import write_more
from more_r1.models.load import save_backbone
from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import PromptForm
from more_r1.schema import NONE, Schema
from more_r1.training.difficulty import DifficultyRecipe, run_difficulty
from more_r1.training.grpo import GrpoRecipe
from more_r1.training.measured import Measured, read_difficulty, read_figures, split
from more_r1.training.sft import SftRecipe, run_sft

LABELS = {"red": "/per/per/partner", "blue": "/per/org/member_of", "white": NONE}
WORDS = (
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    "Step",
    "Ann",
    "sings",
    *LABELS,
    *(f"/{part}" for label in Schema.more().labels[1:] for part in label.split("/")[1:]),
    NONE,
)
FORM = PromptForm(wording="short", whole_pixels=56 * 112, crop_pixels=56 * 56)
TRAIN, VALID = 18, 9
# Of stage 1, which the difficulty must have too.
SHARE = 0.5


def document(number: int) -> Document:
    """A white picture with two coloured halves; a half's colour alone decides its label."""
    colours = [list(LABELS)[number % 3], list(LABELS)[(number // 3) % 3]]
    image = Image.new("RGB", (112, 56))
    for half, colour in enumerate(colours):
        image.paste(colour, (56 * half, 0, 56 * half + 56, 56))
    file = io.BytesIO()
    image.save(file, "PNG")
    halves = tuple(Object(id=f"half{i}", box=Box(cx=0.25 + 0.5 * i, cy=0.5, w=0.5, h=1)) for i in range(2))
    return Document(
        id=f"{number:04}.png",
        image=file.getvalue(),
        tokens=("Ann", "sings"),
        objects=halves,
        entities=(Entity(id="0-1", span=Span(start=0, end=1)),),
        pairs=tuple(Pair(object=half.id, entity="0-1", label=LABELS[c]) for half, c in zip(halves, colours, strict=True)),
    )


@dataclass(frozen=True)
class Halfway:
    """Where stage 2 begins: the data, a model that knows half of the task, and what it answers to the 18 pairs left."""

    data: Path
    model: Path
    difficulty: Path

    def grpo(self, out: Path, **settings: Any) -> GrpoRecipe:
        """Short steps on answers alone; the model is sharp enough for half of its groups to be equal."""
        short = {"epochs": 2, "batch_pairs": 6, "group": 4, "max_new_tokens": 8, "valid_pairs": 6, "validate_every": 3}
        still = {"threads": 1, "lr": 3e-4, "schedule": "constant", "warmup": 0, "beta": 0, "mixing": {"preset": "raw"}}
        reward = {"sampling": {"temperature": 0.7}, "rewards": {"format": 0, "length": 0}}
        where = {"model": str(self.model), "data": self.data, "difficulty": self.difficulty, "out": out}
        return GrpoRecipe.model_validate(where | short | still | reward | settings)


def begin(folder: Path) -> Halfway:
    """Make all of it, the model by stage 1 on answers alone."""
    where = Halfway(folder / "data", folder / "sft" / "final", folder / "difficulty")
    documents = {"train": [document(number) for number in range(TRAIN)], "valid": [document(number) for number in range(VALID)]}
    write_more(documents, where.data, Schema.more())
    form = FORM.model_copy(update={"reasoning": "none"})
    save_backbone(build_tiny(WORDS, 0, form), folder / "base")
    common = {"data": where.data, "share": SHARE, "max_new_tokens": 12, "threads": 1}
    steps = {"epochs": 10, "batch_pairs": 6, "valid_pairs": 1, "validate_every": 10, "lr": 2e-3, "freeze_vision": False}
    run_sft(SftRecipe.model_validate({"model": str(folder / "base"), "out": folder / "sft", **common, **steps}))
    drawn = {"samples": 6, "sampling": {"temperature": 0.7}}
    run_difficulty(DifficultyRecipe.model_validate({"model": str(where.model), "out": where.difficulty, **common, **drawn}))
    return where


def events(out: Path) -> list[dict[str, Any]]:
    """The log of a run, without the times, which differ from run to run."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in event.items() if not name.startswith("seconds")} for event in lines]


def read_pools(folder: Path) -> tuple[list[Measured], list[Measured]]:
    """The easy and the hard pairs that `run_difficulty` found."""
    return split(read_difficulty(folder), read_figures(folder).threshold)
