"""The recipes for the real backbone: their dry run at real size without weights, and, on demand, a run of a small model."""

from __future__ import annotations

import json
import math
import os
import re
import time
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from real_size import config_folder, small_model
from typer.testing import CliRunner

from more_r1.cli import app
from more_r1.document import Box
from more_r1.formats.traces import read_completions
from more_r1.pipeline import TrainRecipe, planned, rehearsed
from more_r1.reasoning.prompt import Prompt
from more_r1.schema import Schema
from more_r1.training.examples import Epochs, Example, draw
from more_r1.training.plan.memory import Sharding
from more_r1.training.plan.stages import Costed
from more_r1.training.recipe import RecipeError, load_recipe
from more_r1.training.samples import read_samples

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(file.name for file in FOLDER.glob("more-*.yaml"))
MUCH = "grpo.vllm.options.gpu_memory_utilization=0.6"
PARAMETERS = {"7b": 8_292_166_656, "3b": 3_754_622_976}


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("real")
    return {size: config_folder(folder / size, size) for size in PARAMETERS}


def size_of(name: str) -> str:
    return "3b" if "-3b" in name else "7b"


def asked(backbones: dict[str, Path], name: str, data: Path, out: Path) -> list[str]:
    return [f"model={backbones[size_of(name)]}", f"data={data}", f"out={out}", "annotate.expert={kind: oracle}"]


def test_there_are_the_recipes_that_the_docs_name() -> None:
    assert [f"more-qwen2.5-vl-{kind}.yaml" for kind in ("3b", "7b-lora-24gb", "7b-lora-80gb", "7b")] == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_dry_run(name: str, backbones: dict[str, Path], benchmark_dir: Path, tmp_path: Path) -> None:
    overrides = asked(backbones, name, benchmark_dir, tmp_path / "run")
    done = CliRunner().invoke(app, ["train", str(FOLDER / name), *overrides, "--dry-run"], catch_exceptions=False)
    assert done.exit_code == 0
    train = read_samples(benchmark_dir, "train")
    drawn = len(draw([one.label for one in train], 0.25, 0))
    assert f"{PARAMETERS[size_of(name)]:,} parameters" in done.output
    assert f"train: {len(train)} pairs" in done.output
    assert f"stage 1: {drawn} pairs; {len(train) - drawn} left to stage 2" in done.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [*RECIPES, "umre.yaml"])
def test_what_a_recipe_is_meant_for_is_enough(name: str, backbones: dict[str, Path]) -> None:
    """Memory as the header says; the paper's settings where they can be had."""
    recipe = load_recipe(FOLDER / name, [f"model={backbones[size_of(name)]}"], TrainRecipe)
    first, between, last = planned(recipe)
    assert recipe.plan is not None and first.fits and between.fits and last.fits
    assert between.memory.weights == 2 * PARAMETERS[size_of(name)]  # who only asks has the whole model
    header = " ".join(line[2:] for line in (FOLDER / name).read_text().splitlines() if line.startswith("# "))
    assert f"{first.memory.peak / 1e9:.0f} GB a rank in stage 1 and {last.memory.peak / 1e9:.0f} GB in stage 2" in header
    hours = (first.hours, between.hours, last.hours)
    assert "stage 1 {:.1f}, difficulty {:.1f}, stage 2 {:.1f} hours".format(*hours) in header
    assert (recipe.sft.share, recipe.sft.epochs, recipe.sft.freeze_vision) == (0.25, 20, True)
    grpo = recipe.grpo
    assert (grpo.mixing.preset, grpo.mixing.alpha, grpo.epochs, grpo.epsilon, grpo.beta) == ("progressive", 0.5, 4, 0.2, 0.001)
    assert sum(last.stage.pairs) == 14412  # of 11,614 left: 2,453 hard in each epoch, 2,453, 1,227, 613 and 307 easy ones
    if "lora" not in name:
        assert (recipe.sft.lr, grpo.lr) == (1e-4, 1e-6)


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_a_dry_run_counts_the_steps_that_a_run_takes(
    share: float, backbones: dict[str, Path], benchmark_dir: Path, tmp_path: Path
) -> None:
    """Stage 1 to the step; of its traces the real lengths."""
    oracle = benchmark_dir / "oracle" / "train.jsonl"
    overrides = [*asked(backbones, RECIPES[0], benchmark_dir, tmp_path), "annotate=null", f"sft.traces={oracle}"]
    recipe = load_recipe(FOLDER / RECIPES[0], [*overrides, f"sft.share={share}", "sft.batch_pairs=7"], TrainRecipe)
    found, costed = rehearsed(recipe)
    train = read_samples(benchmark_dir, "train")
    documents: dict[str, list[Example]] = {}
    for index in draw([one.label for one in train], share, 0):
        documents.setdefault(train[index].document.id, []).append(Example(Prompt(()), ""))
    assert found.without_trace == 0 and found.counts.taught == sum(map(len, documents.values()))
    assert costed[0].stage.steps == len(Epochs(list(documents.values()), 20, 7, recipe.sft.seed))
    assert found.counts.lengths.completion < found.counts.longest.completion < 1000


def test_what_a_dry_run_refuses(backbones: dict[str, Path], benchmark_dir: Path, tmp_path: Path) -> None:
    common = asked(backbones, RECIPES[0], benchmark_dir, tmp_path / "run")

    def refused(*overrides: str) -> str:
        with pytest.raises(ValueError) as caught:
            rehearsed(load_recipe(FOLDER / RECIPES[0], [*common, *overrides], TrainRecipe))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "cannot be read" in refused("annotate=null", f"sft.traces={tmp_path / 'none.jsonl'}")
    assert "no usable trace" in refused("annotate=null", f"sft.traces={_empty(tmp_path)}")
    assert "none is left for stage 2" in refused("sft.share=1")
    assert "no model folder" in refused(f"model={tmp_path}")
    assert "nowhere" in refused("test=nowhere")
    whole = "needs model and gradients whole in each process, and fsdp2 splits them; set"
    assert f"grpo.forest=recursive {whole} grpo.forest=packed, or take ddp" == refused("grpo.forest=recursive")
    assert f"grpo.mixing.remeasure=true {whole} grpo.mixing.remeasure=false" in refused("grpo.mixing.remeasure=true")
    (tmp_path / "run" / "sft").mkdir(parents=True)
    (tmp_path / "run" / "sft" / "notes.txt").touch()
    assert "something else than a run" in refused()
    with pytest.raises(RecipeError, match="no section plan"):
        planned(load_recipe(FOLDER / RECIPES[0], [*common, "plan=null"], TrainRecipe))


@settings(max_examples=12)
@given(st.data())
def test_the_settings_that_are_suggested_fit(backbones: dict[str, Path], data: st.DataObject) -> None:
    """On any device: where a stage does not fit, it fits with each way, as it would be written on the command line."""
    count, gigabytes = data.draw(st.sampled_from([1, 2, 8])), data.draw(st.integers(18, 90))
    sharding = data.draw(st.sampled_from(get_args(Sharding)))
    own = data.draw(st.sampled_from(["seed=0", "grpo.attention=flex", "grpo.forest=recursive", "grpo.mixing.remeasure=true"]))
    machine = [f"plan.devices.count={count}", f"plan.devices.memory={gigabytes}.0e+9", f"plan.sharding={sharding}"]
    usual = [f"model={backbones['7b']}", "grpo.checkpointing=false", own, *machine]

    def stages(*more: str) -> tuple[Costed, ...]:
        return planned(load_recipe(FOLDER / "more-qwen2.5-vl-7b.yaml", [*usual, *more], TrainRecipe))

    if sharding != "ddp" and ("recursive" in own or "remeasure" in own):
        with pytest.raises(
            RecipeError, match=f"{own} needs model and gradients whole in each process, and {sharding} splits them"
        ):
            stages()
        return
    for number, found in enumerate(stages()):
        assert found.fits == (found.memory.peak <= gigabytes * 1e9) and (not found.fits or found.ways == ())
        for way in found.ways:
            assert stages(*way.split())[number].fits, way


def test_nothing_is_suggested_where_nothing_helps(backbones: dict[str, Path]) -> None:
    told = CliRunner().invoke(
        app,
        ["plan", str(FOLDER / RECIPES[-1]), f"model={backbones['7b']}", "plan.devices.memory=10.0e+9"],
        env={"COLUMNS": "200"},
    )
    assert told.exit_code == 0
    assert "grpo does not fit into 10 GB, nor with fewer tokens at a time: drawing alone takes more" in " ".join(
        told.output.split()
    )


def test_a_vllm_beside_the_training_takes_its_share(backbones: dict[str, Path]) -> None:
    """Of memory, where it is on the same devices; in any case the policy scores what another sampler drew."""

    def stage(*more: str) -> Costed:
        return planned(load_recipe(FOLDER / RECIPES[-1], [f"model={backbones['7b']}", *more], TrainRecipe))[2]

    plain, vllm = stage(), "grpo.rollout=vllm"
    usual, much, served = stage(vllm), stage(vllm, MUCH), stage(vllm, "grpo.vllm.server=http://localhost:8000")
    assert (
        plain.room == served.room and math.isclose(usual.room, 0.7 * plain.room) and math.isclose(much.room, 0.4 * plain.room)
    )
    assert usual.memory == much.memory == served.memory
    assert usual.fits and not much.fits and much.ways
    for way in much.ways:
        assert stage(vllm, MUCH, *way.split()).fits, way
    names = [[phase.name for phase in one.phases] for one in (plain, served)]
    assert names == [["prefill", "decode", *scored, "training"] for scored in (["reference"], ["reference", "policy"])]
    # The tower that does not learn sees the pictures once in vLLM and once here.
    pictures = [[phase.image_tokens for phase in one.phases if phase.image_tokens] for one in (plain, served)]
    assert pictures == [pictures[0], pictures[0] * 2]
    command = ["plan", str(FOLDER / RECIPES[-1]), f"model={backbones['7b']}", vllm, MUCH]
    told = " ".join(CliRunner().invoke(app, command, env={"COLUMNS": "200"}).output.split())
    assert f"GB vLLM, beside it │ │ │ {1.5 * much.room / 1e9:.1f} │" in told
    assert f"grpo does not fit into {much.room / 1e9:g} GB that vLLM leaves it; it would with" in told


def test_traces_first(benchmark_dir: Path, tmp_path: Path) -> None:
    """The stage that needs no model, by itself; what it writes is what stage 1 is told to learn."""
    overrides = ["model=nowhere", f"data={benchmark_dir}", f"out={tmp_path / 'run'}", "annotate.expert={kind: oracle}"]
    recipe = load_recipe(FOLDER / RECIPES[-1], overrides, TrainRecipe)
    command = ["train", str(FOLDER / RECIPES[-1]), *overrides, "--until", "annotate"]
    for _ in range(2):
        assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    assert [folder.name for folder in (tmp_path / "run").iterdir()] == ["annotate"]
    train = read_samples(benchmark_dir, "train")
    drawn = {train[index].key for index in draw([one.label for one in train], 0.25, 0)}
    assert recipe.sft.traces != "oracle" and read_completions(recipe.sft.traces).keys() == drawn


LACKING = {
    "annotate.expert.key_env: the environment has no OPENAI_API_KEY": ["annotate.expert.kind=openai"],
    "sft.attention=flex trains on CUDA only": ["annotate=null", "sft.attention=flex"],
    "grpo.attention=flex trains on CUDA only": ["annotate=null", "grpo.attention=flex"],
    "grpo.rollout=vllm: vLLM is not installed": ["annotate=null", "grpo.rollout=vllm"],
}


@pytest.mark.parametrize("why", LACKING)
def test_what_this_machine_lacks_is_told_by_a_dry_run_and_refused_by_a_run(
    why: str, backbones: dict[str, Path], benchmark_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run may be made on another machine than the training."""
    if "vLLM" in why and find_spec("vllm") is not None:
        pytest.skip("it is there")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    where = [f"model={backbones['7b']}", f"data={benchmark_dir}", f"out={tmp_path / 'run'}"]
    command = ["train", str(FOLDER / RECIPES[-1]), *where, *LACKING[why]]
    if "annotate=null" in command:
        command.append(f"sft.traces={benchmark_dir / 'oracle' / 'train.jsonl'}")
    done = CliRunner().invoke(app, [*command, "--dry-run"], catch_exceptions=False)
    assert done.exit_code == 0 and f"here it could not be trained: {why}" in done.output
    with pytest.raises(RecipeError, match=re.escape(why)):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert not (tmp_path / "run").exists()


def _empty(folder: Path) -> Path:
    (folder / "traces.jsonl").write_text("")
    return folder / "traces.jsonl"


@pytest.mark.skipif("MORE_R1_RECIPES" not in os.environ, reason="minutes: make test-recipes")
@pytest.mark.parametrize("name", RECIPES[1:])
def test_a_small_model_runs_the_recipe(name: str, tmp_path: Path) -> None:
    """All stages on 200 documents, with a model of the same structure and fewer steps."""
    data, model, out = tmp_path / "data", small_model(tmp_path / "model"), tmp_path / "run"
    assert CliRunner().invoke(app, ["data", "synth", str(data), "--documents", "200"]).exit_code == 0
    short = [f"model={model}", f"data={data}", f"out={out}", "threads=2", "annotate.expert={kind: oracle}"]
    short += ["sft.share=0.03", "sft.epochs=1", "sft.valid_pairs=2", "sft.max_new_tokens=16", "difficulty.limit=16"]
    short += ["sft.form={wording: short, whole_pixels: 12544, crop_pixels: 3136}", "grpo.group=2", "grpo.batch_pairs=2"]
    short += ["grpo.most_steps=2", "grpo.valid_pairs=2", "grpo.mixing={preset: raw}", "test=valid"]
    began = time.perf_counter()
    done = CliRunner().invoke(app, ["train", str(FOLDER / name), *short], catch_exceptions=False)
    assert done.exit_code == 0
    print(f"{name}: {time.perf_counter() - began:.0f} s")
    steps = {stage: json.loads((out / stage / "result.json").read_text())["steps"] for stage in ("sft", "grpo")}
    events = [json.loads(line) for line in (out / "grpo" / "log.jsonl").read_text().splitlines()]
    assert steps["grpo"] == 2 == sum("loss" in event for event in events)
    assert json.loads((out / "grpo" / "metrics.json").read_text())["pairs"] > 0
    assert yaml.safe_load((out / "sft" / "recipe.yaml").read_text())["checkpointing"] is True
    assert (out / "grpo" / "report.html").is_file() and (out / "annotate" / "traces.jsonl").is_file()


UMRE = FOLDER / "schemas" / "umre.yaml"


def test_the_labels_of_umre_are_those_of_its_table() -> None:
    """In the order of rel2id_umke_partner.json in the repository of REMOTE; what MORE has too means the same."""
    table = (
        "none /per/loc/place_of_governance /per/misc/party /per/org/member_of /per/per/self /per/misc/nationality "
        "/loc/loc/self /per/misc/present_in /per/loc/place_of_residence /org/org/self /misc/misc/self /per/per/opponent "
        "/per/loc/place_of_birth /per/per/partner /per/org/opposed_to /loc/loc/contain /org/loc/locate_at /per/misc/president "
        "/misc/loc/held_on /per/org/leader_of /org/org/subsidiary /per/per/relatives /per/misc/awarded /misc/misc/part_of "
        "/per/misc/race /per/per/alumni /per/misc/religion /org/misc/present_in"
    )
    schema = Schema.load(UMRE)
    assert schema.labels == tuple(table.split())
    of_more = {relation.label: relation for relation in Schema.more().relations}
    assert all(relation == of_more.get(relation.label, relation) for relation in schema.relations)


def test_what_the_docs_say_of_umre_makes_data_that_can_be_trained_on(
    backbones: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On files as REMOTE's loader reads them: `pos` of two numbers or of four, boxes by corners in a file of their own."""
    monkeypatch.chdir(tmp_path)
    ada, gulls = {"name": "Ada", "pos": [0, 1]}, {"name": "Gulls", "pos": [3, 4]}
    one, two = ({"name": f"[OBJ{n}]", "pos": [0, 0, 1, 1]} for n in (0, 1))
    eleventh = {"name": "[OBJ10]", "pos": [0, 0, 1, 1]}
    ends = [(ada, gulls), (one, two), (one, ada), (gulls, one), (two, ada), (one, ada), (eleventh, ada)]
    labels = ["/per/org/member_of", "/per/per/partner", "/per/per/self", "/per/org/member_of", "none", "none", "none"]
    lines = [
        {"token": ["Ada", "joins", "the", "Gulls"], "h": h, "t": t, "img_id": "a.jpg", "relation": label}
        for (h, t), label in zip(ends, labels, strict=True)
    ]
    lines.append(lines[2] | {"token": ["Ada", "smiles"]})
    Path("umke_partner").mkdir()
    for name in ("train_set", "val_set", "test_set"):
        Path(f"umke_partner/{name}.json").write_text("".join(f"{line}\n" for line in lines))
    boxes = {f"[OBJ{n}]": [n / 20, 0.25, n / 20 + 0.5, 0.75] for n in range(11)}
    Path("umke_partner/pos_umke.json").write_text(json.dumps({"a.jpg": boxes}))
    Path("UMKE_IMG").mkdir()
    Image.new("RGB", (60, 40)).save("UMKE_IMG/a.jpg")
    (snippet,) = re.findall(r"```python\n(.*?)```", (FOLDER.parent / "docs" / "recipes.md").read_text(), re.DOTALL)
    exec(snippet, {})
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3 and told[0].startswith("train 4 pairs of 2 documents; {")
    for count in ("'entity entity': 1", "'object object': 1", "'object entity': 5", "'entity object': 1", "pair again': 1"):
        assert count in told[0]
    assert "beyond the ten objects of the MORE layout': 1" in told[0]
    for split in ("train", "valid", "test"):
        command = ["data", "convert", f"{split}.jsonl", "UMRE", "--split", split, "--schema", str(UMRE)]
        assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    command = ["data", "check", "UMRE", "--schema", str(UMRE), "--strict"]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    samples = read_samples(Path("UMRE"), "train", Schema.load(UMRE))
    kept = ["/per/per/self", "/per/org/member_of", "none", "/per/per/self"]
    assert [sample.label for sample in samples] == kept
    box = samples[0].document.object("[OBJ1]").box
    assert box == Box.from_corners(0.05, 0.25, 0.55, 0.75)
    recipe = ["train", str(FOLDER / "umre.yaml"), f"schema={UMRE}", f"model={backbones['7b']}", "data=UMRE"]
    done = CliRunner().invoke(app, [*recipe, "annotate.expert.key_env=null", "--dry-run"], catch_exceptions=False)
    assert done.exit_code == 0 and "train: 4 pairs" in done.output
