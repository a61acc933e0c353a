"""Rollouts by vLLM: what it draws is the policy's, step after step, beside the training and from a server that is killed.

`make test-vllm` runs it. The small task's model gets a head of its own: on a CPU vLLM cannot be given one that is tied.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from threading import Lock, Timer
from typing import Any

import psutil
import pytest
import torch
from halves import Halfway, events
from torch import nn

import more_r1.training.figures as figures
from more_r1.models.engine import EngineError
from more_r1.models.forest import Forest, logprobs
from more_r1.models.load import Backbone, load_backbone, save_backbone
from more_r1.models.lora import Lora
from more_r1.models.manner import load_manner
from more_r1.models.sampling import Rollout, Sampling
from more_r1.models.sampling import sample as local_sample
from more_r1.models.vllm.rollouts import Here, VllmRollouts
from more_r1.models.vllm.server import Server, launch
from more_r1.reasoning.prompt import Prompt
from more_r1.schema import Schema
from more_r1.training.grpo import run_grpo
from more_r1.training.recipe import RecipeError
from more_r1.training.samples import read_samples

# Where it is missing, this folder is found under its name, with no file of its own.
_found = importlib.util.find_spec("vllm")
pytestmark = pytest.mark.skipif(_found is None or _found.origin is None, reason="vLLM is not installed; make test-vllm")

LORA = Lora(rank=4, alpha=8.0)
PROBE = 9
# Far at each step, so that old weights would show; with a divergence equal groups are computed, too.
LEARNING = {"lr": 1e-3, "beta": 1e-3}
# Blocks of the prefix cache; the prompts are short.
OPTIONS = {"block_size": 32}


@pytest.fixture(scope="module")
def task(halfway: Halfway, tmp_path_factory: pytest.TempPathFactory) -> Halfway:
    """The small task, its model with a head of its own."""
    backbone = load_backbone(halfway.model, device="cpu")
    model = backbone.model
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    folder = tmp_path_factory.mktemp("untied") / "model"
    save_backbone(backbone, folder)
    return replace(halfway, model=folder)


@pytest.fixture(scope="module")
def policy(task: Halfway) -> Backbone:
    return load_backbone(task.model, device="cpu")


@pytest.fixture(scope="module")
def prompts(task: Halfway, policy: Backbone) -> list[Prompt]:
    return [sample.prompt(Schema.more(), policy.form) for sample in read_samples(task.data, "train")][:PROBE]


@pytest.fixture(scope="module")
def here(policy: Backbone, task: Halfway) -> Iterator[VllmRollouts]:
    machine = Here(load_manner(task.model), None, None, OPTIONS)
    yield VllmRollouts(policy, machine)
    machine.close()


@dataclass
class Running:
    """A server that was started by the command that the library names, and can be started again at the same address."""

    command: list[str]
    environment: dict[str, str]
    url: str
    process: Any = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, env={**os.environ, **self.environment}, start_new_session=True, stdout=subprocess.DEVNULL
        )
        end = time.monotonic() + 300
        while time.monotonic() < end and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", int(self.url.rsplit(":", 1)[1])), 1).close()
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("the server does not start")

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(task: Halfway) -> Iterator[Running]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = shlex.split(launch(load_manner(task.model), LORA))
    place = words.index("vllm")
    assert words[place + 1] == "serve"
    environment = dict(word.split("=", 1) for word in words[:place])
    # The build for CPUs has another name, by which its `vllm` does not find itself.
    module = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", *words[place + 2 :]]
    for_cpus = "--dtype float32 --enforce-eager --no-enable-chunked-prefill --max-num-batched-tokens 4096 --block-size 32"
    environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    running = Running([*module, *for_cpus.split(), "--port", str(port)], environment, f"http://127.0.0.1:{port}")
    running.start()
    yield running
    running.kill()


def draw(rollouts: VllmRollouts, prompts: list[Prompt], sampling: Sampling, first: int = 1) -> list[list[Rollout]]:
    return rollouts.sample(prompts, [[first + 100 * n + i for i in range(4)] for n in range(len(prompts))], sampling, 8)


def scored(policy: Backbone, prompts: list[Prompt], groups: list[list[Rollout]], temperature: float) -> list[list[float]]:
    """The policy's log-probabilities of all rollouts."""
    encoder = policy.encoder
    samples = [(encoder.prompt(prompt), one.ids) for prompt, group in zip(prompts, groups, strict=True) for one in group]
    with torch.no_grad():
        return [one.tolist() for one in logprobs(policy.model, Forest.build(samples, encoder), temperature=temperature)]


def test_draws_are_the_policys(here: VllmRollouts, policy: Backbone, prompts: list[Prompt]) -> None:
    groups = draw(here, prompts, Sampling(temperature=0.7))
    ours = scored(policy, prompts, groups, 0.7)
    theirs = [list(one.logprobs) for group in groups for one in group]
    worst = max(abs(a - b) for mine, other in zip(ours, theirs, strict=True) for a, b in zip(mine, other, strict=True))
    print(f"\nlog-probabilities differ by {worst:.1e} at most")
    assert worst < 1e-3
    assert len({one.text for group in groups for one in group}) > 3, "they are drawn"
    assert all(one.ended and one.text.endswith("</answer>") for group in groups for one in group)


def test_cold_draws_are_the_local_ones(here: VllmRollouts, policy: Backbone, prompts: list[Prompt]) -> None:
    cold = Sampling(temperature=0.01)
    mine = local_sample(policy, prompts, [[0]] * len(prompts), cold, 8)
    theirs = here.sample(prompts, [[0]] * len(prompts), cold, 8)
    assert [one.ids for (one,) in theirs] == [one.ids for (one,) in mine]
    assert [(one.text, one.ended) for (one,) in theirs] == [(one.text, one.ended) for (one,) in mine]
    short = here.sample(prompts[:1], [[0]], cold, 1)
    assert not short[0][0].ended and len(short[0][0].ids) == 1


def test_a_group_depends_on_its_own_seeds_alone(here: VllmRollouts, prompts: list[Prompt]) -> None:
    sampling = Sampling(temperature=1.5)
    groups = draw(here, prompts, sampling)
    assert [one.ids for one in draw(here, prompts[:1], sampling)[0]] == [one.ids for one in groups[0]]
    assert [one.ids for group in draw(here, prompts, sampling, 50) for one in group] != [one.ids for g in groups for one in g]
    assert max(len({one.ids for one in group}) for group in groups) > 1


def test_what_has_no_room_costs_one_line(here: VllmRollouts, prompts: list[Prompt]) -> None:
    with pytest.raises(EngineError, match=r"max_new_tokens=5000 are above the 4096 tokens that vLLM was started with"):
        here.sample(prompts[:1], [[0]], Sampling(), 5000)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_beside_the_training_it_follows_the_policy(task: Halfway, tmp_path: Path, lora: Lora | None) -> None:
    asked = {"rollout": "vllm", "vllm": {"options": OPTIONS}, **LEARNING, "lora": lora and lora.model_dump()}
    run_grpo(task.grpo(tmp_path / "run", **asked))
    assert_followed(tmp_path / "run")
    assert not (tmp_path / "run" / "rollouts").exists()


def assert_followed(out: Path) -> list[dict[str, Any]]:
    log = [event for event in events(out) if "loss" in event]
    differences = [event["sampler_difference_max"] for event in log]
    print(f"\n{out.name}: at most {max(differences):.1e} off; {[round(event['reward_answer'], 2) for event in log]} right")
    assert len(log) == 6 and max(differences) < 1e-3
    assert all(event["importance_min"] <= event["importance"] <= event["importance_max"] < 1.001 for event in log)
    assert min(event["importance_min"] for event in log) > 0.999 and max(event["grad_norm"] for event in log) > 0
    return log


def test_a_server_follows_the_policy_and_one_with_old_weights_is_noticed(
    server: Running, task: Halfway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_server = {"rollout": "vllm", "vllm": {"server": server.url, "weights": tmp_path / "memory"}, **LEARNING}
    for name, lora in (("full", None), ("lora", LORA.model_dump())):
        run_grpo(task.grpo(tmp_path / name, **by_server, lora=lora))
        assert_followed(tmp_path / name)
    assert not list((tmp_path / "memory").iterdir())
    # What the checks see where new weights do not arrive: of each step here, and what stops the run where it is much.
    taken: list[str] = []

    def once(kind: str) -> Any:
        plain = getattr(Server, kind)

        def take(self: Server, folder: Path) -> None:
            taken.append(kind)
            if taken.count(kind) == 1:
                plain(self, folder)

        return take

    for kind, lora in (("take_adapter", LORA.model_dump()), ("take_weights", None)):
        with monkeypatch.context() as patch:
            patch.setattr(figures, "_TWO_MODELS", math.inf)
            patch.setattr(Server, kind, once(kind))
            run_grpo(task.grpo(tmp_path / kind, **by_server, lora=lora))
        assert max(event["sampler_difference_max"] for event in events(tmp_path / kind) if "loss" in event) > 1e-2
    with monkeypatch.context() as patch:
        patch.setattr(Server, "take_weights", lambda self, folder: None)
        with pytest.raises(RecipeError, match=r"step \d: vLLM's log-probabilities differ from this model's by"):
            run_grpo(task.grpo(tmp_path / "old", **by_server | {"lr": 0.1}))


def test_a_server_killed_in_a_rollout_is_reported_and_the_run_goes_on(
    server: Running, task: Halfway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"rollout": "vllm", "vllm": {"server": server.url}, "checkpoint_every": 1, **LEARNING}
    run_grpo(task.grpo(tmp_path / "whole", **asked))
    call, lock, asked_for = Server._call, Lock(), 0

    def watched(self: Server, method: str, path: str, *more: Any) -> Any:
        nonlocal asked_for
        with lock:
            asked_for += path == "/inference/v1/generate"
            if asked_for == 2 * 6 + 3 and server.process.poll() is None:  # the third group of the third step
                server.kill()
        return call(self, method, path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Server, "_call", watched)
        with pytest.raises(EngineError, match="does not answer") as raised:
            run_grpo(task.grpo(tmp_path / "killed", **asked))
    said = str(raised.value)
    assert "\n" not in said and server.url in said and "vllm serve" in said and "goes on from the last checkpoint" in said
    assert len([event for event in events(tmp_path / "killed") if "loss" in event]) == 2
    with pytest.raises(EngineError, match="does not answer"):
        run_grpo(task.grpo(tmp_path / "killed", **asked))
    server.start()
    run_grpo(task.grpo(tmp_path / "killed", **asked))
    one, two = ([e for e in events(tmp_path / name) if "loss" in e] for name in ("whole", "killed"))
    assert [event["passed"] for event in two] == [event["passed"] for event in one]
    assert [event["loss"] for event in two] == pytest.approx([event["loss"] for event in one], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("place", ["server", "here"])
def test_two_processes_learn_what_one_does(server: Running, task: Halfway, tmp_path: Path, place: str) -> None:
    vllm = {"server": server.url} if place == "server" else {"options": OPTIONS}
    for processes in (1, 2):
        settings = task.grpo(tmp_path / str(processes), rollout="vllm", vllm=vllm, **LEARNING).model_dump(mode="json")
        code = (
            "import json, sys; from more_r1.training.grpo import GrpoRecipe, run_grpo; "
            "run_grpo(GrpoRecipe.model_validate(json.loads(sys.argv[1])))"
        )
        started = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        for rank in range(processes):
            ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            ranks |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
            environment = {**os.environ, **(ranks if processes > 1 else {})}
            started.append(subprocess.Popen([sys.executable, "-c", code, json.dumps(settings)], env=environment))
        assert [process.wait(600) for process in started] == [0] * processes
    one, two = (assert_followed(tmp_path / name) for name in ("1", "2"))
    assert [sorted(event["passed"]) for event in two] == [sorted(event["passed"]) for event in one]
    assert [event["loss"] for event in two] == pytest.approx([event["loss"] for event in one], rel=1e-4, abs=1e-6)
    assert mean(event["reward_answer"] for event in two) == pytest.approx(mean(event["reward_answer"] for event in one))


def test_what_does_not_fit_costs_one_line(server: Running, task: Halfway, halfway: Halfway, tmp_path: Path) -> None:
    at = {"rollout": "vllm", "vllm": {"server": server.url}}
    with pytest.raises(EngineError, match="a head that is tied to the embedding") as raised:
        run_grpo(halfway.grpo(tmp_path / "tied", **at))
    assert "\n" not in str(raised.value)
    with pytest.raises(EngineError, match=r"has no room for adapters of rank 64; start it as .*vllm serve"):
        run_grpo(task.grpo(tmp_path / "rank", **at, lora={"rank": 64}))
    machine = Server(server.url, load_manner(task.model), LORA, True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "adapter_model.safetensors").write_bytes(b"nothing")
    for take in (machine.take_adapter, machine.take_weights):  # of the latter vLLM dies
        with pytest.raises(EngineError, match=f"; it must see {tmp_path / 'empty'}") as raised:
            take(tmp_path / "empty")
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "tied").exists()


def test_an_engine_that_dies_is_reported(here: VllmRollouts, prompts: list[Prompt]) -> None:
    """In the midst of a rollout, and before one. Comes last: the other tests share it."""
    children = psutil.Process().children(recursive=True)
    engine = next(child for child in children if "EngineCore" in child.name() or "EngineCore" in " ".join(child.cmdline()))
    Timer(0.5, engine.kill).start()
    for _ in range(2):
        with pytest.raises(EngineError, match="goes on from the last checkpoint") as raised:
            while True:
                draw(here, prompts, Sampling())
        assert "\n" not in str(raised.value)
