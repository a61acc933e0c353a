"""Several processes, each with its part of every batch, learn what one learns alone, and go on after a kill."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import stage2
import yaml
from halves import FORM, WORDS, Halfway
from processes import assert_learned_the_same, environments, finish, joined, kill, launch, log

from more_r1.models.load import save_backbone
from more_r1.models.tiny import build_tiny
from more_r1.pipeline import TrainRecipe, train
from more_r1.training.recipe import RecipeError


def test_two_learn_what_one_learns(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    # The completions are ragged: the mean over tokens is not the mean of the two processes' means.
    finish(alone, 1)
    kill(together, 2)
    finish(together, 2)
    assert_learned_the_same(alone, together)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_the_number_of_whole_models_may_change_on_the_way(tmp_path: Path, before: int, after: int) -> None:
    alone, changed = tmp_path / "alone", tmp_path / "changed"
    finish(alone, 1)
    kill(changed, before)
    finish(changed, after)
    assert_learned_the_same(alone, changed)


def test_a_process_without_a_part_of_the_batch_changes_nothing(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    for out, processes in ((alone, 1), (together, 3)):
        finish(out, processes, batch_pairs=2, epochs=1)
    # The idle process computes another's example for nothing, and the log says that it does.
    assert_learned_the_same(alone, together, but=("seconds", "tokens", "repeated_tokens"))


@pytest.mark.parametrize("beta", [0.0, 0.02])
@pytest.mark.parametrize(("forest", "pairs"), [("packed", 17), ("recursive", 4)])
def test_two_draw_and_learn_what_one_does(halfway: Halfway, tmp_path: Path, forest: str, pairs: int, beta: float) -> None:
    """Of 17 pairs and one, a process has none in the second step; of four each, one at times has two of equal rewards."""
    alone, together = tmp_path / "alone", tmp_path / "together"
    size = 4
    for out, processes in ((alone, 1), (together, 2)):
        # The loss of a first pass is next to nothing, that of a second is not.
        given: dict[str, Any] = {"batch_pairs": pairs, "group": size, "passes": 2, "sampling": {}, "epochs": 1}
        given |= {"average": "sequence" if forest == "packed" else "token"}
        recipe = halfway.grpo(out, forest=forest, beta=beta, chunk_tokens=400, **given)
        joined(launch(stage2.child, processes, recipe.model_dump(mode="json")))
    one, two = log(alone), log(together)
    rollouts = [[(event.get("passed"), event.get("sample")) for event in events] for events in (one, two)]
    assert rollouts[0] == rollouts[1]
    steps = [event["passed"] for event in one if "loss" in event]
    parts = [part for passed in steps for part in (passed[: len(passed) // 2], passed[len(passed) // 2 :])]
    taught = [sum(0 < right < size for _, right in part) for part in parts]
    assert 0 in taught and max(taught) > 1
    assert all(abs(event["loss"]) > 1e-4 for event in one if "loss" in event)
    assert_learned_the_same(alone, together, but=("seconds", "tokens", "passed", "sample"))


def test_of_two_processes_the_first_speaks_and_says_how_many_there_are(halfway: Halfway, tmp_path: Path) -> None:
    given = {"model": str(halfway.model), "data": str(halfway.data), "out": str(tmp_path / "run"), "threads": 1}
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump({**given, "epochs": 1, "valid_pairs": 2, "max_new_tokens": 8}))
    command = [sys.executable, "-m", "more_r1", "sft", str(tmp_path / "sft.yaml")]
    places = [os.environ | environment for environment in environments(2)]
    started = [subprocess.Popen(command, env=place, stdout=subprocess.PIPE, text=True) for place in places]
    first, second = (process.communicate(timeout=120)[0] for process in started)
    assert "2 processes, ddp" in first and first.count("best at step") == 1
    assert second == ""


def annotated(settings: dict[str, Any], environment: dict[str, str]) -> None:
    """The traces of a pipeline alone; why they cannot be written is left beside them."""
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    recipe = TrainRecipe.model_validate(settings)
    try:
        train(recipe, lambda _: nullcontext(lambda *_: None), until="annotate")
    except RecipeError as error:
        recipe.out.with_suffix(".refused").write_text(str(error))
        raise SystemExit(1) from error


def test_who_teaches_itself_does_so_in_one_process_and_several_go_on_from_there(halfway: Halfway, tmp_path: Path) -> None:
    save_backbone(build_tiny(WORDS, 0, FORM), tmp_path / "model")
    expert = {"kind": "self_taught", "rounds": 1, "tries": 1, "max_new_tokens": 4, "model": str(tmp_path / "model")}
    given = {"out": str(tmp_path / "run"), "data": str(halfway.data), "model": str(tmp_path / "model"), "threads": 1}
    settings = {**given, "sft": {"share": 0.1}, "difficulty": {}, "grpo": {}, "annotate": {"expert": expert}}
    several = launch(annotated, 2, settings)
    several[0].join(120)
    for process in several:
        process.kill()  # as the launcher does with the others, once one has failed
    assert several[0].exitcode == 1
    assert (tmp_path / "run.refused").read_text().startswith("expert.kind=self_taught trains in one process")
    joined(launch(annotated, 1, settings))
    traces = tmp_path / "run" / "annotate" / "traces.jsonl"
    written = traces.read_bytes()
    assert written
    joined(launch(annotated, 2, settings))
    assert traces.read_bytes() == written
