"""All stages of one recipe in a row: fine-tune, measure difficulty, GRPO, evaluate, report; what is complete is left alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, model_validator

from more_r1.evaluation.evaluate import evaluate
from more_r1.evaluation.metrics import Metrics
from more_r1.evaluation.report import write_report
from more_r1.formats import load_documents
from more_r1.models.load import load_backbone
from more_r1.schema import Schema
from more_r1.training.difficulty import DifficultyRecipe, run_difficulty
from more_r1.training.examples import launched
from more_r1.training.grpo import GrpoRecipe, run_grpo
from more_r1.training.recipe import Recipe
from more_r1.training.sft import SftRecipe, run_sft

Progress = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""From the name of a stage to what is told (pairs done, pairs in all) while it runs."""


class TrainRecipe(Recipe):
    """The recipes of the stages in sections. What one stage hands to the next, and what they have in common, is filled in."""

    out: Path
    """The folder of the stages' folders: sft, difficulty, grpo."""
    model: str
    """What stage 1 begins from."""
    data: Path
    """A directory in the MORE layout."""
    seed: int = 0
    threads: int | None = Field(default=None, ge=1)
    sft: SftRecipe
    difficulty: DifficultyRecipe
    grpo: GrpoRecipe
    test: str = "test"
    """The split that the model is evaluated on in the end."""

    @model_validator(mode="before")
    @classmethod
    def _hand_on(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not {"out", "model", "data"} <= given.keys():
            return given  # pydantic says what is missing
        out = Path(str(given["out"]))
        common = {key: given[key] for key in ("data", "seed", "threads") if key in given}
        sections = {name: given.get(name) or {} for name in ("sft", "difficulty", "grpo")}
        if not all(isinstance(section, dict) for section in sections.values()):
            return given
        # The draw is stage 1's, what is left of it the later stages'.
        drawn = {key: value for key, value in sections["sft"].items() if key in ("share", "draw_seed", "max_new_tokens")}
        before = {
            "sft": {"model": given["model"]},
            "difficulty": {"model": str(out / "sft" / "best"), **drawn},
            "grpo": {"model": str(out / "sft" / "best"), "difficulty": out / "difficulty"},
        }
        before["grpo"] |= {key: value for key, value in drawn.items() if key != "share"}
        stages = {name: {"out": out / name, **common, **before[name], **section} for name, section in sections.items()}
        return {**given, **stages}


def train(recipe: TrainRecipe, progress: Progress) -> tuple[Path, Metrics]:
    """Run all stages; the report of the last one and its figures on the test split.

    A run that was killed goes on where it was. `progress` serves the stages that train nothing. Raises what the stages raise.
    """
    run_sft(recipe.sft)
    with progress("asking") as tell:
        run_difficulty(recipe.difficulty, tell)
    learned = run_grpo(recipe.grpo)
    out = recipe.grpo.out
    if launched().is_main_process:
        if not (out / "metrics.json").exists():
            if recipe.threads is not None:
                torch.set_num_threads(recipe.threads)
            documents, backbone = load_documents(recipe.data, recipe.test), load_backbone(learned.model)
            with progress("evaluating") as tell:
                evaluate(backbone, documents, Schema.more(), out, max_new_tokens=recipe.grpo.max_new_tokens, progress=tell)
        write_report(out)
    launched().wait_for_everyone()
    return out / "report.html", Metrics.model_validate_json((out / "metrics.json").read_text(encoding="utf-8"))
