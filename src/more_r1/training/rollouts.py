"""Rollouts that vLLM draws for stage 2: it is given the weights of each step, and what it drew is corrected for what it is off.

`vllm` runs beside the training, one for each of its processes, or is a server that runs by itself; docs/rollouts.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from more_r1.models.load import Backbone
from more_r1.models.lora import Lora, save_adapter
from more_r1.models.manner import load_manner
from more_r1.models.sampling import Rollout, Sampling
from more_r1.models.vllm.rollouts import GPU_SHARE, OURS, Here, VllmRollouts
from more_r1.models.vllm.server import Server
from more_r1.reasoning.prompt import Prompt
from more_r1.training.examples import launched
from more_r1.training.learner import Trainer
from more_r1.training.recipe import Recipe


class VllmRecipe(Recipe):
    """Where vLLM is."""

    server: str | None = None
    """The address of a `vllm serve`, as in http://localhost:8000; without it vLLM is started beside the training."""
    weights: Path | None = None
    """Where the folder is made through which vLLM gets new weights; a server must see it at the same path. Best in memory, as
    in /dev/shm. Without it, in the run folder."""
    options: dict[str, Any] = Field(default_factory=dict)
    """vLLM's own (EngineArgs) where it is started here, as in {gpu_memory_utilization: 0.4}."""

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.server is not None and not _is_address(self.server):
            # Not said: it may have a password, which would also be written down with the run.
            raise ValueError("vllm.server is no plain address as http://localhost:8000; a key comes from VLLM_API_KEY")
        if self.server is not None and self.options:
            raise ValueError("vllm.options are of a vLLM that is started here; give them to the command that starts the server")
        if ours := sorted(OURS & self.options.keys()):
            raise ValueError(f"vllm.options: {', '.join(ours)} follow from the rest of the recipe; leave them out")
        taken = self._taken
        if not isinstance(taken, int | float) or not 0 < taken <= 1:
            raise ValueError("vllm.options: gpu_memory_utilization is a share of the GPU, above 0 and at most 1")
        return self

    @property
    def gpu_share(self) -> float:
        """Of each GPU of the training, what vLLM takes beside it; 0 where it is a server."""
        return 0.0 if self.server is not None else float(self._taken)

    @property
    def _taken(self) -> Any:
        return self.options.get("gpu_memory_utilization", GPU_SHARE)


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


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        plain = "@" not in text and text.isprintable() and " " not in text
        return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def elsewhere(
    recipe: VllmRecipe, backbone: Backbone, model: str, lora: Lora | None, run: Path, save: Callable[[Path], None]
) -> Elsewhere:
    """What draws by this recipe for a run, whose model was loaded from `model` and is written by `save`.

    Raises ModelError and EngineError.
    """
    manner, process = replace(load_manner(model), form=backbone.form), launched()
    folder = run / "rollouts"
    if recipe.weights is not None:
        # Ours by its name, and no other run's.
        folder = recipe.weights / f"more-r1-{sha256(str(run.resolve()).encode()).hexdigest()[:12]}"
    if process.is_main_process:
        for broken in folder.parent.glob(f".{folder.name}-*"):
            rmtree(broken, ignore_errors=True)  # what a kill left half written
    if recipe.server is None:
        machine: Here | Server = Here(manner, lora, process.local_process_index, recipe.options)
    else:
        machine = Server(recipe.server, manner, lora, process.is_main_process)
    if lora is None:
        write = save
    else:

        def write(folder: Path) -> None:
            save_adapter(backbone.model, folder, model)

    return Elsewhere(VllmRollouts(backbone, machine), folder, write, lora is not None)
