"""How `accelerate launch` started a run, and what the settings of a recipe ask of that and of the machine.

Stated here once: by it the plan, the dry run and the start of a run refuse what a later stage could not be trained with.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from accelerate import DistributedType
from accelerate.utils import parse_flag_from_env

from more_r1.training.examples import launched
from more_r1.training.plan.memory import Sharding
from more_r1.training.recipe import RecipeError

if TYPE_CHECKING:
    from more_r1.training.grpo import GrpoRecipe
    from more_r1.training.learner import TrainingRecipe


@dataclass(frozen=True)
class Launch:
    """So many processes, and what of the model they share out: with `ddp` nothing, each has a whole one."""

    processes: int
    sharding: Sharding

    def __str__(self) -> str:
        if self.processes == 1:
            return "1 process" + ("" if self.sharding == "ddp" else f", {self.sharding}")
        return f"{self.processes} processes, {self.sharding}"

    def reads(self, other: Launch) -> bool:
        """Whether it can go on with what the other saved: split in the same way among as many, or whole in both."""
        return self == other or self.sharding == other.sharding == "ddp"


def by_launcher() -> bool:
    """Whether `accelerate launch` started this process: it alone sets this variable, whatever the file says."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ


def this_launch() -> Launch:
    """How this run was started."""
    processes = launched()
    sharding: Sharding = "ddp"
    if processes.distributed_type != DistributedType.NO:  # of a process alone, accelerate splits nothing
        if parse_flag_from_env("ACCELERATE_USE_FSDP"):
            sharding = "fsdp2"
        elif parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
            sharding = "zero3" if os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3" else "zero2"
    return Launch(processes.num_processes, sharding)


# Settings of stage 2 that need model and gradients whole in each process, and what to have in their place.
_WHOLE = {"forest=recursive": "forest=packed", "mixing.remeasure=true": "mixing.remeasure=false"}


def needs_whole(recipe: GrpoRecipe) -> str | None:
    """The setting for which stage 2 needs model and gradients whole in each process; None: they may be split."""
    held = zip(_WHOLE, (recipe.forest == "recursive", recipe.mixing.remeasure), strict=True)
    return next((setting for setting, there in held if there), None)


def refuse_split(recipe: GrpoRecipe, sharding: Sharding, section: str = "") -> None:
    """Raises RecipeError where stage 2 needs the model whole and it is split. `section` is put before its keys."""
    if sharding != "ddp" and (setting := needs_whole(recipe)) is not None:
        raise RecipeError(
            f"{section}{setting} needs model and gradients whole in each process, and {sharding} splits them; "
            f"set {section}{_WHOLE[setting]}, or take ddp"
        )


def off_cuda(recipe: TrainingRecipe) -> str | None:
    """Why a recipe cannot be trained on the device of this process; None if it can."""
    if recipe.attention == "flex" and (device := launched().device).type != "cuda":
        return f"attention=flex trains on CUDA only, this is {device}; leave it out"
    return None


def without_vllm(recipe: GrpoRecipe) -> str | None:
    """Why rollouts cannot be drawn as the recipe says; None if they can, as far as that is known before."""
    if recipe.rollout == "vllm" and recipe.vllm.server is None and find_spec("vllm") is None:
        return "rollout=vllm: vLLM is not installed; make an environment of its own (docs/rollouts.md), or set rollout=local"
    return None
