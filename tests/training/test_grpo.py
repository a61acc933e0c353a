"""Stage 2 through its public verb, from a model that knows half of a small task."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from halves import TRAIN, Halfway, document, events, read_pools
from peft import PeftModel
from torch import Tensor

from more_r1.formats.more import write_more
from more_r1.models.forest import Forest, scored
from more_r1.models.generate import generate
from more_r1.models.load import load_backbone
from more_r1.models.lora import Lora, add_lora, without_lora
from more_r1.reasoning.prompt import Prompt
from more_r1.schema import Schema
from more_r1.training import grpo as grpo_module
from more_r1.training import update as update_module
from more_r1.training.grpo import Mixed, run_grpo
from more_r1.training.measured import FIGURES, LINES, read_difficulty, split
from more_r1.training.mixing import Mixing, order
from more_r1.training.recipe import RecipeError
from more_r1.training.run import Run
from more_r1.training.samples import read_samples


def steps(out: Path) -> list[dict[str, Any]]:
    return [event for event in events(out) if "loss" in event]


def numbers(halfway: Halfway) -> dict[tuple[str, str, tuple[int, int]], int]:
    """The number of each training pair, which the log names it by."""
    return {sample.key: number for number, sample in enumerate(read_samples(halfway.data, "train"))}


def prompts(halfway: Halfway) -> list[Prompt]:
    form = load_backbone(halfway.model).form
    return [sample.prompt(Schema.more(), form) for sample in read_samples(halfway.data, "valid")]


def weights(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_backbone(folder).model.state_dict()
    return found


def moved(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The norm of the difference of two sets of weights."""
    return float(torch.cat([(one[name] - other[name]).flatten() for name in one]).norm())


def test_a_run_from_before_a_nested_setting_is_the_same_run(halfway: Halfway, tmp_path: Path) -> None:
    recipe = halfway.grpo(tmp_path / "run")
    Run(recipe, recipe.out).begin()
    file = recipe.out / "recipe.yaml"
    told = yaml.safe_load(file.read_text())
    del told["mixing"]["remeasure"], told["vllm"], told["rewards"]["length"]
    file.write_text(yaml.safe_dump(told))
    with pytest.raises(RecipeError, match=r"another recipe \(rewards=.*'length': 1.* there, .*'length': 0.* here\)"):
        Run(recipe, recipe.out)
    told["rewards"]["length"] = 0
    file.write_text(yaml.safe_dump(told))
    Run(recipe, recipe.out)


def test_the_answers_become_right(halfway: Halfway, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = halfway.grpo(tmp_path / "run", epochs=5, batch_pairs=9, group=6, valid_pairs=99, validate_every=10)
    done = run_grpo(recipe)
    log = steps(done.out)
    first, last = (sum(event["reward_answer"] for event in log[part]) / 2 for part in (slice(2), slice(-2, None)))
    assert last > first + 0.12
    scores = {event["step"]: event["valid_f1"] for event in events(done.out) if "valid_f1" in event}
    assert list(scores) == [0, 10] and scores[10] > scores[0] + 0.1
    assert (done.best_step, done.steps, done.model) == (10, 10, done.out / "best")
    assert generate(load_backbone(done.model), prompts(halfway), 8) == generate(
        load_backbone(done.out / "final"), prompts(halfway), 8
    )
    easy, hard = read_pools(halfway.difficulty)
    assert f"{len(easy)} easy and {len(hard)} hard pairs; 10 steps" in capsys.readouterr().out
    # As a kill between the two leaves it.
    (done.out / "checkpoint" / "00000010").mkdir(parents=True)
    assert run_grpo(recipe) == done
    assert "nothing to do" in capsys.readouterr().out
    assert not (done.out / "checkpoint").exists()


def test_every_step_is_logged_in_full(halfway: Halfway, tmp_path: Path) -> None:
    run_grpo(halfway.grpo(tmp_path / "run", beta=0.01, epochs=1, rewards={"length": 0}))
    known = numbers(halfway)
    pool = [known[one.key] for one in read_difficulty(halfway.difficulty)]
    log = steps(tmp_path / "run")
    assert sorted(number for event in log for number, _ in event["passed"]) == sorted(pool)
    names = {"reward", "reward_format", "reward_answer", "equal_groups", "length", "cut", "kl", "entropy", "clipped", "loss"}
    for event in log:
        assert names | {"accuracy_easy", "tokens", "repeated_tokens", "grad_norm", "lr", "epoch", "sample"} <= event.keys()
        assert event["reward_answer"] == pytest.approx(sum(right for _, right in event["passed"]) / 4 / len(event["passed"]))
        assert event["reward"] == pytest.approx(event["reward_answer"] + event["reward_format"])
        assert event["tokens"] < event["repeated_tokens"]
        assert event["kl"] >= 0 and event["entropy"] > 0 and event["clipped"] == 0, "one pass on its own rollouts"
        assert {"document", "object", "span", "gold", "completion", "reward"} == event["sample"].keys()
    assert log[0]["kl"] < 1e-6 < log[-1]["kl"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    spans = ("seconds_rollout", "seconds_reward", "seconds_train")
    assert all(0 < sum(e[span] for span in spans) <= e["seconds"] + 1e-3 for e in lines if "loss" in e)


def test_each_epoch_draws_anew(halfway: Halfway, tmp_path: Path) -> None:
    run_grpo(halfway.grpo(tmp_path / "run", lr=1e-12, batch_pairs=18, valid_pairs=1))
    one, two = (dict(map(tuple, event["passed"])) for event in steps(tmp_path / "run"))
    assert one.keys() == two.keys() and one != two, "the model is still the same, and so would its rollouts be"


def test_a_model_that_gets_worse_is_not_the_best(halfway: Halfway, tmp_path: Path) -> None:
    done = run_grpo(halfway.grpo(tmp_path / "run", lr=0.05, epochs=1))
    assert done.best_step == 0 and done.model == done.out / "best"
    scores = {event["step"]: event["valid_f1"] for event in events(done.out) if "valid_f1" in event}
    assert done.best is not None and scores[0] == done.best["f1"] > scores[3]
    assert moved(weights(done.model), weights(halfway.model)) == 0 < moved(weights(done.out / "final"), weights(halfway.model))


def test_several_passes_clip_and_learn_more(halfway: Halfway, tmp_path: Path) -> None:
    way = []
    for passes in (1, 4):
        run_grpo(halfway.grpo(tmp_path / f"{passes}", passes=passes, epochs=1, lr=1e-3))
        way.append(moved(weights(tmp_path / f"{passes}" / "final"), weights(halfway.model)))
    assert way[1] > 1.5 * way[0]
    assert max(event["clipped"] for event in steps(tmp_path / "4")) > 0
    assert steps(tmp_path / "4")[0]["passed"] == steps(tmp_path / "1")[0]["passed"], "one set of rollouts"


@pytest.fixture
def half_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As `accelerate launch --mixed_precision bf16`."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.mark.usefixtures("half_precision")
@pytest.mark.parametrize("forest", ["packed", "recursive"])
def test_the_first_pass_is_on_policy_in_half_precision(halfway: Halfway, tmp_path: Path, forest: str) -> None:
    """Decoding rounds otherwise than the forest does. All ratios are 1, and the advantages of a group add up to 0."""
    given = {"forest": forest, "epsilon": 1e-4, "lr": 1e-3, "epochs": 1}
    run_grpo(halfway.grpo(tmp_path / "one", **given))
    assert any(event["grad_norm"] > 0.1 for event in steps(tmp_path / "one"))
    assert all(abs(event["loss"]) < 1e-6 and event["clipped"] == 0 for event in steps(tmp_path / "one"))
    run_grpo(halfway.grpo(tmp_path / "two", passes=2, **given))
    clipped = [event["clipped"] for event in steps(tmp_path / "two") if event["equal_groups"] < 1]
    assert all(0.1 < share <= 0.5 for share in clipped), "of the second pass, most are beyond so near a border"


def test_equal_groups_may_be_skipped(halfway: Halfway, tmp_path: Path) -> None:
    """Beta 1e-30 computes them, and is nothing beside what float32 can tell."""
    runs = {beta: tmp_path / f"{beta}" for beta in (0.0, 1e-30)}
    for beta, out in runs.items():
        run_grpo(halfway.grpo(out, beta=beta, batch_pairs=3))
    skipped, whole = (steps(out) for out in runs.values())
    assert any(event["equal_groups"] == 1 for event in skipped) and any(event["equal_groups"] < 1 for event in skipped)
    for mine, theirs in zip(skipped, whole, strict=True):
        assert (mine["passed"], mine["sample"]) == (theirs["passed"], theirs["sample"])
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4, abs=1e-6)
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
        assert mine["tokens"] < theirs["tokens"] if mine["equal_groups"] else mine["tokens"] == theirs["tokens"]
    ours, others = (weights(out / "final") for out in runs.values())
    assert all(float((ours[name] - others[name]).abs().mean()) < 1e-6 for name in ours)
    assert moved(ours, others) < 1e-3 * moved(ours, weights(halfway.model))


def only(halfway: Halfway, folder: Path, kept: set[int]) -> Path:
    """A difficulty folder of these pairs alone."""
    folder.mkdir()
    known = numbers(halfway)
    lines = [one.model_dump_json() for one in read_difficulty(halfway.difficulty) if known[one.key] in kept]
    (folder / LINES).write_text("".join(line + "\n" for line in lines))
    shutil.copy(halfway.difficulty / FIGURES, folder)
    return folder


@pytest.mark.parametrize("average", ["sequence", "token"])
def test_equal_groups_count_in_the_averages(halfway: Halfway, tmp_path: Path, average: str) -> None:
    run_grpo(halfway.grpo(tmp_path / "all", epochs=1, batch_pairs=18))
    (event,) = steps(tmp_path / "all")
    uneven = next(number for number, right in event["passed"] if 0 < right < 4)
    even = [number for number, right in event["passed"] if right in (0, 4)][:3]
    norms, tokens = [], []
    for name, kept in (("alone", {uneven}), ("beside", {uneven, *even})):
        pool = only(halfway, tmp_path / f"{name}-pool", kept)
        run_grpo(halfway.grpo(tmp_path / name, difficulty=pool, epochs=1, average=average))
        (event,) = steps(tmp_path / name)
        norms.append(event["grad_norm"])
        tokens.append(event["length"] * len(event["passed"]))
    share = 1 / 4 if average == "sequence" else tokens[0] / tokens[1]
    assert norms[1] == pytest.approx(norms[0] * share, rel=1e-3)


def test_nothing_to_learn_changes_nothing(halfway: Halfway, tmp_path: Path) -> None:
    run_grpo(halfway.grpo(tmp_path / "all", epochs=1, batch_pairs=18))
    (event,) = steps(tmp_path / "all")
    pool = only(halfway, tmp_path / "pool", {number for number, right in event["passed"] if right == 4})
    for forest in ("packed", "recursive"):
        done = run_grpo(halfway.grpo(tmp_path / forest, difficulty=pool, forest=forest, epochs=1, batch_pairs=18))
        (event,) = steps(done.out)
        assert (event["equal_groups"], event["loss"], event["grad_norm"]) == (1, 0, 0)
        assert (event["tokens"], event["repeated_tokens"], event["entropy"], event["clipped"]) == (0, 0, 0, 0)
        assert moved(weights(done.out / "final"), weights(halfway.model)) == 0


@pytest.mark.parametrize(("beta", "passes"), [(0.0, 2), (0.02, 1)])
def test_packed_and_recursive_train_alike(halfway: Halfway, tmp_path: Path, beta: float, passes: int) -> None:
    ways = {"packed": 16384, "small": 200, "recursive": 90}
    for name, most in ways.items():
        forest = "recursive" if name == "recursive" else "packed"
        given = {"forest": forest, "chunk_tokens": most, "beta": beta, "passes": passes, "mixing": {"preset": "fixed"}}
        run_grpo(halfway.grpo(tmp_path / name, epochs=1, batch_pairs=5, valid_pairs=1, **given))
    packed, *others = (steps(tmp_path / name) for name in ways)
    for other in others:
        for mine, theirs in zip(packed, other, strict=True):
            assert (mine["passed"], mine["sample"]) == (theirs["passed"], theirs["sample"])
            for figure in ("loss", "grad_norm", "entropy", "clipped", *(["kl"] if beta else [])):
                assert mine[figure] == pytest.approx(theirs[figure], rel=1e-3, abs=1e-5), figure
    start = weights(halfway.model)
    one, *rest = (weights(tmp_path / name / "final") for name in ways)
    assert all(moved(one, other) < 1e-2 * moved(one, start) for other in rest)


@pytest.mark.parametrize(
    "mixing", [{"preset": "raw"}, {"preset": "hard_only"}, {"preset": "fixed", "stratified": True}, {"preset": "progressive"}]
)
def test_the_steps_are_those_of_the_mixing(halfway: Halfway, tmp_path: Path, mixing: dict[str, Any]) -> None:
    recipe = halfway.grpo(tmp_path, mixing=mixing, epochs=3, batch_pairs=4, seed=2)
    measured = read_difficulty(halfway.difficulty)
    easy, hard = read_pools(halfway.difficulty)
    mixed = Mixed(recipe, read_samples(halfway.data, "train"), measured, 0.5)
    place = 0
    for epoch in (1, 2, 3):
        wanted = order(easy, hard, epoch, Mixing.model_validate(mixing), 2)
        count = -(-len(wanted) // 4)
        groups = [mixed[place + i] for i in range(count)]
        assert [one.sample.key for group in groups for one in group.asked] == [one.key for one in wanted]
        assert [one.easy for group in groups for one in group.asked] == [one in easy for one in wanted]
        assert all(group.round == epoch for group in groups)
        assert groups[-1].epoch == epoch and epoch - 1 < groups[0].epoch <= epoch
        place += count
    assert len(mixed) == place
    sizes = [len(order(easy, hard, epoch, Mixing.model_validate(mixing), 2)) for epoch in (1, 3)]
    assert (sizes[0] > sizes[1]) is (mixing["preset"] == "progressive"), "fewer easy pairs in later epochs"


def test_the_run_takes_the_steps_of_the_mixing(halfway: Halfway, tmp_path: Path) -> None:
    done = run_grpo(halfway.grpo(tmp_path / "run", mixing={"preset": "progressive"}, batch_pairs=4))
    known, (easy, hard) = numbers(halfway), read_pools(halfway.difficulty)
    wanted = [known[one.key] for epoch in (1, 2) for one in order(easy, hard, epoch, Mixing(), 0)]
    assert [number for event in steps(done.out) for number, _ in event["passed"]] == wanted
    assert done.steps == len(steps(done.out))
    assert [event["step"] for event in events(done.out) if "valid_f1" in event] == [*range(0, done.steps, 3), done.steps]
    short = run_grpo(halfway.grpo(tmp_path / "short", mixing={"preset": "progressive"}, batch_pairs=4, most_steps=2))
    assert [number for event in steps(short.out) for number, _ in event["passed"]] == wanted[:8]


def test_difficulty_is_measured_anew(halfway: Halfway, tmp_path: Path) -> None:
    done = run_grpo(halfway.grpo(tmp_path / "run", mixing={"preset": "hard_only", "remeasure": True}, lr=1e-3, epochs=3))
    known, before = numbers(halfway), read_difficulty(halfway.difficulty)
    sizes = [len(split(before, 0.5)[1])] * 3
    taken = iter(number for event in steps(done.out) for number, _ in event["passed"])
    for epoch, size in enumerate(sizes, 1):
        measured = before if epoch == 1 else read_difficulty(done.out / f"difficulty-{epoch}.jsonl")
        assert [one.key for one in measured] == [one.key for one in before]
        assert {one.asked for one in measured} == {6}, "asked as often as before"
        easy, hard = split(measured, 0.5)
        wanted = [known[one.key] for one in order(easy, hard, epoch, Mixing(preset="hard_only"), 0) or measured]
        assert [next(taken) for _ in range(size)] == [wanted[i % len(wanted)] for i in range(size)]
    assert read_difficulty(done.out / "difficulty-2.jsonl") != before, "the model has changed"


def test_a_pair_that_comes_again_in_an_epoch_is_drawn_anew(
    halfway: Halfway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def noted(backbone: Any, prompts: Any, groups: list[list[int]], *more: Any) -> Any:
        seeds.extend(seed for group in groups for seed in group)
        return draw(backbone, prompts, groups, *more)

    def all_but_one_right(*_: Any) -> Any:
        first, *others = read_difficulty(halfway.difficulty)
        right = [one.model_copy(update={"predicted": (one.label,) * one.asked}) for one in others]
        return [first.model_copy(update={"predicted": (None,) * first.asked}), *right]

    draw = update_module.sample
    monkeypatch.setattr(update_module, "sample", noted)
    monkeypatch.setattr(grpo_module, "measure", all_but_one_right)
    recipe = halfway.grpo(tmp_path / "run", mixing={"preset": "hard_only", "remeasure": True}, epochs=2)
    numbers = [number for event in steps(run_grpo(recipe).out) for number, _ in event["passed"]]
    half = len(numbers) // 2
    assert half > 1 and len(set(numbers[half:])) == 1, "one pair fills the second epoch"
    assert len(set(seeds)) == len(seeds) == len(numbers) * recipe.group


@pytest.mark.parametrize(("beta", "form"), [(0.02, "packed"), (0.0, "recursive")])
def test_adapters_alone_are_trained_and_saved_merged(
    halfway: Halfway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beta: float, form: str
) -> None:
    trained = []

    def watched(model: torch.nn.Module, lora: Lora) -> None:
        add_lora(model, lora)
        trained.append(model)

    monkeypatch.setattr("more_r1.training.adapters.add_lora", watched)
    given = {"lora": {"rank": 4, "alpha": 8}, "lr": 5e-3, "beta": beta, "forest": form, "epochs": 1}
    done = run_grpo(halfway.grpo(tmp_path / "run", **given))
    stage1, merged = load_backbone(halfway.model), load_backbone(done.out / "final")
    adapted = replace(stage1, model=trained[0].eval())
    asked = prompts(halfway)
    assert generate(merged, asked, 8) == generate(adapted, asked, 8)
    forest = Forest.build(
        [(stage1.encoder.prompt(one), stage1.encoder.completion("<answer>none")) for one in asked], stage1.encoder
    )
    with torch.no_grad():
        before, after, found = (scored(backbone.model, forest)[0] for backbone in (stage1, adapted, merged))
        with without_lora(adapted.model):
            assert torch.equal(scored(adapted.model, forest)[0], before), "the adapters are all that has changed"
    assert float((after - found).abs().max()) < 1e-4 < 1e-2 < float((after - before).abs().max())
    peft = PeftModel.from_pretrained(load_backbone(halfway.model).model, done.out / "final" / "adapter")
    with torch.no_grad():
        assert float((scored(peft.get_base_model(), forest)[0] - after).abs().max()) < 1e-4
    start, end = stage1.model.state_dict(), merged.model.state_dict()
    assert start.keys() == end.keys()
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed and all("_proj.weight" in name and ".visual." not in name for name in changed)
    torch.manual_seed(7)
    again = run_grpo(halfway.grpo(tmp_path / "again", **given))
    assert moved(weights(again.out / "final"), end) == 0, "adapters begin at random, but by the seed"
    if beta:
        kl = [event["kl"] for event in steps(done.out)]
        assert kl[0] < 1e-6 and max(kl) > 1e-4


def test_a_difficulty_of_other_data_is_refused(halfway: Halfway, tmp_path: Path) -> None:
    other = [document(number).model_copy(update={"id": f"other{number}.png"}) for number in range(TRAIN)]
    write_more({"train": other, "valid": other[:3]}, tmp_path / "data", Schema.more())
    with pytest.raises(RecipeError, match=r"^difficulty=.*difficulty: .*0000\.png.* is no pair of data=.*; measure it anew$"):
        run_grpo(halfway.grpo(tmp_path / "run", data=tmp_path / "data"))
    with pytest.raises(RecipeError, match=r"nowhere.*cannot be read.*more-r1 difficulty"):
        run_grpo(halfway.grpo(tmp_path / "run", difficulty=tmp_path / "nowhere"))
    assert not (tmp_path / "run").exists()


def test_a_difficulty_of_another_model_is_refused(halfway: Halfway, tmp_path: Path) -> None:
    done = run_grpo(halfway.grpo(tmp_path / "run", most_steps=2, validate_every=9))
    with pytest.raises(RecipeError, match=r"^difficulty=.*: measured on .*, which has other weights than model=.*run/final"):
        run_grpo(halfway.grpo(tmp_path / "again", model=str(done.out / "final")))
    assert not (tmp_path / "again").exists()
    figures = halfway.difficulty / FIGURES
    older = tmp_path / "older"
    shutil.copytree(halfway.difficulty, older)
    (older / FIGURES).write_text(json.dumps({**json.loads(figures.read_text()), "weights": None}))
    run_grpo(halfway.grpo(tmp_path / "again", model=str(done.out / "final"), difficulty=older, most_steps=1))


def test_a_pool_without_pairs_for_the_mixing_is_refused(halfway: Halfway, tmp_path: Path) -> None:
    known, (easy, _) = numbers(halfway), read_pools(halfway.difficulty)
    pool = only(halfway, tmp_path / "pool", {known[one.key] for one in easy})
    with pytest.raises(RecipeError, match=r"no pair for mixing\.preset=hard_only"):
        run_grpo(halfway.grpo(tmp_path / "run", difficulty=pool, mixing={"preset": "hard_only"}))
    assert not (tmp_path / "run").exists()


def test_settings_that_do_not_go_together_are_refused(halfway: Halfway, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set workers=0"):
        halfway.grpo(tmp_path / "run", mixing={"remeasure": True}, workers=1)
    # The model answers without reasoning, so that no length can be rewarded; told before anything is asked or written.
    with pytest.raises(RecipeError, match="length=0"):
        run_grpo(halfway.grpo(tmp_path / "run", rewards={"length": 1}))
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_recipe_is_refused(halfway: Halfway, tmp_path: Path) -> None:
    given = {"epochs": 1, "batch_pairs": 18, "mixing": {"preset": "hard_only"}}
    run_grpo(halfway.grpo(tmp_path / "run", **given))
    with pytest.raises(RecipeError, match=r"group=4 there, 3 here"):
        run_grpo(halfway.grpo(tmp_path / "run", **given, group=3))
