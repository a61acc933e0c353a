"""Where the curves of a run are drawn besides log.jsonl: TensorBoard, Weights & Biases or trackio, by name."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from more_r1.formats.paths import replacing

Tracker = Literal["tensorboard", "wandb", "trackio"]
PROJECT = "more-r1"
# In a run folder: by what wandb and trackio know the run when it is gone on with.
ID_FILE = "tracker_id"


class Curves(Protocol):
    """What a tracker gives for one run; wandb and trackio have it as it stands here."""

    def log(self, values: dict[str, float], step: int) -> object:
        """Add a point at `step` to the curve of each name."""
        ...

    def finish(self) -> object:
        """Write out what is left."""
        ...


class TensorBoard:
    """Curves in a folder of event files; what is there of steps from `purge_step` on is dropped."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        # Here, not above: it takes a second to import, and only the main process of a run draws curves.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def log(self, values: dict[str, float], step: int) -> None:
        """As Curves has it."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        """As Curves has it."""
        self._writer.close()


def missing(trackers: tuple[Tracker, ...]) -> list[Tracker]:
    """Those that are not installed; TensorBoard always is."""
    specs = {tracker: find_spec(tracker) for tracker in trackers if tracker != "tensorboard"}
    # A mere folder of that name, as wandb leaves them about, is found as well, but has no file behind it.
    return [tracker for tracker, spec in specs.items() if spec is None or spec.origin is None]


def open_curves(tracker: Tracker, folder: Path, step: int, settings: Mapping[str, Any]) -> Curves:
    """The curves of the run in `folder`, which goes on after `step`; `settings` is its recipe, plain.

    wandb and trackio go on with the run that the folder's first start made. Where they keep it and whether they are online,
    their own environment variables say (WANDB_MODE, WANDB_PROJECT, TRACKIO_DIR, TRACKIO_SPACE_ID).
    """
    if tracker == "tensorboard":
        return TensorBoard(folder / "tensorboard", step + 1)
    run: Curves
    if tracker == "wandb":
        import wandb

        project = os.environ.get("WANDB_PROJECT", PROJECT)
        given = {"name": folder.name, "id": _run_id(folder), "dir": str(folder)}
        run = wandb.init(project=project, config=dict(settings), resume="allow", **given)
    else:
        import trackio

        # It knows runs by their names alone.
        run = trackio.init(PROJECT, f"{folder.name}-{_run_id(folder)}", config=dict(settings), resume="allow")
    return run


def _run_id(folder: Path) -> str:
    file = folder / ID_FILE
    if not file.exists():
        with replacing(file) as fresh:
            fresh.write_text(secrets.token_hex(4) + "\n", encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()
