"""Measuring difficulty: who is asked, what is written, and that a kill costs nothing but a chunk."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import socket
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import pytest
from halves import read_pools
from typer.testing import CliRunner

from more_r1.cli import app
from more_r1.formats import load_documents
from more_r1.models.load import load_backbone
from more_r1.models.predict import predict
from more_r1.schema import Schema
from more_r1.training import difficulty as module
from more_r1.training.difficulty import Difficulty, DifficultyRecipe, run_difficulty
from more_r1.training.examples import draw
from more_r1.training.measured import Measured, read_difficulty, read_figures
from more_r1.training.recipe import RecipeError
from more_r1.training.samples import read_samples

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["more_r1.training.difficulty"])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One document each."""
    monkeypatch.setattr(module, "CHUNK", 1)


def recipe(data: Path, out: Path, **settings: Any) -> DifficultyRecipe:
    """The shipped model on twelve pairs: it knows the world, so that some answers are right and some wrong."""
    defaults = {"model": "tiny", "limit": 12, "max_new_tokens": 220, "threads": 1}
    return DifficultyRecipe.model_validate({"data": data, "out": out, **defaults, **settings})


def contents(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir()}


def asked(monkeypatch: pytest.MonkeyPatch, fail_at: int = 1000) -> list[int]:
    """How many prompts each call of the model was given; the call `fail_at` dies."""
    calls: list[int] = []
    real = module.generate

    def counting(backbone: Any, prompts: Sequence[Any], *rest: Any) -> list[str]:
        if len(calls) + 1 == fail_at:
            raise KeyboardInterrupt
        calls.append(len(prompts))
        return real(backbone, prompts, *rest)

    monkeypatch.setattr(module, "generate", counting)
    return calls


@pytest.fixture(scope="module")
def whole(benchmark_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run that nobody disturbed has written."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", 1)
        run_difficulty(recipe(benchmark_dir, out))
    return out


def test_all_that_stage_1_left_is_asked_in_the_order_of_the_files(
    benchmark_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 25)
    told: list[tuple[int, int]] = []
    # So short that some answers are cut off: the model has been trained on these pairs, and is right on all else.
    brief = 140
    figures = run_difficulty(
        recipe(benchmark_dir, tmp_path, limit=None, max_new_tokens=brief), lambda *counts: told.append(counts)
    )
    documents = load_documents(benchmark_dir, "train")
    answers = [one for chunk in predict(load_backbone("tiny"), documents, Schema.more(), brief) for one in chunk]
    drawn = draw([one.gold or "" for one in answers], 0.25, 0)
    pool = [one for index, one in enumerate(answers) if index not in drawn]
    measured = read_difficulty(tmp_path)
    assert [(one.document, one.object, one.span, one.label) for one in measured] == [
        (one.document, one.object, one.span, one.gold) for one in pool
    ]
    assert [one.predicted for one in measured] == [(one.predicted,) for one in pool]
    right = [one.predicted == one.gold for one in pool]
    assert 0 < sum(right) < len(pool)
    assert (figures.easy, figures.hard) == (sum(right), len(pool) - sum(right)) == tuple(reversed(figures.passed))
    nones = [good for good, one in zip(right, pool, strict=True) if one.gold == "none"]
    assert figures.labels["none"] == (sum(nones), len(nones) - sum(nones))
    assert figures == read_figures(tmp_path)
    assert tuple(map(len, read_pools(tmp_path))) == (figures.easy, figures.hard)
    assert set(contents(tmp_path)) == {"difficulty.jsonl", "difficulty.json"}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (len(pool), len(pool)) and len(told) > 3


def test_lines_say_how_often_the_model_was_right(whole: Path) -> None:
    first, _ = (whole / "difficulty.jsonl").read_text().split("\n", 1)
    pattern = r'\{"document":"[^"]+","object":"[^"]+","span":\[\d+,\d+\],"label":"[^"]+","predicted":\["[^"]+"\],'
    assert re.fullmatch(pattern + r'"passed":[01],"asked":1\}', first)


def test_a_killed_run_ends_with_the_same_bytes(
    benchmark_dir: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = asked(monkeypatch, fail_at=4)
    with pytest.raises(KeyboardInterrupt):
        run_difficulty(recipe(benchmark_dir, tmp_path / "killed"))
    monkeypatch.undo()
    monkeypatch.setattr(module, "CHUNK", 1)
    assert set(contents(tmp_path / "killed")) == {"difficulty.part"}
    with pytest.raises(RecipeError, match="not all pairs have been asked"):
        read_difficulty(tmp_path / "killed")
    part = (tmp_path / "killed" / "difficulty.part").read_bytes()
    written, first = sum(calls), len(part.split(b"\n")[0]) + 1
    assert part.count(b"\n") == written + 1
    random = Random(7)
    for number, size in enumerate([first - 1, len(part), *(random.randrange(first, len(part)) for _ in range(2))]):
        out = tmp_path / str(number)
        out.mkdir()
        (out / "difficulty.part").write_bytes(part[:size])
        again = asked(monkeypatch)
        run_difficulty(recipe(benchmark_dir, out))
        monkeypatch.undo()
        monkeypatch.setattr(module, "CHUNK", 1)
        kept = 12 - sum(again)
        lines = part[:size].count(b"\n") - 1
        # Chunks that were written whole are not asked again.
        assert kept == max(done for done in (0, *accumulate(calls)) if done <= max(lines, 0))
        assert contents(out) == contents(whole)


def test_a_finished_run_asks_nothing_and_takes_another_threshold(
    benchmark_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"samples": 3, "limit": 6}
    first = run_difficulty(recipe(benchmark_dir, tmp_path, **settings))
    before = contents(tmp_path)
    monkeypatch.setattr(module, "sample", None)
    assert run_difficulty(recipe(benchmark_dir, tmp_path, **settings)) == first
    assert contents(tmp_path) == before
    strict = run_difficulty(recipe(benchmark_dir, tmp_path, threshold=1, **settings))
    assert strict.passed == first.passed and sum(first.passed) == 6 and len(first.passed) == 4
    assert strict.easy == first.passed[3] and first.easy == first.passed[2] + first.passed[3]
    assert len(read_pools(tmp_path)[0]) == strict.easy
    assert contents(tmp_path)["difficulty.jsonl"] == before["difficulty.jsonl"]


def test_drawn_answers_do_not_depend_on_what_is_asked_together(
    benchmark_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"samples": 4, "limit": 5, "sampling": {"temperature": 1.5}}  # the model is seldom in doubt
    run_difficulty(recipe(benchmark_dir, tmp_path / "few", seed=2, **settings))
    monkeypatch.setattr(module, "CHUNK", 1000)
    run_difficulty(recipe(benchmark_dir, tmp_path / "many", seed=2, **settings))
    run_difficulty(recipe(benchmark_dir, tmp_path / "other", seed=1, **settings))
    few, many, other = (read_difficulty(tmp_path / name) for name in ("few", "many", "other"))
    assert few == many != other
    assert all(one.asked == 4 for one in few)
    assert any(len(set(one.predicted)) > 1 for one in few)  # draws of a pair differ


def test_limit_takes_whole_documents_and_less_is_a_part_of_more(benchmark_dir: Path) -> None:
    pools = [module._pool(recipe(benchmark_dir, Path("out"), limit=limit)) for limit in (7, 20, None, 10**6)]
    keys = [{one.key for one in pool} for pool in pools]
    assert [len(pool) for pool in pools[:2]] == [7, 20]
    assert keys[0] < keys[1] < keys[2] == keys[3]
    assert [one.key for one in pools[2] if one.key in keys[1]] == [one.key for one in pools[1]]
    sizes = [Counter(one.document.id for one in pool) for pool in pools]
    assert sum(count < sizes[2][name] for name, count in sizes[1].items()) <= 1
    # Stage 1 drew next to nothing here, so only the draw of documents can tell the seeds apart.
    first, other = (module._pool(recipe(benchmark_dir, Path("out"), limit=20, share=1e-9, draw_seed=n)) for n in (0, 1))
    assert {one.document.id for one in first} != {one.document.id for one in other}


def test_other_questions_do_not_go_into_the_same_folder(benchmark_dir: Path, whole: Path, tmp_path: Path) -> None:
    for settings in ({"max_new_tokens": 219}, {"samples": 1}, {"limit": 11}, {"form": {"coordinates": True}}):
        with pytest.raises(RecipeError, match=r"out: .*another model or to other questions"):
            run_difficulty(recipe(benchmark_dir, whole, **settings))
    part = tmp_path / "difficulty.part"
    part.write_text('{"fingerprint": "another"}\n')
    with pytest.raises(RecipeError, match="another model or to other questions"):
        run_difficulty(recipe(benchmark_dir, tmp_path))
    for text in ("[]\n", "x\n", "{}\n"):
        part.write_text(text)
        with pytest.raises(RecipeError, match=r"difficulty\.part:1: .*delete it"):
            run_difficulty(recipe(benchmark_dir, tmp_path))


def test_lines_that_were_taken_away_are_missed(benchmark_dir: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    lines = (tmp_path / "difficulty.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "difficulty.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(RecipeError, match=r"difficulty\.jsonl: pairs are missing"):
        run_difficulty(recipe(benchmark_dir, tmp_path))


def test_where_stage_1_took_all_none_is_left(benchmark_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"share=1: stage 1 has drawn all \d+ pairs"):
        run_difficulty(recipe(benchmark_dir, tmp_path / "out", share=1))
    assert not (tmp_path / "out").exists()


GOOD = Measured(document="a.png", object="o", span=(0, 1), label="none", predicted=("none", None)).model_dump_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"difficulty\.jsonl: cannot be read \(No such file"),
        ("", r"difficulty\.jsonl: has no pair"),
        (GOOD + "\n" + GOOD[:40] + "\n", r"difficulty\.jsonl:2: .*run `more-r1 difficulty` again"),
        ("\n", r"difficulty\.jsonl:1: "),
        (GOOD.replace('["none",null]', "[]"), r"difficulty\.jsonl:1: predicted "),
        (GOOD.replace("[0,1]", '"x"'), r"difficulty\.jsonl:1: span "),
        (GOOD + "\n" + GOOD + "\n", r"difficulty\.jsonl:2: the same pair as in line 1"),
        ("\udcff", r"difficulty\.jsonl:1: "),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "difficulty.jsonl"
    if text is not None:
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
    for path in (tmp_path, file):
        with pytest.raises(RecipeError, match=message) as raised:
            read_difficulty(path)
        assert "\n" not in str(raised.value)


def test_the_answers_are_what_counts(tmp_path: Path) -> None:
    """`passed` is written for others; a file that says something else in it does not fool us."""
    false = GOOD.replace('["none",null]', '["none",null,"none"]').replace('"passed":1', '"passed":3')
    (tmp_path / "difficulty.jsonl").write_text(false + "\n")
    [one] = read_difficulty(tmp_path)
    assert (one.passed, one.asked) == (2, 3)


FIGURES = '{"fingerprint": "f", "model": "m", "threshold": 0.5, "easy": 1, "hard": 0, "labels": {}, "passed": [0, 1]}'


def test_the_threshold_of_the_folder_splits_it(tmp_path: Path) -> None:
    (tmp_path / "difficulty.jsonl").write_text(GOOD + "\n")  # half of its answers are right
    for threshold, sizes in (("0.5", (1, 0)), ("0.51", (0, 1))):
        (tmp_path / "difficulty.json").write_text(FIGURES.replace("0.5", threshold))
        assert tuple(map(len, read_pools(tmp_path))) == sizes


@pytest.mark.parametrize("text", [None, "{}", "{", FIGURES.replace("0.5", "7"), FIGURES.replace("0.5", "NaN")])
def test_pools_need_the_threshold(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "difficulty.jsonl").write_text(GOOD + "\n")
    if text is not None:
        (tmp_path / "difficulty.json").write_text(text)
    with pytest.raises(RecipeError, match=r"difficulty\.json: "):
        read_pools(tmp_path)


def child(arguments: dict[str, Any], environment: dict[str, str]) -> None:
    """One of several processes, as `accelerate launch --cpu` starts them; silent."""
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    module.CHUNK = 1
    run_difficulty(DifficultyRecipe.model_validate(arguments))


def test_two_processes_write_what_one_writes(benchmark_dir: Path, whole: Path, tmp_path: Path) -> None:
    # One chunk of theirs is there already, and the beginning of another.
    lines = (whole / "difficulty.jsonl").read_bytes().splitlines(keepends=True)
    header = b'{"fingerprint": "' + read_figures(whole).fingerprint.encode() + b'"}\n'
    (tmp_path / "difficulty.part").write_bytes(header + b"".join(lines[:9]) + lines[9][:20])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(2):
        environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        arguments = recipe(benchmark_dir, tmp_path).model_dump(mode="json")
        processes.append(SERVER.Process(target=child, args=(arguments, environment)))
        processes[-1].start()
    try:
        for process in processes:
            process.join(300)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
    assert contents(tmp_path) == contents(whole)


def test_the_command_says_what_came_out(benchmark_dir: Path, tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / "recipes" / "tiny-difficulty.yaml"
    given = ["model=tiny", f"data={benchmark_dir}", f"out={tmp_path}", "limit=4"]
    result = CliRunner().invoke(app, ["difficulty", str(file), *given])
    assert result.exit_code == 0, result.output
    figures = Difficulty.model_validate_json((tmp_path / "difficulty.json").read_text())
    assert f"difficulty.jsonl: {figures.easy} easy, {figures.hard} hard" in result.output
    assert figures.easy + figures.hard == 4
    assert [one.key for one in read_difficulty(tmp_path)] == [
        one.key for one in read_samples(benchmark_dir, "train") if one.key in {m.key for m in read_difficulty(tmp_path)}
    ]
