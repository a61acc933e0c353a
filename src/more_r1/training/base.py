"""The base stage: what pretraining is to the real backbone. A tiny model learns to see and read the embedded world.

Lessons are drawn on the fly and never come twice, so the loss that is logged is one on unseen data already.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from rich.console import Console

from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import PromptForm
from more_r1.synthetic.lessons import lessons, vocabulary
from more_r1.training.examples import Batch, Example, launched
from more_r1.training.fit import fit
from more_r1.training.learner import Learned, TrainingRecipe, finished, learn
from more_r1.training.recipe import Recipe
from more_r1.training.run import Run
from more_r1.training.schedule import rates


class Stage(Recipe):
    """One part of the base stage: lessons of one kind, drawn from so many documents, at a learning rate of its own."""

    name: str
    documents: int = Field(ge=1)
    lr: float = Field(gt=0)


class BaseRecipe(TrainingRecipe):
    """From random weights to a base model, over the stages in their order."""

    purpose = "A tiny model that was taught to see and read the embedded world of MORE-R1."

    stages: tuple[Stage, ...] = Field(min_length=1)
    batch_documents: int = Field(default=8, ge=1)
    """Documents a step; each gives several lessons, which share its prefix."""
    form: PromptForm = PromptForm()
    """How the model is to be asked later on; saved beside its weights."""


class Lessons(Sequence[Batch]):
    """The batches of all stages. Documents are numbered through the whole run, so that no stage sees another's."""

    def __init__(self, recipe: BaseRecipe):
        self._seed = recipe.seed
        self._batches: list[tuple[Stage, float, range]] = []
        first = 0
        for stage in recipe.stages:
            for start in range(0, stage.documents, recipe.batch_documents):
                end = min(start + recipe.batch_documents, stage.documents)
                self._batches.append((stage, end / stage.documents, range(first + start, first + end)))
            first += stage.documents

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]  # slices are not needed
        stage, epoch, documents = self._batches[index]
        drawn = [lesson for document in documents for lesson in lessons(self._seed, document, stage.name)]
        return Batch(tuple(Example(prompt, completion) for prompt, completion in drawn), epoch, stage.name)

    def rates(self, recipe: BaseRecipe) -> list[float]:
        """The learning rate of each step: every stage has its own warm-up and decay."""
        counts = [sum(batch[0] is stage for batch in self._batches) for stage in recipe.stages]
        schedules = zip(recipe.stages, counts, strict=True)
        return [rate for stage, n in schedules for rate in rates(stage.lr, n, recipe.warmup, recipe.schedule)]


def run_base(recipe: BaseRecipe) -> Learned:
    """Train the tiny model from random weights through all stages; its folder is `final/` in the run folder.

    A finished run is left as it is, an unfinished one is gone on with; RecipeError where the folder holds another run.
    """
    run = Run(recipe, recipe.out)
    if done := finished(run, Console(quiet=not launched().is_main_process)):
        return done
    backbone = build_tiny(vocabulary(), recipe.seed, recipe.form)
    batches = Lessons(recipe)
    return learn(backbone, recipe, run, batches, batches.rates(recipe), fit)
