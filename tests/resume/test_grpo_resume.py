"""A run of GRPO that is killed in a rollout, an update or a save, and started again, ends with the bits of one that was not."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import pytest
from halves import Halfway, events
from stage2 import PHASES, child

# A process that has imported torch once and is forked for each life of the run.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["more_r1.training.grpo", "more_r1.models.tiny", "torch.utils.tensorboard", "peft"])
# Three epochs of two steps; each way has what the other has not.
WAYS: dict[str, dict[str, Any]] = {
    "packed": {"beta": 0.02, "passes": 2, "lr": 5e-4, "mixing": {"preset": "fixed", "remeasure": True}, "validate_every": 2},
    "recursive": {"forest": "recursive", "lora": {"rank": 4}, "lr": 5e-3, "mixing": {"preset": "fixed"}, "validate_every": 1},
}
KILLS = {"packed": 20, "recursive": 6}
# About how long it takes to write a checkpoint of this size, in seconds.
SAVE = 0.06


def recipe(halfway: Halfway, out: Path, way: str) -> dict[str, Any]:
    common = {"epochs": 3, "batch_pairs": 5, "group": 4, "sampling": {}, "valid_pairs": 18, "checkpoint_every": 1}
    return halfway.grpo(out, **(common | WAYS[way])).model_dump(mode="json")


def finish(settings: dict[str, Any]) -> None:
    process = SERVER.Process(target=child, args=(settings, {}))
    process.start()
    process.join(120)
    assert process.exitcode == 0


def assert_same(one: Path, other: Path) -> None:
    assert events(one) == events(other)
    files = [{str(file.relative_to(out)) for file in out.rglob("*") if "tensorboard" not in str(file)} for out in (one, other)]
    assert files[0] == files[1]
    for name in (
        "final/model.safetensors",
        "best/model.safetensors",
        "result.json",
        *(f for f in files[0] if "difficulty" in f),
    ):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module", params=list(WAYS))
def whole(request: pytest.FixtureRequest, halfway: Halfway, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Its way, and a run without interruption."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finish({**recipe(halfway, out, request.param), "checkpoint_every": 1000})
    return request.param, out


def test_killed_at_random_moments(halfway: Halfway, whole: tuple[str, Path], tmp_path: Path) -> None:
    way, wanted = whole
    random, out = Random(way), tmp_path / "run"
    settings = recipe(halfway, out, way)
    times = [json.loads(line) for line in (wanted / "log.jsonl").read_text().splitlines() if "seconds_train" in line]
    lasts = {name: median(event[f"seconds_{name}"] for event in times) for name in ("rollout", "train")}
    lengths = (lasts["rollout"], lasts["train"], SAVE)
    killed: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    # A kill may miss its phase, which may last longer or less than another time: go on until each phase has had its share.
    while killed.total() < KILLS[way] or not all(killed[name] > KILLS[way] / 10 for name in PHASES[:3]):
        assert killed.total() < 3 * KILLS[way], killed
        phases = SERVER.Value("i", 0)
        process = SERVER.Process(target=child, args=(settings, {}, phases))
        process.start()
        # Whichever of rollout, update and save had the least, of the first step of this life or of the second, at any moment.
        phase = min(range(3), key=lambda number: killed[PHASES[number]])
        begun = len(PHASES) * random.randint(0, 1) + phase + 1
        while process.is_alive() and phases.value < begun:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.8 * lengths[phase]) / (1 + missed[PHASES[phase]]))
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            hit = PHASES[(phases.value - 1) % len(PHASES)]
            killed[hit] += 1
            missed[PHASES[phase]] += hit != PHASES[phase]
        if (out / "result.json").exists():
            assert_same(out, wanted)
            shutil.rmtree(out)
    finish(settings)
    assert_same(out, wanted)


def test_what_is_compared_goes_up_and_down(whole: tuple[str, Path]) -> None:
    """A run that learned nothing, or whose model answered the same all along, would look the same after any mistake."""
    way, out = whole
    log = [event for event in events(out) if "loss" in event]
    assert sum(event["grad_norm"] > 0 for event in log) > len(log) / 2
    assert len({event["valid_f1"] for event in events(out) if "valid_f1" in event}) > 1
    assert (out / "best/model.safetensors").read_bytes() != (out / "final/model.safetensors").read_bytes()
    if way == "packed":
        measured = [(out / f"difficulty-{epoch}.jsonl").read_bytes() for epoch in (2, 3)]
        assert measured[0] != measured[1]
