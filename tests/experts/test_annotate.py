"""`more-r1 annotate` from recipe to records: the draw, the plan, the oracle, resumption, and twenty kills."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import run
from misbehaving import KEY, Asked, command, good, recipe, records, serving, write_data

from more_r1.experts.annotate import AnnotateRecipe, drawn, plan, run_annotate
from more_r1.experts.desk import Figures
from more_r1.experts.reply import ExpertError
from more_r1.formats.traces import read_completions
from more_r1.reasoning.trace import parse_trace
from more_r1.schema import Schema
from more_r1.training.examples import draw
from more_r1.training.recipe import RecipeError, load_recipe
from more_r1.training.samples import read_samples

# The full size of the test of kills takes minutes: `make test-annotate`.
PAIRS, KILLS = int(os.environ.get("MORE_R1_ANNOTATE_PAIRS", "60")), int(os.environ.get("MORE_R1_ANNOTATE_KILLS", "4"))


def silent(_: Figures) -> None:
    pass


def file_of(recipe: AnnotateRecipe, folder: Path) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return file


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pairs, of which the oracle file knows five, one of them with a wrong answer."""
    folder = write_data(tmp_path_factory.mktemp("data") / "more", 6)
    lines = []
    for number, one in enumerate(read_samples(folder, "train")[:5]):
        name, object, span = one.key
        completion = good(one.label if number else "/loc/loc/contain")
        lines.append(json.dumps({"img_id": name, "object": object, "span": span, "completion": completion}))
    (folder / "oracle").mkdir(exist_ok=True)
    (folder / "oracle" / "train.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_an_oracle_goes_through_the_same_filter_and_journal(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = AnnotateRecipe.model_validate({"out": out, "data": data, "share": 1.0, "expert": {"kind": "oracle"}})
    figures = run_annotate(settings, silent)
    assert (figures.pairs, figures.accepted, dict(figures.final)) == (6, 4, {"accepted": 4, "answer": 1, "empty": 1})
    assert len(read_completions(out / "traces.jsonl")) == 4
    written = (out / "traces.jsonl").read_bytes()
    assert run_annotate(settings, silent).accepted == 4
    assert (out / "traces.jsonl").read_bytes() == written


def test_all_traces_of_the_embedded_world_are_accepted(benchmark_dir: Path, tmp_path: Path) -> None:
    given = {"out": tmp_path / "run", "data": benchmark_dir, "share": 0.5, "expert": {"kind": "oracle"}}
    figures = run_annotate(AnnotateRecipe.model_validate(given), silent)
    assert figures.accepted == figures.pairs > 20


def test_the_pairs_are_those_that_stage_1_draws(benchmark_dir: Path, tmp_path: Path) -> None:
    given = {"out": tmp_path / "run", "data": benchmark_dir, "share": 0.3, "draw_seed": 5, "expert": {"kind": "oracle"}}
    settings = AnnotateRecipe.model_validate(given)
    train = read_samples(benchmark_dir, "train")
    wanted = [train[index].key for index in draw([one.label for one in train], 0.3, 5)]
    assert [one.key for one in drawn(settings)] == wanted
    run_annotate(settings, silent)
    found = [(one["img_id"], one["object"], tuple(one["span"])) for one in records(tmp_path / "run")]
    assert found == wanted


def test_a_plan_counts_calls_tokens_and_cost_and_sends_nothing(data: Path, tmp_path: Path) -> None:
    prices = {"price_in": 2, "price_out": 10, "max_tokens": 1000, "image_tokens": 500}
    with serving(lambda asked: "good" if asked.number < 2 else "bad") as endpoint:
        settings = recipe(data, tmp_path / "run", endpoint.url, tries=3, **prices)
        made = plan(settings)
        assert not endpoint.asked and not (tmp_path / "run").exists()
        assert (made.pairs, made.calls, made.tokens_out, made.spent) == (6, (6, 18), (6000, 18_000), 0.0)
        assert 6 * 1500 < made.tokens_in[0] < 6 * 4000 and made.tokens_in[1] == 3 * made.tokens_in[0]
        costs = [(sent * 2 + calls * 1000 * 10) / 1e6 for sent, calls in zip(made.tokens_in, made.calls, strict=True)]
        assert made.cost == pytest.approx(costs)
        run_annotate(settings, silent)
    after = plan(settings)
    assert (after.pairs, after.calls, after.cost) == (0, (0, 0), (0.0, 0.0))
    assert after.spent == pytest.approx((2 + 4 * 3) * (900 * 2 + 200 * 10) / 1e6)


def test_show_and_plan_on_the_command_line_call_nobody(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(lambda _: "good") as endpoint:
        file = file_of(recipe(data, tmp_path / "run", endpoint.url), tmp_path)
        assert run(monkeypatch, "annotate", file, "--show", 2) == 0
        seen = capsys.readouterr().out
        assert seen.count("Headline: Ann sings at no") == 2 and "the label is /per/org/member_of" in seen
        assert run(monkeypatch, "annotate", file, "--plan", "expert.price_in=1", "expert.price_out=1") == 0
        assert "6 pairs to ask about" in capsys.readouterr().out
        assert run(monkeypatch, "annotate", file, "--max-cost", 1) == 1
        assert "give expert.price_in and expert.price_out" in capsys.readouterr().err
        assert not endpoint.asked
        prices = ["expert.price_in=1", "expert.price_out=1"]
        assert run(monkeypatch, "annotate", file, "--max-cost", "0.000001", *prices) == 1
        assert "max_cost" in capsys.readouterr().err
        assert not endpoint.asked
        assert run(monkeypatch, "annotate", file) == 0
        assert "6 of 6 pairs accepted" in capsys.readouterr().out


def test_another_question_needs_another_folder_but_other_limits_do_not(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with serving(lambda asked: "bad" if asked.number == 1 else "good") as endpoint:
        first = run_annotate(recipe(data, out, endpoint.url, tries=1), silent)
        assert (first.done, first.accepted) == (6, 5)
        other = {"concurrency": 2, "requests_per_minute": 999, "timeout": 9, "price_in": 1, "price_out": 1}
        run_annotate(recipe(data, out, endpoint.url, tries=2, max_cost=9, **other), silent)
        for changed in ({"model": "n"}, {"temperature": 1.0}, {"whole_pixels": 9999}, {"extra": {"seed": 1}}):
            with pytest.raises(RecipeError, match=f"another recipe .*{next(iter(changed))}"):
                run_annotate(recipe(data, out, endpoint.url, **changed), silent)
        assert len(endpoint.asked) == 6


@pytest.mark.parametrize(
    "given",
    [
        {"api_key": "abc"},
        {"extra": {"headers": {"Authorization": "x"}}},
        {"extra": {"note": KEY}},
        {"model": "Bearer abcdefgh1234"},
        {"key_env": KEY},
        {"key_env": "03f0abc9d"},
        {"key_env": 4711},
        {"base_url": "https://me:secret@host/v1"},
        {"base_url": "https://host/v1?api_key=abc"},
    ],
)
def test_a_recipe_with_a_key_is_refused_and_the_key_is_not_said(data: Path, tmp_path: Path, given: dict[str, Any]) -> None:
    expert = {"kind": "openai", "model": "m"} | given
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({"out": str(tmp_path / "run"), "data": str(data), "expert": expert}))
    with pytest.raises(RecipeError, match="put it into the environment") as error:
        load_recipe(file, [], AnnotateRecipe)
    for secret in ("abc", KEY, "secret@", "4711"):
        assert secret not in str(error.value).replace("recipe", "")


def test_a_missing_key_and_a_wrong_kind_cost_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    file = file_of(recipe(data, tmp_path / "run", "http://127.0.0.1:9/v1", key_env="NO_SUCH_KEY"), tmp_path)
    for arguments, words in (
        ([], "the environment has no NO_SUCH_KEY"),
        (["expert.key_env=a3f09b1c7d"], "the environment has no variable of that name"),
        (["expert.modle=m"], "modle"),
        (["expert.kind=oracel"], "expert"),
        ([f"expert.extra=[{KEY}"], "extra"),
    ):
        assert run(monkeypatch, "annotate", file, *arguments) == 1
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1 and KEY not in error
    assert not (tmp_path / "run").exists()


def test_twenty_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """Smaller by default, see PAIRS: the endpoint misbehaves in every way, the command is killed at random moments."""
    data, out, output = write_data(tmp_path / "more", PAIRS), tmp_path / "run", tmp_path / "output.txt"
    chance, concurrency = random.Random(1), 4
    hows = ("429", "429 seconds", "429 date", "500", "503", "reset", "truncated", "cut", "html", "stall", "huge")
    hows += ("empty", "refusal", "filter", "error400", "bad")

    def script(asked: Asked) -> str:
        if chance.random() < 0.65:
            return "good"
        how = chance.choice(hows)
        return "bad" if how in ("stall", "huge") and chance.random() < 0.8 else how  # these take long

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["more_r1.experts.annotate", "more_r1.experts.endpoint", "misbehaving"])
    with serving(script, stall=1.2) as endpoint:
        limits = {"timeout": 1.0, "concurrency": concurrency, "requests_per_minute": 60 * 60, "price_in": 1, "price_out": 1}
        settings = recipe(data, out, endpoint.url, tries=3, key_env="PLANTED", transport_tries=8, **limits)
        arguments = ["annotate", str(file_of(settings, tmp_path))]

        def start() -> Any:
            process = context.Process(target=command, args=(arguments, output, {"PLANTED": KEY}))
            process.start()
            return process

        def lost() -> Counter[int]:
            """Calls whose answer was sent and that have no record."""
            endpoint.wait_idle()
            ended = (one for one in records(out) if one["verdict"] != "error" or "too small" in one["reason"])
            return endpoint.ended - Counter(int(one["img_id"][:4]) for one in ended)

        kills, before = 0, 0
        while kills < KILLS:
            process, asked = start(), len(endpoint.asked)
            goal = asked + chance.randrange(0, max(2 * PAIRS // KILLS, 2))
            while process.is_alive() and len(endpoint.asked) < goal:
                time.sleep(0.005)
            time.sleep(chance.random() * 0.05)
            if not process.is_alive():
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            now = lost().total()
            assert now - before <= concurrency
            before = now
        process = start()
        process.join()
        assert process.exitcode == 0, output.read_text()[-2000:]
        assert lost().total() == before
        requests = len(endpoint.asked)

    made = records(out)
    finals = Counter(one["img_id"] for one in made if one["final"])
    assert finals == Counter(f"{number:04}.png" for number in range(PAIRS))
    assert len({(one["img_id"], one["attempt"]) for one in made}) == len(made)
    schema = Schema.more()
    for one in made:
        if one["verdict"] == "accepted":
            assert parse_trace(one["completion"], schema).answer == one["label"]
    # Every request was noted before it was sent.
    sent = (out / "sent.jsonl").read_text().splitlines()
    assert requests <= len(sent) <= requests + kills * concurrency
    seen = output.read_text() + "".join(file.read_text() for file in out.rglob("*") if file.is_file())
    assert KEY not in seen and KEY[-8:] not in seen
    times = sorted(one.time for one in endpoint.asked)
    assert max(sum(start <= one < start + 1 for one in times) for start in times) <= 60 + 2 * concurrency
    print(f"{PAIRS} pairs, {kills} kills: {requests} requests, {len(made)} records, {before} calls lost in flight")


@pytest.mark.parametrize("package", ["openai", "tenacity"])
def test_a_missing_extra_costs_one_line_and_leaves_no_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExpertError, match=r"pip install 'more-r1\[expert\]'"):
        run_annotate(recipe(data, tmp_path / "run", "http://127.0.0.1:9/v1"), silent)
    assert not (tmp_path / "run").exists()
