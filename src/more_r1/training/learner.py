"""The loop that both stages and the base share: batch, update, log, validate, save, resume.

The batch and the learning rate of a step are pure functions of the recipe (and of the log up to it), so a checkpoint needs no
data or scheduler state beyond the step. On CPU a run that was killed at any moment and started again ends with the bits of one
that was not. Left out on purpose: hooks (the loop is short enough to edit).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
from accelerate.utils import broadcast_object_list, set_seed
from pydantic import Field, field_validator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.utils.logging import disable_progress_bar

from more_r1.formats.paths import lock
from more_r1.models.attention import Flex
from more_r1.models.forest import Forest, scored
from more_r1.models.load import Backbone, save_backbone
from more_r1.models.vision import vision_parameters
from more_r1.training.card import write_card
from more_r1.training.launch import by_launcher, off_cuda, this_launch
from more_r1.training.recipe import Recipe, RecipeError
from more_r1.training.run import Best, Log, Run
from more_r1.training.run import Progress as RunProgress
from more_r1.training.split import accelerator_of, prepare, whole
from more_r1.training.trackers import Tracker, missing

T = TypeVar("T")


class TrainingRecipe(Recipe):
    """What every run of the learner is told."""

    purpose: ClassVar[str] = "A model that was trained by MORE-R1."
    """What comes out of such a run, in one sentence, for the model's card."""
    out: Path
    """The run folder."""
    seed: int = 0
    """Of the order of the data and of the model's own draws."""
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps over which the learning rate rises to its full height."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    """On matrices only, as is usual: not on norms and biases."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps from one checkpoint to the next."""
    checkpointing: bool = False
    """Compute activations anew on the way back instead of keeping them: a third more work, a fraction of the memory."""
    attention: Literal["sdpa", "flex"] = "sdpa"
    """What computes attention along a packed forest: SDPA, a call for each node, or flex attention, one compiled kernel for all
    of them, on CUDA only."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of torch; another number rounds differently. Without it, torch's own choice."""
    workers: int = Field(default=0, ge=0)
    """Processes that prepare batches ahead of the loop."""
    trackers: tuple[Tracker, ...] = ("tensorboard",)
    """Where the curves are drawn besides log.jsonl. wandb and trackio are installed by `pip install 'more-r1[track]'`."""

    @field_validator("trackers")
    @classmethod
    def _installed(cls, trackers: tuple[Tracker, ...]) -> tuple[Tracker, ...]:
        if lacking := missing(trackers):
            raise ValueError(f"{', '.join(lacking)} not installed; pip install 'more-r1[track]', or leave it out")
        return trackers


@dataclass(frozen=True)
class Learned:
    """How a run ended. `best` and `best_step` are None where nothing was validated."""

    out: Path
    steps: int
    best_step: int | None = None
    best: Mapping[str, float] | None = None

    @property
    def model(self) -> Path:
        """The model folder to use: the best by validation, else the final one."""
        return self.out / ("final" if self.best_step is None else "best")


class Policy(nn.Module):
    """The model as a map from a forest to log-probabilities: one forward call, so that DDP and autocast see it."""

    def __init__(self, model: nn.Module, attention: Literal["sdpa", "flex"] = "sdpa"):
        super().__init__()
        self.model, self.attention = model, attention

    def forward(self, forest: Forest, temperature: float = 1.0, entropies: bool = False) -> tuple[Tensor, Tensor | None]:
        """As `models.forest.scored`."""
        layout = Flex(forest.spans, forest.runs) if self.attention == "flex" else None
        return scored(self.model, forest, layout, temperature, entropies)


@dataclass(frozen=True)
class Trainer:
    """What an update works with."""

    backbone: Backbone
    accelerator: Accelerator
    policy: nn.Module
    """`Policy` around the backbone's model, as the accelerator wrapped it."""
    optimizer: torch.optim.Optimizer
    clip: float

    def whole(self) -> AbstractContextManager[None]:
        """While this lasts every process has all weights, even of a model that is split; see training/split.py."""
        return whole(self.accelerator, self.policy, self.backbone.model)

    def backward(self, loss: Tensor, last: bool = True) -> None:
        """Add the gradient of this process's part of a loss that is a sum over processes; `last` before a step."""
        loss = loss * self.accelerator.num_processes  # what adds up gradients divides by this
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            self.accelerator.deepspeed_engine_wrapped.backward(loss, sync_gradients=last)
        else:
            self.accelerator.backward(loss)

    def step(self, loss: float) -> float:
        """One step of the optimizer on the gradients that are there; their norm before it was clipped.

        Raises RecipeError where the loss or the norm is no number any more.
        """
        norm = float(self.accelerator.clip_grad_norm_(self.policy.parameters(), self.clip))
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise RecipeError(f"the loss is {loss:.4g}, the norm of its gradient {norm:.4g}; lower lr")
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm


# Trains on a batch and says what is to be logged of it: "epoch" and "loss" at least.
Update = Callable[[Trainer, T], dict[str, Any]]


def finished(run: Run, console: Console) -> Learned | None:
    """How the run in this folder ended, if it has; says so."""
    if run.result is None:
        return None
    run.clear()
    console.print(f"{run.folder} holds this run already, complete; nothing to do", soft_wrap=True)
    return Learned(run.folder, **run.result)


def learn(
    backbone: Backbone,
    recipe: TrainingRecipe,
    run: Run,
    batches: Sequence[T],
    rates: Sequence[float],
    update: Update[T],
    validate: Callable[[], Mapping[str, float]] | None = None,
    validate_at: frozenset[int] = frozenset(),
    *,
    policy: nn.Module | None = None,
    save: Callable[[Path], None] | None = None,
) -> Learned:
    """Train `backbone` in place by one update a batch, from the run's checkpoint if it has one.

    What is trained and called is `policy`, by default a Policy around the backbone's model; `save` writes it as a model folder.
    `validate` is called after the steps in `validate_at`, 0 being before the first; the model with the highest "f1" is kept in
    best/, the last in final/. Raises RecipeError where the loss or its gradient is no number any more and for flex attention
    without CUDA, FormatError where another process trains in the same folder.
    """
    # Not every batch shows a picture, and then a vision tower that learns has no gradients: DDP must not wait for them.
    sees = any(parameter.requires_grad for parameter in vision_parameters(backbone.model))
    if recipe.checkpointing:
        backbone.model.activation_checkpointing_enable()
        # Else what a frozen vision tower makes is learnt from, too.
        backbone.model.disable_input_require_grads()
    policy = policy or Policy(backbone.model, recipe.attention)
    save = save or partial(save_backbone, backbone, dtype=backbone.model.dtype)
    accelerator = accelerator_of(policy, kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=sees)])
    if (why := off_cuda(recipe)) is not None:
        raise RecipeError(why)
    disable_progress_bar()  # transformers', at every saved model; it would tear ours
    with ExitStack() as stack:
        if accelerator.is_main_process:
            stack.callback(lock(run.folder).release)
            run.begin()
        set_seed(recipe.seed)
        if recipe.threads is not None:
            torch.set_num_threads(recipe.threads)
        adam = torch.optim.AdamW(_groups(policy, recipe.weight_decay), lr=0.0, betas=recipe.betas, fused=True)
        policy, optimizer = prepare(accelerator, policy, backbone.model, adam, recipe.clip)
        trainer = Trainer(backbone, accelerator, policy, optimizer, recipe.clip)
        return _go_on(trainer, recipe, run, batches, rates, update, validate, validate_at, save)


def _go_on(
    trainer: Trainer,
    recipe: TrainingRecipe,
    run: Run,
    batches: Sequence[T],
    rates: Sequence[float],
    update: Update[T],
    validate: Callable[[], Mapping[str, float]] | None,
    validate_at: frozenset[int],
    save: Callable[[Path], None],
) -> Learned:
    """Train from the checkpoint, or from the first step, to the end."""
    accelerator = trainer.accelerator
    done = run.resume(accelerator)
    best: Best | None = broadcast_object_list([run.best])[0]  # all processes keep the same
    loader: DataLoader[T] = DataLoader(
        batches,  # type: ignore[arg-type]  # a sequence is all it needs
        batch_size=None,
        sampler=range(done.step, len(batches)),
        num_workers=recipe.workers,
        # Forked workers notice when this process is killed, those of a fork server live on.
        multiprocessing_context="fork" if recipe.workers else None,
        generator=torch.Generator(),  # its own, so that starting workers draws nothing from the model's
    )
    console = Console(quiet=not accelerator.is_main_process)
    if (launch := this_launch()).processes > 1 or by_launcher():
        console.print(str(launch))
    if done.step:
        console.print(f"{run.folder}: going on after step {done.step} of {len(batches)}", soft_wrap=True)
    settings = recipe.model_dump(mode="json")
    log = Log(run.folder, done, recipe.trackers, settings) if accelerator.is_main_process else None

    def kept(write: Callable[[], None]) -> None:
        """Write the model as it is now; all processes call it."""
        with trainer.whole():
            if accelerator.is_main_process:
                write()
            accelerator.wait_for_everyone()

    def validated(step: int) -> Best | None:
        """Validate, keep the model if it is the best so far."""
        if validate is None or step not in validate_at:
            return best
        trainer.policy.eval()
        with trainer.whole(), accelerator.autocast():
            scores = validate()
        trainer.policy.train()
        if log:
            log.write({"step": step, **{f"valid_{name}": value for name, value in scores.items()}})
        console.print(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
        if best is not None and scores["f1"] <= best.scores["f1"]:
            return best
        passed = Best(step, dict(scores))
        kept(partial(run.keep, passed, save))
        return passed

    trainer.policy.train()
    with _bar(console) as bar:
        task = bar.add_task("training", total=len(batches), completed=done.step)
        if done.step == 0:
            best = validated(0)
        clock = time.perf_counter()
        made = iter(loader)
        for step in range(done.step + 1, len(batches) + 1):
            with accelerator.autocast():  # stage 2 may ask the model anew as it mixes
                batch = next(made)
            for group in trainer.optimizer.param_groups:
                group["lr"] = rates[step - 1]
            try:
                event = update(trainer, batch)
            except RecipeError as error:
                raise RecipeError(f"{run.folder}: step {step}: {error}") from error
            if log:
                log.write({"step": step, "lr": rates[step - 1], **event, "seconds": round(time.perf_counter() - clock, 4)})
            bar.update(task, completed=step, description=f"loss {event['loss']:.3f}")
            best = validated(step)
            if step % recipe.checkpoint_every == 0 and step < len(batches):
                run.save(accelerator, RunProgress(step, log.bytes if log else 0))
            clock = time.perf_counter()
    kept(partial(save, run.folder / "final"))
    learned = Learned(run.folder, len(batches), best.step if best else None, best.scores if best else None)
    if log:
        log.close()
        write_card(run.folder / "final", recipe, learned.steps, learned.steps, None)
        if best is not None:
            write_card(run.folder / "best", recipe, best.step, learned.steps, best.scores)
        run.finish({"steps": learned.steps, "best_step": learned.best_step, "best": learned.best})
    accelerator.wait_for_everyone()
    return learned


def _groups(policy: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)
