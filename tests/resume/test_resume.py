"""A run that is killed at any moment and started again ends with the bits of one that was not."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from colours import ColourRecipe, child, examples, train

from more_r1.formats.fault import FormatError
from more_r1.training.examples import Batch, Epochs
from more_r1.training.recipe import RecipeError

# A process that has imported torch once and is forked for each life of the run.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["more_r1.training.learner", "more_r1.models.tiny", "torch.utils.tensorboard"])


def start(out: Path, **settings: Any) -> Any:
    process = SERVER.Process(target=child, args=(str(out), settings))
    process.start()
    return process


def finish(out: Path, **settings: Any) -> None:
    process = start(out, **settings)
    process.join(60)
    assert process.exitcode == 0


def log(out: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in event.items() if name != "seconds"} for event in events]


def assert_same(one: Path, other: Path) -> None:
    assert log(one) == log(other)
    for file in ("final/model.safetensors", "best/model.safetensors", "result.json"):
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    for folder in (one, other):
        expected = {".lock", "recipe.yaml", "log.jsonl", "tensorboard", "best", "final", "result.json"}
        assert {path.name for path in folder.iterdir()} == expected


def last_step(out: Path) -> int:
    """Of the log as it stands, also while it is written."""
    lines = (out / "log.jsonl").read_text().splitlines() if (out / "log.jsonl").exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def assert_newest_is_complete(out: Path) -> None:
    """Watched from outside, while the run goes on."""
    with suppress(FileNotFoundError):  # removed between two looks
        newest = max(out.glob("checkpoint/[0-9]*"), default=None)
        there = {file.name for file in newest.iterdir()} if newest else set()
        if newest is None or newest != max(out.glob("checkpoint/[0-9]*"), default=None) or (out / "result.json").exists():
            return  # none yet, or one that is being removed for a newer one or at the end
        assert there == {"model.safetensors", "optimizer.bin", "random_states_0.pkl", "progress.json"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption or checkpoint."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(out, checkpoint_every=1000)
    return out


@pytest.mark.parametrize("workers", [0, 1])
def test_killed_at_random_moments(tmp_path: Path, whole: Path, workers: int) -> None:
    out, random, killed = tmp_path / "run", Random(workers), 0
    for _ in range(2 if workers else 5):
        saved = max((int(folder.name) for folder in out.glob("checkpoint/[0-9]*")), default=0)
        steps = random.randint(1, 4)
        process = start(out, workers=workers)
        # The log is cut back to the checkpoint first: then it must grow to this life's step.
        while process.is_alive() and not saved < last_step(out) <= saved + steps:
            time.sleep(0.001)
        while process.is_alive() and last_step(out) < saved + steps:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.05))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed >= 2
    finish(out, workers=workers)
    assert_same(out, whole)


def test_killed_before_the_first_step(tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "run"
    for _ in range(3):
        process = start(out)
        while process.is_alive() and not out.exists():
            time.sleep(0.0005)
        process.kill()
        process.join()
    finish(out)
    assert_same(out, whole)


def test_killed_while_a_checkpoint_is_written(tmp_path: Path, whole: Path) -> None:
    out, random, caught = tmp_path / "run", Random(2), 0
    part = out / "checkpoint" / "part"
    for life in range(4):
        process = start(out)
        # Each life dies at its own later checkpoint, somewhere in the few milliseconds of writing.
        seen, there = 0, False
        while process.is_alive():
            was, there = there, part.exists()
            assert_newest_is_complete(out)
            seen += there and not was
            if seen > life % 2 and there:
                time.sleep(random.uniform(0, 0.02))
                process.kill()
                process.join()
                caught += part.exists()
    assert caught, "no kill hit a checkpoint while it was written"
    process = start(out)
    while process.is_alive():
        assert_newest_is_complete(out)
    assert_same(out, whole)


def test_a_checkpoint_from_before_it_told_its_launch_is_gone_on_with(tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "run"
    process = start(out)
    while process.is_alive() and not (out / "checkpoint" / "00000004").exists():
        time.sleep(0.001)
    process.kill()
    process.join()
    file = max(out.glob("checkpoint/0*")) / "progress.json"
    told = json.loads(file.read_text())
    assert told.pop("launch") == {"processes": 1, "sharding": "ddp"}
    file.write_text(json.dumps(told))
    finish(out)
    assert_same(out, whole)


def test_without_the_random_state_the_run_would_differ(tmp_path: Path, whole: Path) -> None:
    """The model of these tests draws numbers as it learns; otherwise they would not notice a lost random state."""
    finish(tmp_path / "run", draws=False)
    assert log(tmp_path / "run") != log(whole)


def test_the_best_by_validation_is_kept(whole: Path) -> None:
    scores = {event["step"]: event["valid_f1"] for event in log(whole) if "valid_f1" in event}
    best = max(scores, key=lambda step: scores[step])
    assert best != max(scores), "the last being the best, these tests would notice nothing"
    assert json.loads((whole / "result.json").read_text()) == {"steps": 18, "best_step": best, "best": {"f1": scores[best]}}
    assert (whole / "best/model.safetensors").read_bytes() != (whole / "final/model.safetensors").read_bytes()


def test_what_is_best_is_known_by_what_stands_beside_its_weights(tmp_path: Path, whole: Path) -> None:
    """A life that is lost after its checkpoint may have validated a better model than those that follow, where not every bit is
    the same again."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "result.json").unlink()
    shutil.rmtree(out / "best")
    shutil.copytree(out / "final", out / "best")
    (out / "best" / "validation.json").write_text('{"step": 17, "scores": {"f1": 7}}')
    finish(out)
    assert json.loads((out / "result.json").read_text()) == {"steps": 18, "best_step": 17, "best": {"f1": 7}}
    assert (out / "best/model.safetensors").read_bytes() == (whole / "final/model.safetensors").read_bytes()


@pytest.mark.parametrize("moment", ["written", "half written", "old one gone", "old one half removed"])
def test_killed_while_the_best_is_replaced(tmp_path: Path, whole: Path, moment: str) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "result.json").unlink()
    new, best = out / "best-new", out / "best"
    if moment in ("written", "half written"):
        shutil.copytree(best, new)
        (best / "model.safetensors").write_bytes(b"an older one")
    else:
        best.rename(new)
    if moment == "half written":
        (new / "validation.json").unlink()
        shutil.copytree(whole / "best", best, dirs_exist_ok=True)
    if moment == "old one half removed":
        (out / ".best-old").mkdir()
    finish(out)
    assert_same(out, whole)


def test_a_second_process_is_refused_and_harms_nothing(tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "run"
    process = start(out)
    while process.is_alive() and last_step(out) < 2:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(FormatError, match="another run writes here"):
        train(ColourRecipe(out=out))
    os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    assert_same(out, whole)


def test_a_run_that_failed_lets_go_of_its_folder(tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "run"

    class Broken(list[Batch]):
        def __getitem__(self, index: Any) -> Any:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full") as caught:
        train(ColourRecipe(out=out), Broken(Epochs(examples(), 6, 4, 0)))
    assert caught
    finish(out)
    assert_same(out, whole)


def test_a_finished_run_is_left_alone_and_another_recipe_refused(whole: Path) -> None:
    out = whole
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert train(ColourRecipe(out=out, checkpoint_every=7)).steps == 18
    with pytest.raises(RecipeError, match=r"recipe\.yaml.*another recipe \(lr=0\.003 there, 0\.1 here\)"):
        train(ColourRecipe(out=out, lr=0.1))
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(RecipeError, match="something else than a run"):
        train(ColourRecipe(out=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
