"""A run of GRPO that a test can kill, and that tells where it is. Imported by the process that is killed."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch.distributed import fsdp
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

import more_r1.training.grpo as grpo
import more_r1.training.learner as learner
import more_r1.training.update as update
from more_r1.models.sampling import Rollout
from more_r1.training.examples import launched
from more_r1.training.grpo import GrpoRecipe, run_grpo
from more_r1.training.learner import Trainer
from more_r1.training.recipe import RecipeError
from more_r1.training.run import Run

# What a step goes through, in this order; between two of them it validates, measures anew, or makes its batch.
PHASES = ("rollout", "update", "save", "between")


def child(settings: dict[str, Any], environment: dict[str, str], phases: Any = None) -> None:
    """What the process runs, silently; `phases` is a shared number, of the phases that have begun."""
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if phases is not None:
        _tell(phases)
    grpo.elsewhere = lambda *_: Elsewhere()  # type: ignore[assignment]
    run_grpo(GrpoRecipe.model_validate(settings))


def counted(settings: dict[str, Any], environment: dict[str, str], phases: Any = None) -> None:
    """As `child`; what the model was split into is written beside the run, a name a line, and the type of log-probabilities."""
    prepare = learner.prepare

    def prepared(*arguments: Any) -> Any:
        policy, optimizer = prepare(*arguments)
        if os.environ["RANK"] == "0":
            units = [type(module).__name__ for module in policy.modules() if isinstance(module, FSDPModule)]
            Path(settings["out"]).with_suffix(".units").write_text("\n".join(units))
            told = Path(settings["out"]).with_suffix(".type")
            policy.register_forward_hook(lambda _, __, found: told.write_text(str(found[0].dtype)) and None)
        return policy, optimizer

    learner.prepare = prepared  # type: ignore[attr-defined]
    child(settings, environment, phases)


def halved(settings: dict[str, Any], environment: dict[str, str]) -> None:
    """As `child`, with a model in half precision; written beside the run are the types of weights as they are split, those of
    the weights that learn then, and how far they move."""
    learning, split, prepare = grpo.learning, fsdp.fully_shard, learner.prepare
    types: dict[str, set[str]] = {"split": set(), "learn": set()}
    learnt: list[tuple[Any, Any]] = []

    def begun(backbone: Any, *arguments: Any) -> Any:
        backbone.model.bfloat16()
        return learning(backbone, *arguments)

    def sharded(modules: Any, **given: Any) -> Any:
        for module in modules if isinstance(modules, tuple | list) else [modules]:
            types["split"] |= {str(one.dtype) for one in module.parameters() if not isinstance(one, DTensor)}
        return split(modules, **given)

    def prepared(*arguments: Any) -> Any:
        policy, optimizer = prepare(*arguments)
        learnt.extend((one, one.to_local().clone()) for one in policy.parameters() if one.requires_grad)
        types["learn"] |= {str(one.dtype) for one, _ in learnt}
        return policy, optimizer

    grpo.learning, fsdp.fully_shard, learner.prepare = begun, sharded, prepared  # type: ignore[attr-defined,assignment]
    child(settings, environment)
    far = [float((one.to_local() - before).detach().abs().max()) for one, before in learnt if before.numel()]
    told = {"moved": [min(far), max(far)], **{name: sorted(found) for name, found in types.items()}}
    Path(settings["out"]).with_suffix(f".{os.environ['RANK']}").write_text(json.dumps(told))


def piped(settings: dict[str, Any], environment: dict[str, str]) -> None:
    """All stages in a row; why they are refused is written beside them."""
    from more_r1.pipeline import TrainRecipe, train  # heavy, and the others start without it

    os.environ.update(environment)
    recipe = TrainRecipe.model_validate(settings)
    try:
        train(recipe, lambda _: nullcontext(lambda *_: None))
    except RecipeError as error:
        if os.environ["RANK"] == "0":
            recipe.out.with_suffix(".refused").write_text(str(error))
    launched().wait_for_everyone()  # who ends while another still joins breaks it


class Elsewhere:
    """Stands in for vLLM: draws as the policy does."""

    def sample(self, trainer: Trainer, *asked: Any) -> list[list[Rollout]]:
        with trainer.whole():
            return update.sample(trainer.backbone, *asked)

    def close(self) -> None:
        pass


def _tell(phases: Any) -> None:
    draw, save = update.sample, Run.save

    def drawn(*arguments: Any) -> Any:
        phases.value += 1
        rollouts = draw(*arguments)
        phases.value += 1
        return rollouts

    def saved(*arguments: Any) -> None:
        phases.value += 1
        save(*arguments)
        phases.value += 1

    update.sample = drawn
    Run.save = saved  # type: ignore[method-assign]
