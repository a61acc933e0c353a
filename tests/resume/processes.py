"""Runs of several processes, and how what they learn is compared."""

from __future__ import annotations

import json
import multiprocessing
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from colours import child
from safetensors.torch import load_file

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["more_r1.training.grpo", "more_r1.models.tiny", "torch.utils.tensorboard", "peft"])


def start(out: Path, processes: int, split: dict[str, str] | None = None, **settings: Any) -> list[Any]:
    return launch(child, processes, str(out), {"draws": False, **settings}, split=split)


def launch(run: Callable[..., None], processes: int, *given: Any, split: dict[str, str] | None = None) -> list[Any]:
    """As `accelerate launch` starts them on GPUs, but on CPUs; with `split` as its file of FSDP or DeepSpeed has it."""
    started = []
    for environment in environments(processes):
        started.append(SERVER.Process(target=run, args=(*given, environment | (split or {}) if processes > 1 else {})))
        started[-1].start()
    return started


def environments(processes: int) -> list[dict[str, str]]:
    """By which the processes of a run find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    return [{"RANK": str(rank), "LOCAL_RANK": str(rank), **common} for rank in range(processes)]


def kill(out: Path, processes: int, split: dict[str, str] | None = None) -> None:
    """Start a run and kill it after its checkpoint at step 4, long before its end."""
    for process in (started := start(out, processes, split)):
        while process.is_alive() and not (out / "checkpoint" / "00000004").exists():
            time.sleep(0.002)
    for process in started:
        process.kill()
        process.join()
    assert not (out / "result.json").exists()


def finish(out: Path, processes: int, split: dict[str, str] | None = None, **settings: Any) -> None:
    joined(start(out, processes, split, **settings))


def joined(processes: list[Any]) -> None:
    for process in processes:
        process.join(120)
        assert process.exitcode == 0


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def assert_learned_the_same(alone: Path, together: Path, but: tuple[str, ...] = ("seconds", "tokens")) -> None:
    one, two = log(alone), log(together)
    assert [event["step"] for event in one] == [event["step"] for event in two]
    for mine, theirs in zip(one, two, strict=True):
        figures = {name: value for name, value in mine.items() if not name.startswith(but)}
        assert figures == pytest.approx({name: theirs[name] for name in figures}, rel=1e-4, abs=1e-6)
    weights, others = (load_file(out / "final" / "model.safetensors") for out in (alone, together))
    for name, tensor in weights.items():
        # On average: where a gradient is next to nothing, Adam makes much of its rounding.
        assert (tensor - others[name]).abs().mean() < 1e-5, name
