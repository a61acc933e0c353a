"""Curves go where the recipe says, each point once, and a run that is gone on with stays one run.

wandb and trackio are stood in for by modules of a few lines that write down what they are told; where the real ones are
installed, the last tests run them, offline.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import Prompt
from more_r1.training.examples import Batch, Example
from more_r1.training.fit import fit
from more_r1.training.learner import TrainingRecipe, learn
from more_r1.training.recipe import RecipeError, load_recipe
from more_r1.training.run import Run

EXAMPLE = Example(Prompt((("a",),)), "b a b")
STEPS = 6
REAL = {name: find_spec(name) is not None for name in ("wandb", "trackio")}
STAND_IN = """
import json, os
from pathlib import Path

def tell(**what):
    with Path(os.environ["TOLD"]).open("a") as file:
        file.write(json.dumps({"by": __name__, **what}) + "\\n")

class Run:
    def log(self, values, step):
        tell(values=values, step=step)

    def finish(self):
        tell(finished=True)

def init(project, name=None, id=None, dir=None, config=None, resume=None):
    tell(project=project, name=name, id=id, dir=dir, config=config, resume=resume)
    return Run()
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """What the stand-in of that name was told, once both are in the place of the real ones."""
    for name in REAL:
        (tmp_path / "modules").mkdir(exist_ok=True)
        (tmp_path / "modules" / f"{name}.py").write_text(STAND_IN)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    file = tmp_path / "told.jsonl"
    monkeypatch.setenv("TOLD", str(file))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)

    def read(name: str) -> list[dict[str, Any]]:
        lines = file.read_text().splitlines() if file.exists() else []
        return [what for what in map(json.loads, lines) if what.pop("by") == name]

    yield read
    for name in REAL:
        sys.modules.pop(name, None)


class KilledError(Exception):
    pass


def train(out: Path, dies_at: int | None = None, **settings: Any) -> dict[str, Tensor]:
    """A tiny model learns two words; in `dies_at` the process ends, as far as the run can tell."""
    backbone = build_tiny(["a", "b"], 0)
    recipe = TrainingRecipe.model_validate({"out": out, "threads": 1, "checkpoint_every": 2, **settings})
    done = 0

    def update(*given: Any) -> dict[str, Any]:
        nonlocal done
        done += 1
        if done == dies_at:
            raise KilledError
        return fit(*given)

    def validate() -> dict[str, float]:
        return {"f1": float(backbone.model.model.language_model.norm.weight.detach().sum().sin())}

    batches = [Batch((EXAMPLE,), 1.0)] * STEPS
    learn(backbone, recipe, Run(recipe, out), batches, [1e-3] * STEPS, update, validate, frozenset({3, 5, STEPS}))
    weights: dict[str, Tensor] = backbone.model.state_dict()
    return weights


def events(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def points(events: list[dict[str, Any]]) -> list[tuple[int, dict[str, float]]]:
    return [(one["step"], {name: value for name, value in one.items() if name != "step"}) for one in events]


def board(out: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(out / "tensorboard"))
    found.Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def curves(events: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    names = {name for event in events for name in event} - {"step"}
    return {
        name: [(event["step"], pytest.approx(event[name], rel=1e-6)) for event in events if name in event] for name in names
    }


def test_tensorboard_alone_is_the_default(tmp_path: Path, told: Callable[[str], list[dict[str, Any]]]) -> None:
    train(tmp_path / "run")
    logged = events(tmp_path / "run")
    assert {"loss", "valid_f1"} <= curves(logged).keys() and len(logged) == STEPS + 3
    assert board(tmp_path / "run") == curves(logged)
    assert not told("wandb") and not told("trackio") and not (tmp_path / "run" / "tracker_id").exists()


def test_each_tracker_is_told_what_the_log_has(tmp_path: Path, told: Callable[[str], list[dict[str, Any]]]) -> None:
    plain, out = tmp_path / "plain", tmp_path / "run"
    weights, tracked = train(plain, trackers=[]), train(out, trackers=["tensorboard", "wandb", "trackio"])
    assert not (plain / "tensorboard").exists()
    assert all(torch.equal(tensor, tracked[name]) for name, tensor in weights.items())
    assert board(out) == curves(events(out))
    id = (out / "tracker_id").read_text().strip()
    for name in REAL:
        begin, *middle, end = told(name)
        assert [(what["step"], what["values"]) for what in middle] == points(events(out))
        assert end == {"finished": True}
        assert begin["project"] == "more-r1" and begin["resume"] == "allow"
        assert begin["config"]["trackers"] == ["tensorboard", "wandb", "trackio"] and begin["config"]["out"] == str(out)
    assert {key: told("wandb")[0][key] for key in ("name", "id", "dir")} == {"name": "run", "id": id, "dir": str(out)}
    assert told("trackio")[0]["name"] == f"run-{id}"


def test_a_resumed_run_is_the_same_run_and_tells_each_point_once(
    tmp_path: Path, told: Callable[[str], list[dict[str, Any]]]
) -> None:
    out, other = tmp_path / "run", tmp_path / "other"
    with pytest.raises(KilledError):
        train(out, dies_at=6, trackers=["tensorboard", "wandb", "trackio"])
    # Logged up to step 5 and its validation, saved at step 4.
    assert events(out)[-1]["step"] == 5 and "valid_f1" in events(out)[-1]
    # TensorBoard reads files by name: the second they began in, the process, then a count in it that has no fixed width. Two
    # lives in one second are in order by chance then; only here, in one process, do they follow that fast.
    time.sleep(1)
    # Trackers do not change what is computed: another choice goes on with the same run.
    train(out, trackers=["wandb", "trackio", "tensorboard"])
    train(other, trackers=["wandb"])
    for name in REAL:
        begun = [what for what in told(name) if "project" in what and what["config"]["out"] == str(out)]
        assert len(begun) == 2 and all(begun[0][key] == begun[1][key] for key in ("name", "id"))
    logged = points(events(out))
    assert [step for step, _ in logged] == [1, 2, 3, 3, 4, 5, 5, 6, 6]
    told_points = [(what["step"], what["values"]) for what in told("trackio") if "values" in what]
    # Seconds differ from life to life.
    assert [(step, values | {"seconds": 0}) for step, values in told_points] == [(s, v | {"seconds": 0}) for s, v in logged]
    assert board(out).keys() == curves(events(out)).keys()
    assert [step for step, _ in board(out)["loss"]] == [1, 2, 3, 4, 5, 6]
    ids = {what["id"] for what in told("wandb") if "project" in what}
    assert len(ids) == 2


def test_the_project_of_wandb_may_be_another(
    tmp_path: Path, told: Callable[[str], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    train(tmp_path / "run", trackers=["wandb"])
    assert told("wandb")[0]["project"] == "mine"


def test_only_the_main_process_draws_curves(
    tmp_path: Path, told: Callable[[str], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(Accelerator, "is_main_process", property(lambda self: False))
    train(tmp_path / "run", trackers=["tensorboard", "wandb", "trackio"], checkpoint_every=100)
    assert not told("wandb") and not told("trackio")
    assert not {"log.jsonl", "tensorboard", "tracker_id"} & {file.name for file in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize("lacking", ["wandb", "trackio"])
def test_a_missing_tracker_is_one_line_before_anything_begins(
    lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, lacking, None)
    file = tmp_path / "recipe.yaml"
    file.write_text(f"out: {tmp_path / 'run'}\n")
    with pytest.raises(RecipeError) as raised:
        load_recipe(file, [f"trackers=[tensorboard, {lacking}]"], TrainingRecipe)
    assert str(raised.value) == f"{file}: trackers: {lacking} not installed; pip install 'more-r1[track]', or leave it out"
    with pytest.raises(RecipeError, match=r"trackers\.0: .*'tensorboard', 'wandb' or 'trackio'"):
        load_recipe(file, ["trackers=[mlflow]"], TrainingRecipe)


def test_a_folder_that_wandb_left_about_is_no_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ValueError, match="wandb not installed"):
        TrainingRecipe.model_validate({"out": tmp_path / "run", "trackers": ["wandb"]})


@pytest.mark.skipif(not REAL["wandb"], reason="wandb is not installed")
def test_wandb_itself_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tmp_path / "run"
    with pytest.raises(KilledError):
        train(out, dies_at=4, trackers=["wandb"])
    train(out, trackers=["wandb"])
    id = (out / "tracker_id").read_text().strip()
    assert len(list((out / "wandb").glob(f"offline-run-*-{id}"))) == 2


@pytest.mark.skipif(not REAL["trackio"], reason="trackio is not installed")
def test_trackio_itself_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    import trackio.utils

    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    out = tmp_path / "run"
    with pytest.raises(KilledError):
        train(out, dies_at=6, trackers=["trackio"])
    train(out, trackers=["trackio"])
    with sqlite3.connect(tmp_path / "trackio" / "more-r1.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
    assert {name for name, _, _ in rows} == {f"run-{(out / 'tracker_id').read_text().strip()}"}
    assert [step for _, step, _ in rows] == [event["step"] for event in events(out)]
    assert json.loads(rows[0][2])["loss"] == pytest.approx(events(out)[0]["loss"])
