"""Engines besides the model in this process: whoever asks does not care, and what an engine cannot do stops a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from more_r1 import cli
from more_r1.document import Document
from more_r1.extraction.archive import Worker
from more_r1.extraction.extract import extract
from more_r1.extraction.job import Job
from more_r1.extraction.proposers import entity_proposer, object_proposer
from more_r1.formats import load_documents
from more_r1.models.engine import EngineError
from more_r1.models.generate import generate
from more_r1.models.labels import label_scores
from more_r1.models.load import Backbone, save_backbone
from more_r1.models.manner import load_manner
from more_r1.models.sampling import Sampling
from more_r1.models.vllm.start import start_vllm
from more_r1.reasoning.prompt import Prompt
from more_r1.schema import Schema


class Elsewhere:
    """An engine that asks a model of this process, and remembers what it was asked."""

    def __init__(self, backbone: Backbone, broken: bool = False) -> None:
        self.backbone, self.broken = backbone, broken
        self.encoder, self.form, self.temperature = backbone.encoder, backbone.form, backbone.temperature
        self.schema = backbone.schema
        self.asked: list[str] = []

    def generate(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        progress: Callable[[int], None] | None = None,
        keep_form: Schema | None = None,
        *,
        types: bool = False,
        sampling: Sampling | None = None,
        seeds: Sequence[int] = (),
    ) -> list[str]:
        if self.broken:
            raise EngineError("it has died; start it again")
        self.asked.append("generate" if sampling is None else "sample")
        how = {"types": types, "sampling": sampling, "seeds": seeds}
        return generate(self.backbone, prompts, max_new_tokens, progress, keep_form, **how)

    def label_scores(
        self, prompts: Sequence[Prompt], completions: Sequence[str], schema: Schema
    ) -> list[tuple[float, ...] | None]:
        self.asked.append("scores")
        return label_scores(self.backbone, prompts, completions, schema)


@pytest.fixture(scope="module")
def documents(benchmark_dir: Path) -> list[Document]:
    return load_documents(benchmark_dir, "test")[:2]


def test_an_engine_answers_as_the_model_does(random_tiny: Backbone, documents: list[Document]) -> None:
    engine = Elsewhere(random_tiny)
    how = {"types": True, "joint": True, "samples": 2, "min_confidence": 0.1, "max_new_tokens": 100}
    assert list(extract(engine, documents, **how)) == list(extract(random_tiny, documents, **how))
    assert engine.asked == ["generate", "scores", "sample"]


def test_proposers_ask_the_engine(random_tiny: Backbone, documents: list[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    from more_r1.extraction.proposers import lvlm

    monkeypatch.setattr(lvlm, "MAX_NEW_TOKENS", 4)
    engine = Elsewhere(random_tiny)
    for proposer in (entity_proposer("lvlm", engine), object_proposer("lvlm", engine)):
        proposer(documents[0])
    assert engine.asked == ["generate", "generate"]


def test_a_dead_engine_stops_an_archive_and_leaves_no_record_out(random_tiny: Backbone, documents: list[Document]) -> None:
    engine = Elsewhere(random_tiny, broken=True)
    with pytest.raises(EngineError, match="start it again"):
        Worker(lambda document: document, lambda few: extract(engine, few))(documents)


def test_vllm_that_is_not_installed_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], benchmark_dir: Path
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setattr("sys.argv", ["more-r1", "extract", str(benchmark_dir), "--split", "test", "--engine", "vllm"])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    said = capsys.readouterr().err
    assert exit.value.code == 1 and len(said.splitlines()) == 1
    assert "vLLM is missing" in said and "pip install -e '.[vllm]' (docs/rollouts.md)" in said


@pytest.mark.parametrize("starts", [True, False])
def test_vllm_takes_no_part_in_a_run_of_several_processes(
    random_tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts: bool
) -> None:
    """It would wait for processes that are not its own."""
    launched = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    launched |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9", "TORCHELASTIC_USE_AGENT_STORE": "True", "ROLE_NAME": "x"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    seen: dict[str, str] = {}

    def start(*_: Any, **__: Any) -> Any:
        seen.update(os.environ)
        if not starts:
            raise RuntimeError("no room")
        return SimpleNamespace(llm_engine=SimpleNamespace(engine_core=SimpleNamespace(shutdown=lambda: None)))

    platform = SimpleNamespace(is_cpu=lambda: True)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=start))
    monkeypatch.setitem(sys.modules, "vllm.platforms", SimpleNamespace(current_platform=platform))
    save_backbone(random_tiny, tmp_path / "model")
    manner = load_manner(str(tmp_path / "model"))
    if starts:
        start_vllm(manner, {}).close()
    else:
        with pytest.raises(EngineError, match="no room"):
            start_vllm(manner, {})
    assert "PATH" in seen and not seen.keys() & launched.keys()
    assert launched.items() <= os.environ.items()


def test_a_cluster_computes_by_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], benchmark_dir: Path
) -> None:
    given = [str(benchmark_dir), "--split", "test", "--engine", "vllm", "--ray", "local", "--out", "out.jsonl"]
    monkeypatch.setattr("sys.argv", ["more-r1", "extract", *given])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    assert exit.value.code == 2 and "--engine local" in capsys.readouterr().err


def test_runs_of_two_engines_are_not_mixed(benchmark_dir: Path) -> None:
    jobs = [Job(source=benchmark_dir, split="test", engine=engine) for engine in ("local", "vllm")]
    ours, theirs = (job.identity(job.open()) for job in jobs)
    assert {key for key in ours if ours[key] != theirs[key]} == {"engine"}
