"""Stage 2: GRPO with progressive sample mixing, on the pairs that stage 1 left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from more_r1.formats.paths import replacing
from more_r1.models.load import fingerprint, load_backbone
from more_r1.models.lora import Lora
from more_r1.models.vision import frozen_copy
from more_r1.reasoning.prompt import PromptForm
from more_r1.schema import Schema
from more_r1.training.adapters import learning
from more_r1.training.difficulty import measure
from more_r1.training.examples import launched
from more_r1.training.launch import refuse_split, this_launch
from more_r1.training.learner import Learned, finished, learn
from more_r1.training.measured import Measured, line, read_difficulty, read_figures, split
from more_r1.training.mixing import Mixing, order
from more_r1.training.recipe import GivenForm, GivenSchema, RecipeError
from more_r1.training.rewards import rewards
from more_r1.training.rollouts import elsewhere
from more_r1.training.run import Run
from more_r1.training.samples import Asked, Sample, read_samples, some, validate
from more_r1.training.schedule import rates
from more_r1.training.update import Groups, GrpoUpdate, UpdateRecipe


class GrpoRecipe(UpdateRecipe):
    """GRPO from a stage-1 model; the defaults are the paper's where it gives them."""

    purpose = "Stage 2 of MORE-R1: a stage-1 model, trained further by GRPO with progressive sample mixing."

    model: str
    """The model after stage 1: where the policy begins, and the reference that it is held to."""
    data: Path
    """A directory in the MORE layout."""
    relations: GivenSchema = Field(default_factory=Schema.more, alias="schema")
    """The labels of the data: a YAML file (`schema: my.yaml`); by default MORE's."""
    difficulty: Path
    """The folder of `more-r1 difficulty`: which pairs there are, and which of them the stage-1 model got right."""
    form: GivenForm = PromptForm()
    mixing: Mixing = Mixing()
    epochs: int = Field(default=4, ge=1)
    batch_pairs: int = Field(default=8, ge=1)
    """Pairs of a step, over all processes; each has a group of rollouts."""
    lr: float = Field(default=1e-6, gt=0)
    lora: Lora | None = None
    """Train adapters only; the reference is then the model without them, and no second model is held. They are saved merged
    into the model, and beside it in `adapter/` as peft has them."""
    freeze_vision: bool = True
    most_steps: int | None = Field(default=None, ge=1)
    """End after so many steps, with a schedule of the learning rate that is as long."""
    validate_every: int = Field(default=50, ge=1)
    """Steps from one validation to the next; the model before the first step and that after the last are validated, too."""
    valid_pairs: int = Field(default=500, ge=1)
    """How many pairs of the valid split are scored; all of them if it has fewer."""
    draw_seed: int = 0
    """Of the validation pairs."""

    @model_validator(mode="after")
    def _alone(self) -> Self:
        if self.mixing.remeasure and self.workers:
            raise ValueError("mixing.remeasure asks the model while batches are made; set workers=0")
        return self


class Mixed(Sequence[Groups]):
    """The steps of all epochs. How many an epoch has follows from the first measurement.

    `remeasured` gives the pools of an epoch (counted from 1) where the model is asked again after each; an epoch for which they
    have fewer pairs than it has room for goes over them again.
    """

    def __init__(
        self,
        recipe: GrpoRecipe,
        samples: Sequence[Sample],
        measured: Sequence[Measured],
        threshold: float,
        remeasured: Callable[[int], Sequence[Measured]] | None = None,
    ) -> None:
        self._recipe, self._threshold = recipe, threshold
        self._numbers = {sample.key: number for number, sample in enumerate(samples)}
        self._samples = samples
        self._measured = {1: measured}
        self._remeasured = remeasured
        lost = next((one for one in measured if one.key not in self._numbers), None)
        if lost is not None:
            raise RecipeError(f"difficulty={recipe.difficulty}: {lost.key} is no pair of data={recipe.data}; measure it anew")
        sizes = [len(self._order(epoch, measured)) for epoch in range(1, recipe.epochs + 1)]
        self._places = [
            (epoch, first, min(first + recipe.batch_pairs, size), size)
            for epoch, size in enumerate(sizes, 1)
            for first in range(0, size, recipe.batch_pairs)
        ][: recipe.most_steps]
        if not self._places:
            raise RecipeError(f"difficulty={recipe.difficulty}: no pair for mixing.preset={recipe.mixing.preset}")
        self._orders: dict[int, list[Asked]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Groups:  # type: ignore[override]  # slices are not needed
        epoch, first, last, size = self._places[index]
        if epoch not in self._orders:
            self._orders = {epoch: self._asked(epoch, size)}
        return Groups(tuple(self._orders[epoch][first:last]), epoch, epoch - 1 + last / size)

    def _asked(self, epoch: int, size: int) -> list[Asked]:
        measured = self._measured[1] if epoch == 1 or self._remeasured is None else self._remeasured(epoch)
        easy = {one.key for one in split(measured, self._threshold)[0]}
        found = self._order(epoch, measured) or list(measured)
        asked = []
        for place, one in enumerate(islice(cycle(found), size)):
            number = self._numbers[one.key]
            asked.append(Asked(self._samples[number], number, one.key in easy, turn=place // len(found)))
        return asked

    def _order(self, epoch: int, measured: Sequence[Measured]) -> list[Measured]:
        easy, hard = split(measured, self._threshold)
        return order(easy, hard, epoch, self._recipe.mixing, self._recipe.seed)


def run_grpo(recipe: GrpoRecipe) -> Learned:
    """Train `recipe.model` by GRPO; the best model by validation F1 is `best/` in the run folder, the last one `final/`.

    The stage-1 model is a candidate for the best. A finished run is left as it is, an unfinished one is gone on with. Raises
    RecipeError where the folder holds another run and where data, difficulty or launch are not fit for it.
    """
    console = Console(quiet=not launched().is_main_process)
    run = Run(recipe, recipe.out)
    if done := finished(run, console):
        return done
    schema = recipe.relations
    refuse_split(recipe, this_launch().sharding)
    train, valid = read_samples(recipe.data, "train", schema), read_samples(recipe.data, "valid", schema)
    measured, figures = read_difficulty(recipe.difficulty), read_figures(recipe.difficulty)
    disable_progress_bar()  # transformers' own; it would tear ours
    backbone = load_backbone(recipe.model)
    if figures.weights not in (None, fingerprint(backbone)):
        raise RecipeError(
            f"difficulty={recipe.difficulty}: measured on {figures.model}, which has other weights than model={recipe.model}; "
            "run `more-r1 difficulty` with this model"
        )
    backbone = replace(backbone, form=recipe.form.over(backbone.form), schema=schema)
    rewards(schema, backbone.form.reasoning, recipe.rewards)  # refuses what does not go together, before anything is written
    save = learning(backbone, recipe.lora, recipe.freeze_vision, recipe.model, recipe.seed)
    reference = frozen_copy(backbone.model) if recipe.beta > 0 and recipe.lora is None else None

    by_key = {sample.key: sample for sample in train}

    def remeasured(epoch: int) -> Sequence[Measured]:
        """What the model answers now; kept, since a resumed run has another model by then."""
        file = recipe.out / f"difficulty-{epoch}.jsonl"
        if not file.exists():
            pool, asked = [by_key[one.key] for one in measured], measured[0].asked
            count = asked if asked > 1 else 0
            backbone.model.eval()
            again = measure(backbone, schema, pool, count, recipe.sampling, recipe.max_new_tokens, recipe.seed, epoch)
            backbone.model.train()
            if launched().is_main_process:
                with replacing(file) as fresh:
                    fresh.write_text("".join(map(line, again)), encoding="utf-8", newline="\n")
            launched().wait_for_everyone()
        return read_difficulty(file)

    again = remeasured if recipe.mixing.remeasure else None
    batches = Mixed(recipe, train, measured, figures.threshold, again)
    console.print(f"{figures.easy} easy and {figures.hard} hard pairs; {len(batches)} steps", soft_wrap=True)
    asked = some(valid, recipe.valid_pairs, recipe.draw_seed)
    drawing = None
    if recipe.rollout == "vllm":
        drawing = elsewhere(recipe.vllm, backbone, recipe.model, recipe.lora, recipe.out, save)
    with closing(drawing) if drawing is not None else nullcontext():
        return learn(
            backbone,
            recipe,
            run,
            batches,
            rates(recipe.lr, len(batches), recipe.warmup, recipe.schedule),
            GrpoUpdate(recipe, schema, reference, drawing),
            validate=lambda: validate(backbone, schema, asked, recipe.max_new_tokens),
            validate_at=frozenset([*range(0, len(batches), recipe.validate_every), len(batches)]),
            save=save,
        )
