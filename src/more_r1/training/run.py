"""The folder of a training run: recipe.yaml, log.jsonl, tensorboard/, checkpoint/, best/, final/, result.json.

A checkpoint is complete or absent: it is written under another name and then renamed to `checkpoint/STEP`, and the one
before it goes only afterwards. So is `best/`, which has the validation that it won by beside its weights. `result.json` comes
last, so a folder that has it is a finished run.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from accelerate import Accelerator
from pydantic import ValidationError

from more_r1.formats.paths import sync
from more_r1.training.launch import Launch, this_launch
from more_r1.training.recipe import Recipe, RecipeError, load_yaml
from more_r1.training.trackers import Tracker, open_curves

# accelerate warns about tied weights at every checkpoint; they are tied again on loading.
logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)

# These may differ between a run and its resumption: they do not change what is computed. Who draws rollouts, and where, changes
# no more than the numbers that they are drawn by.
FREE = ("out", "checkpoint_every", "workers", "trackers", "rollout", "vllm")


# In best/: the step after which it was validated, and the figures.
VALIDATION = "validation.json"


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done, and bytes of log.jsonl that belong to them."""

    step: int = 0
    log_bytes: int = 0


@dataclass(frozen=True)
class Best:
    """The validation that no other one has passed so far."""

    step: int
    scores: Mapping[str, float]


class Run:
    """The files of one run. Raises RecipeError if the folder holds something else than this recipe's run."""

    def __init__(self, recipe: Recipe, folder: Path):
        self.folder = folder
        self._checkpoints = folder / "checkpoint"
        self._file = folder / "recipe.yaml"
        # Through JSON: what is compared and stored is plain, whatever the recipe's types.
        self._recipe = json.loads(recipe.model_dump_json())
        # These alone are ours, from a kill before the recipe was in place.
        ours = (f".{self._file.name}.part", ".lock")
        strange = folder.exists() and (not folder.is_dir() or any(item.name not in ours for item in folder.iterdir()))
        if self._file.exists():
            self._same(type(recipe))
        elif strange:
            raise RecipeError(f"out={folder}: there is something else than a run; give another folder")

    def begin(self) -> None:
        """Make the folder this recipe's; not before all inputs are there, so that a mistake in them leaves nothing behind."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for broken in (*self.folder.glob(".best*"), *self.folder.glob(".final-*")):
            shutil.rmtree(broken)  # model folders that a kill left half written, or half removed
        if (new := self.folder / "best-new").exists():
            # With its validation in it, a kill left it whole, maybe with no other best model beside it.
            if (new / VALIDATION).exists():
                self._promote(new)
            else:
                shutil.rmtree(new)
        write_atomically(self._file, yaml.safe_dump(self._recipe, sort_keys=False, allow_unicode=True))

    def _same(self, kind: type[Recipe]) -> None:
        """Raises RecipeError where the run that is there computes something else."""
        file = self._file
        theirs = load_yaml(file)
        if not isinstance(theirs, dict):
            raise RecipeError(f"{file}: is no recipe; give another out=")
        # A run from before there was a setting has its default; what is no such recipe is compared as it stands there.
        with suppress(ValidationError):
            theirs = json.loads(kind.model_validate(theirs).model_dump_json())
        mine = self._recipe
        keys = [key for key in {**mine, **theirs} if key not in FREE and mine.get(key) != theirs.get(key)]
        if keys:
            changes = ", ".join(_change(key, theirs.get(key), mine.get(key)) for key in keys)
            raise RecipeError(f"{file}: the run in this folder has another recipe ({changes}); give another out= or delete it")

    @property
    def result(self) -> dict[str, Any] | None:
        """What a finished run wrote at its end; None if it has not ended."""
        file = self.folder / "result.json"
        if not file.exists():
            return None
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return result

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result; the checkpoint has served."""
        write_atomically(self.folder / "result.json", json.dumps(result, indent=2) + "\n")
        self.clear()

    def clear(self) -> None:
        """Remove the checkpoint of a finished run, as large as three models, if a kill left it there."""
        shutil.rmtree(self._checkpoints, ignore_errors=True)

    @property
    def best(self) -> Best | None:
        """By what the model in best/ won; None if there is none."""
        file = self.folder / "best" / VALIDATION
        return Best(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None

    def keep(self, best: Best, save: Callable[[Path], None]) -> None:
        """Make what `save` writes the best model."""
        new = self.folder / "best-new"
        save(new)
        write_atomically(new / VALIDATION, json.dumps(asdict(best), indent=2) + "\n")
        self._promote(new)

    def _promote(self, new: Path) -> None:
        best, old = self.folder / "best", self.folder / ".best-old"
        if best.exists():
            best.rename(old)
        new.rename(best)
        shutil.rmtree(old, ignore_errors=True)

    def save(self, accelerator: Accelerator, progress: Progress) -> None:
        """Write a checkpoint (weights, optimizer, random states, progress), then drop the one before. All processes call it."""
        part, new = self._checkpoints / "part", self._checkpoints / f"{progress.step:08d}"
        if accelerator.is_main_process:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(part))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            written = {**asdict(progress), "launch": asdict(this_launch())}
            (part / "progress.json").write_text(json.dumps(written), encoding="utf-8")
            for file in part.rglob("*"):
                sync(file)
            part.rename(new)
            sync(self._checkpoints)
            for old in self._checkpoints.iterdir():
                if old != new:
                    shutil.rmtree(old)
        accelerator.wait_for_everyone()

    def resume(self, accelerator: Accelerator) -> Progress:
        """Load the latest checkpoint into what the accelerator prepared; Progress() if there is none.

        Raises RecipeError where it was written under a launch that has other parts of the model in other places.
        """
        # A kill while an older one was being removed leaves it broken, but then a newer one is there.
        complete = sorted(folder for folder in self._checkpoints.glob("*") if folder.name.isdecimal())
        if not complete:
            return Progress()
        progress = json.loads((complete[-1] / "progress.json").read_text(encoding="utf-8"))
        here, there = this_launch(), progress.pop("launch", None)  # of one from before launches were kept, nothing is known
        if there is not None and not here.reads(there := Launch(**there)):
            raise RecipeError(
                f"{self.folder}: its checkpoint was written by {there}, this is {here}; go on with as many processes and "
                "the same file of accelerate launch, or give another out="
            )
        accelerator.load_state(str(complete[-1]))
        return Progress(**progress)


def _change(key: str, theirs: Any, mine: Any) -> str:
    if key == "schema":
        return "schema: not the same relations"  # their content would take pages
    return f"{key}={theirs!r} there, {mine!r} here"


class Log:
    """log.jsonl, and the curves of its numbers. Opening it cuts off what was logged after the checkpoint that is resumed from.

    wandb and trackio cannot forget; what was cut off is not told to them a second time.
    """

    def __init__(self, folder: Path, progress: Progress, trackers: Sequence[Tracker], settings: Mapping[str, Any]):
        self._file = (folder / "log.jsonl").open("a+b")
        self._file.seek(progress.log_bytes)
        self._told = self._file.read().count(b"\n")
        self._file.truncate(progress.log_bytes)
        self._file.seek(0, os.SEEK_END)
        self._curves = {tracker: open_curves(tracker, folder, progress.step, settings) for tracker in trackers}

    def write(self, event: Mapping[str, Any]) -> None:
        """Append one event; those of its values that are numbers become points of the curves at its `step`."""
        self._file.write(json.dumps(event).encode() + b"\n")
        self._file.flush()
        numbers = {name: value for name, value in event.items() if name != "step" and isinstance(value, int | float)}
        for tracker, curves in self._curves.items():
            if not self._told or tracker == "tensorboard":
                curves.log(numbers, int(event["step"]))
        self._told = max(self._told - 1, 0)

    @property
    def bytes(self) -> int:
        """Length of log.jsonl, once it is safely on the disk."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Write out what is left."""
        self._file.close()
        for curves in self._curves.values():
            curves.finish()


def write_atomically(file: Path, text: str) -> None:
    """Write a file so that it is complete or absent, whenever the process or the machine dies.

    More than `formats.paths.replacing` promises: what is removed next relies on it, and a kill leaves a name that `Run` knows.
    """
    part = file.with_name(f".{file.name}.part")
    part.write_text(text, encoding="utf-8")
    sync(part)
    part.replace(file)
