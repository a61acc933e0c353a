"""The loop that both stages and the base share: batch, forest, loss, step, log, validate, save, resume.

The batch and the learning rate of a step are pure functions of the recipe, so a checkpoint needs no data or scheduler state
beyond the step. On CPU a run that was killed at any moment and started again ends with the bits of one that was not.
Left out on purpose: gradient accumulation (a forest holds a whole batch) and hooks (the loop is short enough to edit).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import set_seed
from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.utils.logging import disable_progress_bar

from more_r1.models.forest import Forest, logprobs
from more_r1.models.load import Backbone, save_backbone
from more_r1.training.examples import Batch, Example
from more_r1.training.recipe import Recipe, RecipeError
from more_r1.training.run import Log, Run


class TrainingRecipe(Recipe):
    """What every run of the learner is told."""

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
    threads: int | None = Field(default=None, ge=1)
    """Threads of torch; another number rounds differently. Without it, torch's own choice."""
    workers: int = Field(default=0, ge=0)
    """Processes that prepare batches ahead of the loop."""


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


# From the log-probabilities of each example's completion tokens to a sum and the number that the sum is to be divided by;
# over several processes both are added up first, so that the mean is the batch's whatever its split.
Loss = Callable[[Sequence[Tensor], Sequence[Example]], tuple[Tensor, Tensor]]


def token_mean(logprobs: Sequence[Tensor], examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Minus the mean log-probability of all completion tokens of the batch, as TRL's SFTTrainer has it, weighted by example."""
    pairs = zip(logprobs, examples, strict=True)
    weights = [tokens.new_tensor(example.weight).expand_as(tokens) for tokens, example in pairs]
    return -(torch.cat(list(logprobs)) * torch.cat(weights)).sum(), torch.cat(weights).sum()


def rates(peak: float, steps: int, warmup: float, schedule: Literal["cosine", "constant"]) -> list[float]:
    """The learning rate of each step: a linear rise over `warmup` of the steps, then level or a half cosine down to 0."""
    rise = math.ceil(warmup * steps)
    fall = max(steps - rise, 1)
    up = [peak * (step + 1) / rise for step in range(rise)]
    if schedule == "constant":
        return up + [peak] * (steps - rise)
    return up + [peak * (1 + math.cos(math.pi * step / fall)) / 2 for step in range(steps - rise)]


class Policy(nn.Module):
    """The model as a map from a forest to log-probabilities: one forward call, so that DDP and autocast see it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, forest: Forest) -> list[Tensor]:
        """One 1-D tensor per sequence: the log-probability of each completion token."""
        return logprobs(self.model, forest)


def finished(run: Run, console: Console) -> Learned | None:
    """How the run in this folder ended, if it has; says so."""
    if run.result is None:
        return None
    console.print(f"{run.folder} holds this run already, complete; nothing to do", soft_wrap=True)
    return Learned(run.folder, **run.result)


def learn(
    backbone: Backbone,
    recipe: TrainingRecipe,
    run: Run,
    batches: Sequence[Batch],
    rates: Sequence[float],
    validate: Callable[[], Mapping[str, float]] | None = None,
    validate_at: frozenset[int] = frozenset(),
    loss: Loss = token_mean,
) -> Learned:
    """Train `backbone` in place on one batch and one learning rate a step, from the run's checkpoint if it has one.

    `validate` is called after the steps in `validate_at`; the model with the highest "f1" is kept in best/, the last in final/.
    Raises RecipeError where the loss or its gradient is no number any more.
    """
    # Not every batch shows a picture, and then a vision tower that learns has no gradients: DDP must not wait for them.
    sees = any(parameter.requires_grad for parameter in backbone.model.model.visual.parameters())
    accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=sees)])
    if accelerator.is_main_process:
        run.begin()
    disable_progress_bar()  # transformers', at every saved model; it would tear ours
    set_seed(recipe.seed)
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    policy = Policy(backbone.model)
    optimizer = torch.optim.AdamW(_groups(policy, recipe.weight_decay), lr=0.0, betas=recipe.betas)
    policy, optimizer = accelerator.prepare(policy, optimizer)
    done = run.resume(accelerator)
    loader: DataLoader[Batch] = DataLoader(
        batches,  # type: ignore[arg-type]  # a sequence is all it needs
        batch_size=None,
        sampler=range(done.step, len(batches)),
        num_workers=recipe.workers,
        # Forked workers notice when this process is killed, those of a fork server live on.
        multiprocessing_context="fork" if recipe.workers else None,
        generator=torch.Generator(),  # its own, so that starting workers draws nothing from the model's
    )
    console = Console(quiet=not accelerator.is_main_process)
    if done.step:
        console.print(f"{run.folder}: going on after step {done.step} of {len(batches)}", soft_wrap=True)
    log = Log(run.folder, done) if accelerator.is_main_process else None
    policy.train()
    with _bar(console) as bar:
        task = bar.add_task("training", total=len(batches), completed=done.step)
        clock = time.perf_counter()
        for step, batch in enumerate(loader, done.step + 1):
            examples = _mine(batch.examples, accelerator)
            forest = _forest(backbone, examples)
            total, count = loss(policy(forest), examples)
            # Sums over all processes; DDP averages gradients over processes, hence the factor.
            sums = torch.stack([total.detach(), count, *_tokens(forest, total)])
            all_total, all_count, tokens, repeated = accelerator.reduce(sums).tolist()
            accelerator.backward(total * accelerator.num_processes / all_count)
            for group in optimizer.param_groups:
                group["lr"] = rates[step - 1]
            norm = float(accelerator.clip_grad_norm_(policy.parameters(), recipe.clip))
            if not math.isfinite(all_total) or not math.isfinite(norm):
                loss_is = f"the loss is {all_total / all_count:.4g}, the norm of its gradient {norm:.4g}"
                raise RecipeError(f"{run.folder}: step {step}: {loss_is}; lower lr")
            optimizer.step()
            optimizer.zero_grad()
            if log:
                event: dict[str, Any] = {"step": step, "epoch": round(batch.epoch, 4)}
                event |= {"stage": batch.stage} if batch.stage else {}
                event |= {"loss": all_total / all_count, "lr": rates[step - 1], "grad_norm": norm}
                event |= {"tokens": int(tokens), "repeated_tokens": int(repeated)}
                event |= {"seconds": round(time.perf_counter() - clock, 4)}
                log.write(event)
            bar.update(task, completed=step, description=f"loss {all_total / all_count:.3f}")

            if validate and step in validate_at:
                policy.eval()
                scores = validate()
                policy.train()
                if log:
                    log.write({"step": step, **{f"valid_{name}": value for name, value in scores.items()}})
                console.print(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
                if done.best is None or scores["f1"] > done.best["f1"]:
                    done = replace(done, best_step=step, best=dict(scores))
                    if accelerator.is_main_process:
                        save_backbone(backbone, run.folder / "best")
            if step % recipe.checkpoint_every == 0 and step < len(batches):
                done = replace(done, step=step, log_bytes=log.bytes if log else 0)
                run.save(accelerator, done)
            clock = time.perf_counter()
    accelerator.wait_for_everyone()
    learned = Learned(run.folder, len(batches), done.best_step, done.best)
    if log:
        log.close()
        save_backbone(backbone, run.folder / "final")
        run.finish({"steps": learned.steps, "best_step": learned.best_step, "best": learned.best})
    accelerator.wait_for_everyone()
    return learned


def _groups(policy: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def _mine(examples: tuple[Example, ...], accelerator: Accelerator) -> tuple[Example, ...]:
    """This process's run of the batch's examples, neighbours together, since they share prefixes."""
    rank, processes = accelerator.process_index, accelerator.num_processes
    mine = examples[len(examples) * rank // processes : len(examples) * (rank + 1) // processes]
    # DDP needs a backward pass of every process, if only one that counts for nothing.
    return mine or (replace(examples[0], weight=0.0),)


def _forest(backbone: Backbone, examples: Sequence[Example]) -> Forest:
    encoder = backbone.encoder
    return Forest.build([(encoder.prompt(e.prompt), encoder.completion(e.completion)) for e in examples], encoder)


def _tokens(forest: Forest, like: Tensor) -> list[Tensor]:
    return [like.new_tensor(float(n)) for n in (forest.tokens, forest.repeated_tokens)]


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)
