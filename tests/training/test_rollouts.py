"""Stage 2 with rollouts from elsewhere, by a stand-in for vLLM that is given weights and says what was drawn before.

vLLM itself is asked by tests/vllm_engine (`make test-vllm`).
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from halves import Halfway, events

import more_r1.training.rollouts as rollouts
import more_r1.training.update as update
from more_r1.models.engine import EngineError
from more_r1.models.forest import Forest, logprobs
from more_r1.models.load import load_backbone
from more_r1.models.lora import Lora
from more_r1.models.sampling import Rollout
from more_r1.models.vllm.prompt import VllmPrompt
from more_r1.models.vllm.rollouts import Drawn
from more_r1.reasoning.prompt import Prompt
from more_r1.training.grpo import GrpoRecipe, run_grpo
from more_r1.training.learner import Learned
from more_r1.training.recipe import RecipeError, load_recipe
from more_r1.training.rollouts import VllmRecipe

Step = tuple[list[Prompt], list[list[Rollout]]]
LORA = {"rank": 4, "alpha": 8.0}
ADDRESSES = ("http://user:hunter2@host", "host", "ftp://host", "'http://[::1'", "http://host:port", "http://", "http://a b")


class Replay:
    """A machine that draws what a run drew before, step by step, and checks that it was given the weights that drew it."""

    room = 4096

    def __init__(self, steps: Sequence[Step], off: float) -> None:
        self.steps, self.off = iter(steps), off
        self.seeds: list[int] = []
        self.given: list[Path] = []
        self.closed = False

    def complete(
        self, prompts: Sequence[VllmPrompt], params: Sequence[Mapping[str, Any]]
    ) -> list[tuple[list[int], list[Drawn]]]:
        asked, groups = next(self.steps)
        self.seeds += [each["seed"] for each in params]
        assert [each["n"] for each in params] == [len(group) for group in groups]
        if self.given[-1].joinpath("config.json").exists():
            mine = load_backbone(self.given[-1], device="cpu")
            pairs = [(mine.encoder.prompt(p), one.ids) for p, group in zip(asked, groups, strict=True) for one in group]
            with torch.no_grad():
                found = logprobs(mine.model, Forest.build(pairs, mine.encoder), temperature=params[0]["temperature"])
            said = [one.logprobs for group in groups for one in group]
            for own, other in zip(found, said, strict=True):
                assert own.tolist() == pytest.approx(other, abs=1e-4), "the weights are those that draw now"
        drawn = [[self.drawn(one) for one in group] for group in groups]
        return [(list(prompt.ids), group) for prompt, group in zip(prompts, drawn, strict=True)]

    def drawn(self, one: Rollout) -> Drawn:
        return Drawn(one.ids, tuple(p + self.off for p in one.logprobs), "stop" if one.ended else "length")

    def take_weights(self, folder: Path) -> None:
        assert (folder / "config.json").is_file()
        self.given.append(folder)

    def take_adapter(self, folder: Path) -> None:
        assert (folder / "adapter_model.safetensors").is_file()
        self.given.append(folder)

    def close(self) -> None:
        self.closed = True


Replayed = Callable[..., tuple[Learned, Replay]]


@pytest.fixture
def local(halfway: Halfway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Learned, list[Step]]]:
    """A run that draws by itself, and what it drew."""

    def run(**settings: Any) -> tuple[Learned, list[Step]]:
        drawn: list[Step] = []
        plain = update.sample

        def sample(backbone: Any, prompts: Any, *more: Any) -> Any:
            drawn.append((list(prompts), plain(backbone, prompts, *more)))
            return drawn[-1][1]

        with monkeypatch.context() as patch:
            patch.setattr(update, "sample", sample)
            return run_grpo(halfway.grpo(tmp_path / "local", **settings)), drawn

    return run


@pytest.fixture
def elsewhere(halfway: Halfway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replayed:
    """The same run with the same draws from elsewhere."""

    def run(steps: Sequence[Step], off: float = 0.0, **settings: Any) -> tuple[Learned, Replay]:
        machine = Replay(steps, off)
        monkeypatch.setattr(rollouts, "Here", lambda manner, lora, gpu, options: machine)
        try:
            return run_grpo(halfway.grpo(tmp_path / "elsewhere", rollout="vllm", **settings)), machine
        finally:
            assert machine.closed and not (tmp_path / "elsewhere" / "rollouts").exists()

    return run


@pytest.mark.parametrize("forest", ["packed", "recursive"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_draws_from_elsewhere_teach_what_own_ones_do(
    local: Callable[..., tuple[Learned, list[Step]]], elsewhere: Replayed, lora: dict[str, Any] | None, forest: str
) -> None:
    settings = {"lora": lora, "forest": forest, "beta": 0.01, "passes": 2, "epochs": 1, "lr": 1e-3}
    first, drawn = local(**settings)
    second, machine = elsewhere(drawn, **settings)
    assert len(machine.given) == len(drawn) == 3 and len(set(machine.seeds)) == len(machine.seeds)
    for mine, theirs in zip(events(first.out), events(second.out), strict=True):
        numbers = {name: value for name, value in mine.items() if isinstance(value, float)}
        assert {name: theirs[name] for name in numbers} == pytest.approx(numbers, rel=1e-4, abs=1e-6)
        assert theirs.get("passed") == mine.get("passed")
        if "loss" in mine:
            assert theirs["sampler_difference_max"] < 1e-4
            assert theirs["importance_min"] == pytest.approx(1, abs=1e-3) == theirs["importance_max"]


@pytest.mark.parametrize(("how", "weight"), [("token_truncate", 1.05), ("token_mask", 0.0), ("none", 1.0)])
def test_draws_that_are_off_are_weighted(
    local: Callable[..., tuple[Learned, list[Step]]], elsewhere: Replayed, how: str, weight: float
) -> None:
    settings = {"epochs": 1, "batch_pairs": 18}
    first, drawn = local(**settings)
    # Each token is said to have been less likely than it was.
    second, _ = elsewhere(drawn, -0.1, importance=how, most_importance=1.05, **settings)
    (one,), (two,) = ([event for event in events(done.out) if "loss" in event] for done in (first, second))
    assert two["sampler_difference"] == pytest.approx(0.1, abs=1e-3)
    assert (two["importance_min"], two["importance_max"]) == pytest.approx((weight, weight))
    assert two["grad_norm"] == pytest.approx(weight * one["grad_norm"], rel=1e-3)


def test_draws_of_another_model_stop_the_run(local: Callable[..., tuple[Learned, list[Step]]], elsewhere: Replayed) -> None:
    _, drawn = local(epochs=1)
    with pytest.raises(RecipeError, match=r"elsewhere: step \d: vLLM's log-prob.* differ from this model's by 0\.5 on"):
        elsewhere(drawn, 0.5, epochs=1)


def test_a_run_may_go_on_with_rollouts_from_elsewhere(
    halfway: Halfway, local: Callable[..., tuple[Learned, list[Step]]], elsewhere: Replayed, tmp_path: Path
) -> None:
    """Who draws is no part of what a run is: it goes on where a server is not to be had."""
    settings = {"checkpoint_every": 1, "batch_pairs": 3}
    whole, drawn = local(**settings)
    with pytest.raises(StopIteration):
        elsewhere(drawn[:4], **settings)
    done = run_grpo(halfway.grpo(tmp_path / "elsewhere", **settings))
    assert [event["passed"] for event in events(done.out) if "passed" in event] == [
        event["passed"] for event in events(whole.out) if "passed" in event
    ]


def test_prompts_that_are_read_otherwise_stop_the_run(
    local: Callable[..., tuple[Learned, list[Step]]], elsewhere: Replayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, drawn = local(epochs=1)
    plain = Replay.complete
    monkeypatch.setattr(Replay, "complete", lambda *given: [([1, *ids], said) for ids, said in plain(*given)])
    with pytest.raises(EngineError, match="reads a prompt as other tokens than ours"):
        elsewhere(drawn, epochs=1)
    monkeypatch.setattr(Replay, "room", 50)
    with pytest.raises(EngineError, match="max_new_tokens=8 are above the 50 tokens that vLLM was started with"):
        elsewhere(drawn, epochs=1)


def test_rollouts_that_were_not_finished_stop_the_run(
    local: Callable[..., tuple[Learned, list[Step]]], elsewhere: Replayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As vLLM says of what it was drawing when it was paused, or ended kindly."""
    _, drawn = local(epochs=1)
    for ids in ((), (5,)):
        monkeypatch.setattr(Replay, "drawn", lambda self, one, ids=ids: Drawn(ids, (-1.0,) * len(ids), "abort"))
        with pytest.raises(EngineError, match=r"has not finished its rollouts \(abort\)"):
            elsewhere(drawn, epochs=1)


def test_weights_of_ones_own_folder_leave_all_else_alone(
    local: Callable[..., tuple[Learned, list[Step]]], elsewhere: Replayed, tmp_path: Path
) -> None:
    place = tmp_path / "mine"
    (place / "rollouts").mkdir(parents=True)
    (place / "rollouts" / "thesis.txt").write_text("years of work")
    _, drawn = local(epochs=1)
    _, machine = elsewhere(drawn, epochs=1, vllm={"weights": place})
    assert {folder.parent for folder in machine.given} == {place}
    assert [file.name for file in place.rglob("*")] == ["rollouts", "thesis.txt"]


def test_recipes_say_who_draws(tmp_path: Path) -> None:
    where = "model: tiny\ndata: d\ndifficulty: f\nout: o\n"
    file = tmp_path / "grpo.yaml"
    file.write_text(where)
    assert load_recipe(file, [], GrpoRecipe).rollout == "local"
    told = load_recipe(file, ["rollout=vllm", "vllm.server=http://localhost:8000", "importance=none"], GrpoRecipe)
    assert told.vllm == VllmRecipe(server="http://localhost:8000") and told.importance == "none"
    assert GrpoRecipe.model_validate(json.loads(told.model_dump_json())) == told
    for overrides, said in (
        (["rollout=vlm"], "rollout: Input should be 'local' or 'vllm'"),
        (["rollout=vllm", "vllm.sever=x"], "did you mean vllm.server"),
        (["vllm.server=http://localhost:8000"], r"vllm\.\* are of rollout=vllm"),
        (["rollout=vllm", "sampling.top_p=0.9"], r"rollout=vllm needs sampling\.top_p=1"),
        (["rollout=vllm", "most_importance=.inf"], "most_importance"),
        (["rollout=vllm", "vllm.options={logprobs_mode: raw_logprobs}"], "logprobs_mode follow from the rest"),
        *(
            (
                ["rollout=vllm", f"vllm.options={{gpu_memory_utilization: {share}}}"],
                "gpu_memory_utilization is a share of the GPU",
            )
            for share in (0, 1.1, ".nan", "much")
        ),
        (
            ["rollout=vllm", "vllm.server=http://localhost", "vllm.options={seed: 1}"],
            r"vllm\.options are of a vLLM that is started here",
        ),
        *((["rollout=vllm", f"vllm.server={bad}"], "no plain address") for bad in ADDRESSES),
    ):
        with pytest.raises(RecipeError, match=said) as raised:
            load_recipe(file, overrides, GrpoRecipe)
        assert "\n" not in str(raised.value) and "hunter2" not in str(raised.value)


def test_vllm_that_is_not_installed_costs_one_line(halfway: Halfway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(EngineError, match=r"pip install -e '\.\[vllm\]'"):
        run_grpo(halfway.grpo(tmp_path / "run", rollout="vllm"))
    with pytest.raises(EngineError, match=r"lora\.rank=1000 is above the 512"):
        run_grpo(halfway.grpo(tmp_path / "run", rollout="vllm", lora=Lora(rank=1000).model_dump()))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def stranger() -> Iterator[tuple[str, dict[str, tuple[int, str]]]]:
    """A server of something else: its address, and what it says to paths."""
    said: dict[str, tuple[int, str]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = said.get(self.path, (404, "{}"))
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", said
    server.shutdown()
    server.server_close()


def test_a_server_that_is_not_as_it_must_be_costs_one_line(
    halfway: Halfway, tmp_path: Path, stranger: tuple[str, dict[str, tuple[int, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, said = stranger
    models = json.dumps({"data": [{"id": "m", "parent": None, "max_model_len": 4096}]})

    def config(**settings: Any) -> tuple[int, str]:
        usual = {
            "model_config": {"logprobs_mode": "processed_logprobs"},
            "lora_config": None,
            "device_config": {"device": "cuda"},
        }
        return 200, json.dumps({"vllm_config": usual | settings})

    info = "/server_info?config_format=json"
    start = r"; start it as VLLM_SERVER_DEV_MODE=1 .*vllm serve .*--logprobs-mode processed_logprobs"
    for answers, lora, message in (
        ({}, None, f"does not know /v1/models .*{start}"),
        ({"/v1/models": (200, "<html>")}, None, f"answers no JSON at /v1/models{start}"),
        ({"/v1/models": (200, "[]")}, None, f"does not answer as vLLM 0.32 does{start}"),
        ({"/v1/models": (500, "sorry\nsorry")}, None, "/v1/models fails .500: sorry sorry"),
        ({"/v1/models": (200, models)}, None, f"does not know /server_info.*{start}"),
        ({info: config(model_config={"logprobs_mode": "raw_logprobs"})}, None, f"by which it does not draw{start}"),
        ({info: config()}, LORA, f"has no room for adapters of rank 4{start}.*--enable-lora --max-lora-rank 8"),
        ({info: config(device_config={"device": "cpu"})}, None, "a head that is tied to the embedding"),
    ):
        said.clear()
        said.update({"/v1/models": (200, models), **answers} if answers else {})
        with pytest.raises(EngineError, match=message) as raised:
            run_grpo(halfway.grpo(tmp_path / "run", rollout="vllm", vllm={"server": url}, lora=lora))
        assert url in str(raised.value) or "tied" in message
        assert "\n" not in str(raised.value)
    monkeypatch.setenv("VLLM_API_KEY", "sk-hunter2\n")
    said.clear()
    said["/v1/models"] = (401, "no such key: sk-hunter2")
    for address, message in (
        (url, "/v1/models fails .401: no such key: \\.\\.\\."),
        ("http://127.0.0.1:9", "does not answer .*vllm serve"),
    ):
        with pytest.raises(EngineError, match=message) as raised:
            run_grpo(halfway.grpo(tmp_path / "run", rollout="vllm", vllm={"server": address}))
        assert "hunter2" not in str(raised.value) and "\n" not in str(raised.value)
    monkeypatch.setenv("VLLM_API_KEY", "schlüssel")
    with pytest.raises(EngineError, match="VLLM_API_KEY: has other characters"):
        run_grpo(halfway.grpo(tmp_path / "run", rollout="vllm", vllm={"server": url}))
    assert not (tmp_path / "run").exists()
