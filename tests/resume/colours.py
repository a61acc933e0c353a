"""A run that a test can kill: a tiny model learns to name the colour of a picture. Imported by the process that is killed."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import Picture, Prompt
from more_r1.training.examples import Batch, Epochs, Example
from more_r1.training.fit import fit
from more_r1.training.learner import Learned, TrainingRecipe, learn
from more_r1.training.run import Run
from more_r1.training.schedule import rates

COLOURS = ("red", "green", "blue", "white", "black", "yellow")


class ColourRecipe(TrainingRecipe):
    lr: float = 3e-3
    epochs: int = 6
    threads: int = 1
    checkpoint_every: int = 2
    batch_pairs: int = 4
    draws: bool = True
    """Whether the model draws random numbers as it learns, as dropout would."""


def examples() -> list[list[Example]]:
    """Two a document; completions of one to eight tokens, so that the parts of a batch weigh differently."""
    documents = []
    for number, colour in enumerate(COLOURS):
        file = io.BytesIO()
        Image.new("RGB", (56, 56), colour).save(file, "PNG")
        whole = Picture(file.getvalue(), None, 56 * 56)
        texts = ("What colour?", "Say it often.")
        answers = (colour, " ".join([colour] * (2 + number)))
        documents.append([Example(Prompt((("Look.",), (whole,), (t,))), a) for t, a in zip(texts, answers, strict=True)])
    return documents


def train(recipe: ColourRecipe, batches: Sequence[Batch] | None = None) -> Learned:
    run = Run(recipe, recipe.out)
    if run.result is not None:
        return Learned(run.folder, **run.result)
    backbone = build_tiny([*COLOURS, "What", "colour", "Look", "Say", "it", "often"], recipe.seed)
    norm = backbone.model.model.language_model.norm
    if recipe.draws:
        norm.register_forward_hook(lambda module, inputs, output: output * (1 + 0.01 * torch.randn(()) * module.training))
    batches = batches or Epochs(examples(), recipe.epochs, recipe.batch_pairs, recipe.seed)

    def validate() -> Mapping[str, float]:
        assert not norm.training
        # Any figure that depends on the weights and goes up and down.
        return {"f1": float(norm.weight.detach().sum().sin())}

    schedule = rates(recipe.lr, len(batches), 0.1, recipe.schedule)
    return learn(backbone, recipe, run, batches, schedule, fit, validate, frozenset(range(3, len(batches) + 1, 3)))


def child(out: str, settings: dict[str, object], environment: dict[str, str] | None = None) -> None:
    """What the process runs; silent, as the test prints nothing either."""
    os.environ.update(environment or {})
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    train(ColourRecipe.model_validate({"out": Path(out), **settings}))
