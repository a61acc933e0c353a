"""All stages of one recipe in a row: traces, fine-tuning, difficulty, GRPO, evaluation, report; what is complete is left alone.

And what they would do and cost, with or without the data at hand.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator

from more_r1.document import Document
from more_r1.evaluation.evaluate import evaluate
from more_r1.evaluation.metrics import Metrics, read_records
from more_r1.evaluation.report import write_report
from more_r1.experts.annotate import AnnotateRecipe, run_annotate
from more_r1.experts.keys import read_key
from more_r1.experts.settings import OpenAI
from more_r1.models.load import load_backbone
from more_r1.schema import Schema
from more_r1.training.difficulty import DifficultyRecipe, run_difficulty
from more_r1.training.examples import launched
from more_r1.training.grpo import GrpoRecipe, run_grpo
from more_r1.training.launch import off_cuda, refuse_split, this_launch, without_vllm
from more_r1.training.learner import Learned
from more_r1.training.plan.dry_run import Found, dry_run
from more_r1.training.plan.recipe import Assumed
from more_r1.training.plan.shape import OtherFamilyError, read_shape
from more_r1.training.plan.stages import Costed, cost
from more_r1.training.plan.train import Counts, assumed_counts, stages_of
from more_r1.training.recipe import GivenSchema, Recipe, RecipeError
from more_r1.training.samples import read_documents
from more_r1.training.sft import SftRecipe, run_sft

Progress = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""From the name of a stage to what is told (pairs done, pairs in all) while it runs."""

StageName = Literal["annotate", "sft", "difficulty", "grpo"]


class TrainRecipe(Recipe):
    """The recipes of the stages in sections. What one stage hands to the next, and what they have in common, is filled in."""

    out: Path
    """The folder of the stages' folders: annotate, sft, difficulty, grpo."""
    model: str
    """What stage 1 begins from."""
    data: Path
    """A directory in the MORE layout."""
    relations: GivenSchema = Field(default_factory=Schema.more, alias="schema")
    """The labels of the data: a YAML file (`schema: my.yaml`); by default MORE's."""
    seed: int = 0
    threads: int | None = Field(default=None, ge=1)
    annotate: AnnotateRecipe | None = None
    """Who writes the traces of stage 1; without it, they are where `sft.traces` says."""
    sft: SftRecipe
    difficulty: DifficultyRecipe
    grpo: GrpoRecipe
    test: str = "test"
    """The split that the model is evaluated on in the end."""
    plan: Assumed | None = None
    """On what it is meant to run, and what is assumed of data that are not at hand; for `more-r1 plan` alone."""

    @model_validator(mode="before")
    @classmethod
    def _hand_on(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not {"out", "model", "data"} <= given.keys():
            return given  # pydantic says what is missing
        out = Path(str(given["out"]))
        common = {key: given[key] for key in ("data", "schema", "seed", "threads") if key in given}
        sections = {name: given.get(name) or {} for name in ("sft", "difficulty", "grpo")}
        if not all(isinstance(section, dict) for section in (*sections.values(), given.get("annotate") or {})):
            return given

        def folder(name: str) -> Path:
            return Path(str((given.get(name) or {}).get("out", out / name)))

        # The draw is stage 1's, what is left of it the later stages'.
        drawn = {key: value for key, value in sections["sft"].items() if key in ("share", "draw_seed", "max_new_tokens")}
        written = {} if given.get("annotate") is None else {"traces": folder("annotate") / "traces.jsonl"}
        before = {
            "sft": {"model": given["model"], **written},
            "difficulty": {"model": str(folder("sft") / "best"), **drawn},
            "grpo": {"model": str(folder("sft") / "best"), "difficulty": folder("difficulty")},
        }
        before["grpo"] |= {key: value for key, value in drawn.items() if key != "share"}
        stages = {name: {"out": out / name, **common, **before[name], **section} for name, section in sections.items()}
        if isinstance(expert := given.get("annotate"), dict):
            same = {key: value for key, value in (drawn | common).items() if key in ("data", "schema", "share", "draw_seed")}
            stages["annotate"] = {"out": out / "annotate", **same, **expert}
        return {**given, **stages}

    @model_validator(mode="after")
    def _worded(self) -> Self:
        if self.sft.head:
            raise ValueError("sft.head=true ends in a model that writes no words, and stage 2 draws them; use `more-r1 sft`")
        return self

    @model_validator(mode="after")
    def _one_schema(self) -> Self:
        for name in ("annotate", "sft", "difficulty", "grpo"):
            if (stage := getattr(self, name)) is not None and stage.relations != self.relations:
                raise ValueError(f"{name}.schema is not that of the recipe; give schema once, at its top")
        return self


def _answered(out: Path, documents: Sequence[Document]) -> bool:
    """Whether the figures in the folder are of these documents: `test` may be another split than before."""
    if not (out / "metrics.json").exists():
        return False
    asked = {record["document"] for _, record in read_records(out / "predictions.jsonl")}
    return asked == {document.id for document in documents if document.pairs}


def _ended(out: Path) -> bool:
    return (out / "result.json").exists()


def lacking(recipe: TrainRecipe, until: StageName | None = None) -> list[str]:
    """What stages up to `until` need that this machine does not have, a line each; of those that have ended, nothing."""
    asked = ("annotate", "sft", "difficulty", "grpo").index(until or "grpo")
    found = []
    if recipe.annotate is not None and isinstance(recipe.annotate.expert, OpenAI) and not _ended(recipe.sft.out):
        try:
            read_key(recipe.annotate.expert.key_env)
        except RecipeError as error:
            found.append(f"annotate.{error}")
    if asked >= 1 and not _ended(recipe.sft.out):
        found += [f"sft.{why}" for why in (off_cuda(recipe.sft),) if why is not None]
    if asked >= 3 and not _ended(recipe.grpo.out):
        found += [f"grpo.{why}" for why in (off_cuda(recipe.grpo), without_vllm(recipe.grpo)) if why is not None]
    return found


def planned(recipe: TrainRecipe) -> tuple[Costed, ...]:
    """What the stages that need the model cost, by what the recipe's `plan` assumes: reads the model's config.json, no data.

    Raises RecipeError where the recipe has no `plan`, where stage 2 could not be trained by it, and where the model is no
    Qwen2.5-VL.
    """
    if recipe.plan is None:
        raise RecipeError("the recipe has no section plan, which says what to run on; see recipes/more-qwen2.5-vl-7b.yaml")
    refuse_split(recipe.grpo, recipe.plan.sharding, "grpo.")
    return _costed(recipe, assumed_counts(recipe.sft, recipe.difficulty, recipe.plan))


def rehearsed(recipe: TrainRecipe) -> tuple[Found, tuple[Costed, ...]]:
    """As `planned`, by the data and the model as they are: all stages are checked, none is run, no weights are read. No costs
    where the model is no Qwen2.5-VL, of whose sizes alone they are known.

    It may be made on another machine than the run: what is missing on this one is told by `lacking`.
    """
    plan = recipe.plan
    for sharding in (this_launch().sharding, *([] if plan is None else [plan.sharding])):
        refuse_split(recipe.grpo, sharding, "grpo.")
    hard = Assumed.model_fields["hard"].default if plan is None else plan.hard
    easy = Assumed.model_fields["easy"].default if plan is None else plan.easy
    mean = None if recipe.annotate is None else float(recipe.sft.max_new_tokens) if plan is None else plan.lengths.completion
    found = dry_run(recipe.sft, recipe.difficulty, recipe.grpo, recipe.test, hard / max(hard + easy, 1), mean)
    try:
        return found, _costed(recipe, found.counts)
    except OtherFamilyError:
        return found, ()


def _costed(recipe: TrainRecipe, counts: Counts) -> tuple[Costed, ...]:
    sections, shape = (recipe.sft, recipe.difficulty, recipe.grpo), read_shape(recipe.model)
    if recipe.plan is None:
        return tuple(cost(stage, shape, None) for stage in stages_of(*sections, counts, "float32", "ddp", 1))
    devices = recipe.plan.devices
    stages = stages_of(*sections, counts, recipe.plan.precision, recipe.plan.sharding, devices.count)
    return tuple(cost(stage, shape, devices) for stage in stages)


@dataclass(frozen=True)
class Trained:
    """What came of all stages."""

    learned: Learned
    """How stage 2 ended."""
    page: Path
    """The report."""
    metrics: Metrics
    """Of the best model on the test split."""


def train(recipe: TrainRecipe, progress: Progress, until: StageName | None = None) -> Trained | None:
    """Run all stages, evaluate the best model and write the report. None if it is to end after stage `until`.

    A run that was killed goes on where it was. `progress` serves the stages that train nothing. Raises what the stages raise,
    and RecipeError before the first of them for what a later one would refuse of this launch and this machine.
    """
    if until in (None, "grpo") and not _ended(recipe.grpo.out):
        refuse_split(recipe.grpo, this_launch().sharding, "grpo.")
    if missing := lacking(recipe, until):
        raise RecipeError(missing[0])
    if recipe.annotate is not None and not _ended(recipe.sft.out):
        if launched().is_main_process:
            with progress("annotating") as tell:
                figures = run_annotate(recipe.annotate, lambda now: tell(now.done, now.pairs))
            if figures.stopped:
                raise RecipeError(f"annotate: {figures.stopped}")
        launched().wait_for_everyone()
    if until == "annotate":
        return None
    run_sft(recipe.sft)
    _let_go()
    if until == "sft":
        return None
    with progress("asking") as tell:
        run_difficulty(recipe.difficulty, tell)
    _let_go()
    if until == "difficulty":
        return None
    learned = run_grpo(recipe.grpo)
    _let_go()
    if until == "grpo":
        return None
    out = recipe.grpo.out
    if launched().is_main_process:
        documents = read_documents(recipe.data, recipe.test, recipe.relations)
        if not _answered(out, documents):
            if recipe.threads is not None:
                torch.set_num_threads(recipe.threads)
            backbone = load_backbone(learned.model)
            with progress("evaluating") as tell:
                most = recipe.grpo.max_new_tokens
                evaluate(backbone, documents, recipe.relations, out, max_new_tokens=most, progress=tell)
        write_report(out)
    launched().wait_for_everyone()
    metrics = Metrics.model_validate_json((out / "metrics.json").read_text(encoding="utf-8"))
    return Trained(learned, out / "report.html", metrics)


def _let_go() -> None:
    """Make room for the next stage: what trains refers to itself, so that its model would stay until some later collection."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
