"""Rollouts that vLLM draws for stage 2: it is given the weights of each step, and what it drew is corrected for what it is off.

`vllm` runs beside the training, one for each of its processes, or is a server that runs by itself; docs/rollouts.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

from pydantic import Field

from more_r1.models.load import Backbone, load_manner
from more_r1.models.lora import Lora, save_adapter
from more_r1.models.sampling import Rollout, Sampling
from more_r1.models.vllm.rollouts import Here, VllmRollouts
from more_r1.models.vllm.server import Server
from more_r1.reasoning.prompt import Prompt
from more_r1.training.examples import launched
from more_r1.training.learner import Trainer
from more_r1.training.objective import Importance
from more_r1.training.recipe import Recipe, RecipeError


class VllmRecipe(Recipe):
    """Rollouts by vLLM."""

    server: str | None = None
    """The address of a `vllm serve`, as in http://localhost:8000; without it vLLM is started beside the training."""
    weights: Path | None = None
    """Where the folder is made through which vLLM gets new weights; a server must see it at the same path. Best in memory, as
    in /dev/shm/NAME. Without it, in the run folder."""
    importance: Importance = "sequence_mask"
    """How rollouts are weighted, for vLLM's kernels do not draw from quite the policy; see `objective.importance_weights`."""
    most_importance: float = Field(default=3.0, gt=0)
    """Weights above it are cut off, or their rollouts are."""
    options: dict[str, Any] = Field(default_factory=dict)
    """vLLM's own (EngineArgs) where it is started here, as in {gpu_memory_utilization: 0.4}."""


@dataclass(frozen=True)
class Elsewhere:
    """Draws the rollouts of a step after it has handed over the weights as they are now."""

    rollouts: VllmRollouts
    folder: Path
    write: Callable[[Path], None]
    """Writes the weights that learn into the folder."""
    adapter: bool
    """Whether those are an adapter."""

    def sample(
        self,
        trainer: Trainer,
        prompts: Sequence[Prompt],
        seeds: Sequence[Sequence[int]],
        sampling: Sampling,
        max_new_tokens: int,
    ) -> list[list[Rollout]]:
        """As `VllmRollouts.sample`; all processes call it together."""
        accelerator, machine = trainer.accelerator, self.rollouts.machine
        with trainer.whole():
            if accelerator.is_main_process:
                self.write(self.folder)
            accelerator.wait_for_everyone()
        take = machine.take_adapter if self.adapter else machine.take_weights
        take(self.folder)
        accelerator.wait_for_everyone()
        return self.rollouts.sample(prompts, seeds, sampling, max_new_tokens)

    def close(self) -> None:
        """Let go of vLLM, and of the weights on their way."""
        self.rollouts.machine.close()
        if launched().is_main_process:
            rmtree(self.folder, ignore_errors=True)


def elsewhere(
    recipe: VllmRecipe, backbone: Backbone, model: str, lora: Lora | None, run: Path, save: Callable[[Path], None]
) -> Elsewhere:
    """What draws by this recipe for a run, whose model was loaded from `model` and is written by `save`.

    Raises RecipeError for options of a vLLM that is not started here; ModelError and EngineError.
    """
    manner = replace(load_manner(model), form=backbone.form)
    folder = (recipe.weights or run) / "rollouts"
    if recipe.server is None:
        machine: Here | Server = Here(manner, lora, launched().local_process_index, **recipe.options)
    elif recipe.options:
        raise RecipeError("rollout.options are of a vLLM that is started here; give them to the command that starts the server")
    else:
        machine = Server(recipe.server, manner, lora, launched().is_main_process)
    if lora is None:
        write = save
    else:

        def write(folder: Path) -> None:
            save_adapter(backbone.model, folder, model)

    return Elsewhere(VllmRollouts(backbone, machine), folder, write, lora is not None)
