"""Relations of one's own through all stages and back: data, traces, training, the folder that remembers them, extraction."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import yaml
from safetensors import safe_open
from typer.testing import CliRunner

from more_r1.cli import app
from more_r1.document import Document
from more_r1.evaluation.report import write_report
from more_r1.experts.annotate import AnnotateRecipe, plan, run_annotate, show
from more_r1.experts.question import known_types
from more_r1.experts.self_taught import SelfTaught
from more_r1.extraction.extract import extract
from more_r1.formats import FormatError, load_documents
from more_r1.formats.jsonl import write_jsonl
from more_r1.formats.traces import read_completions
from more_r1.models.classifier import load_model
from more_r1.models.load import load_backbone, save_backbone
from more_r1.models.manner import HEAD_FILE, SCHEMA_FILE, read_schema
from more_r1.pipeline import TrainRecipe
from more_r1.reasoning.trace import Trace
from more_r1.schema import NONE, Schema
from more_r1.training.difficulty import DifficultyRecipe, run_difficulty
from more_r1.training.recipe import RecipeError, load_recipe
from more_r1.training.samples import Sample, read_samples
from more_r1.training.sft import SftRecipe, run_sft

# The tiny model knows none of these words; to its tokenizer they are bytes.
OWN = """relations:
  /per/per/goes_by_the_name_of: {meaning: the person seen is called so, symmetric: true, at_most_one: true}
  /per/misc/has_won: the person seen has won the named award
  /org/org/goes_by_the_name_of: the organisation seen is called so
"""
OF_MORE = {
    "/per/per/alternate_names": "/per/per/goes_by_the_name_of",
    "/per/misc/awarded": "/per/misc/has_won",
    "/org/org/alternate_names": "/org/org/goes_by_the_name_of",
}
BROKEN = "<dd>broken form"
SHORT = {"epochs": 1, "share": 0.5, "batch_pairs": 8, "valid_pairs": 3, "max_new_tokens": 6, "threads": 1, "lr": 1e-3}


def more_r1(*command: object) -> str:
    done = CliRunner().invoke(app, [str(part) for part in command], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def relabelled(document: Document) -> Document:
    pairs = (pair.model_copy(update={"label": OF_MORE.get(pair.label or "", NONE)}) for pair in document.pairs)
    return document.model_copy(update={"pairs": tuple(pairs)})


def trace(sample: Sample, schema: Schema) -> str:
    types = tuple(name or "misc" for name in known_types(sample))
    allowed = ", ".join(schema.candidates(*types))
    steps = ("A picture.", "It is about that.", "It is so.", "A ({}) and a ({}).".format(*types), allowed, "It is that.")
    return Trace(steps, sample.label).render()


@pytest.fixture(scope="module")
def own(benchmark_dir: Path, random_tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """own.yaml, data/, traces.jsonl by hand, and base/, a model without any knowledge."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.yaml").write_text(OWN)
    for split in ("train", "valid"):
        documents = [relabelled(one) for one in load_documents(benchmark_dir, split)]
        write_jsonl(documents, folder / f"{split}.jsonl")
        more_r1(
            "data", "convert", folder / f"{split}.jsonl", folder / "data", "--split", split, "--schema", folder / "own.yaml"
        )
    schema = Schema.load(folder / "own.yaml")
    lines = [
        {"img_id": id, "object": object, "span": span, "completion": trace(one, schema)}
        for one in read_samples(folder / "data", "train", schema)
        for id, object, span in [one.key]
    ]
    (folder / "traces.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_backbone(load_backbone(random_tiny_dir), folder / "base")
    return folder


def sft(own: Path, out: Path, **settings: Any) -> SftRecipe:
    where = {"model": str(own / "base"), "data": own / "data", "traces": own / "traces.jsonl", "out": out}
    return SftRecipe.model_validate({**where, "schema": own / "own.yaml", **SHORT, **settings})


def test_a_folder_of_data_has_the_labels_of_its_schema(own: Path, benchmark_dir: Path, tmp_path: Path) -> None:
    schema = Schema.load(own / "own.yaml")
    table = json.loads((own / "data" / "rel2id.json").read_text())
    assert table == {label: number for number, label in enumerate(schema.labels)}
    more_r1("data", "check", own / "data", "--strict", "--schema", own / "own.yaml")
    labels = Counter(one.label for one in read_samples(own / "data", "train", schema))
    assert set(labels) == set(schema.labels)
    with pytest.raises(FormatError, match=r"goes_by_the_name_of' is not in the schema; .* or the schema that has it"):
        more_r1("data", "convert", own / "train.jsonl", tmp_path / "more", "--split", "train")
    # What is there already keeps its labels.
    more = ("data", "convert", benchmark_dir, own / "data", "--split", "test")
    with pytest.raises(FormatError, match=r"rel2id\.json: the splits that are there have other labels; give their schema"):
        more_r1(*more)
    assert json.loads((own / "data" / "rel2id.json").read_text()) == table


def test_all_stages_and_what_comes_after_them(own: Path, tmp_path: Path) -> None:
    """The labels are in no recipe's section and in no later command: they are handed on, then remembered."""
    out, schema = tmp_path / "run", Schema.load(own / "own.yaml")
    stages: dict[str, Any] = {
        "annotate": {"expert": {"kind": "oracle", "traces": str(own / "traces.jsonl")}, "bounds": {"least": 0}},
        "sft": {key: value for key, value in SHORT.items() if key != "threads"},
        "difficulty": {"limit": 4},
        "grpo": {"mixing": {"preset": "raw"}, "most_steps": 1, "batch_pairs": 2, "group": 2, "valid_pairs": 2},
    }
    given = {"out": str(out), "model": str(own / "base"), "data": str(own / "data"), "schema": str(own / "own.yaml")}
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump({**given, "threads": 1, "test": "valid", **stages}))
    drawn = len(read_samples(own / "data", "train", schema)) // 2
    assert "left to stage 2" in more_r1("train", file, "--dry-run", "annotate=null", f"sft.traces={own / 'traces.jsonl'}")
    assert not out.exists()
    assert "report.html" in more_r1("train", file)
    traces = read_completions(out / "annotate" / "traces.jsonl")
    assert {label for label in schema.labels for text in traces.values() if text.endswith(f">{label}</answer>")} == {
        *schema.labels
    }
    assert abs(len(traces) - drawn) < len(schema.labels), "the filter knows the labels"
    for folder in ("sft/best", "sft/final", "grpo/best", "grpo/final"):
        assert read_schema(out / folder) == schema
        assert "with relations of its own, 3 and `none`" in (out / folder / "README.md").read_text()
    for stage in ("annotate", "sft", "grpo"):
        assert yaml.safe_load((out / stage / "recipe.yaml").read_text())["schema"] == yaml.safe_load(OWN)

    model = out / "grpo" / "final"
    told = more_r1("extract", own / "valid.jsonl", "--limit", 1, "--model", model, "--json", "--confidence")
    answers = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert answers and all(one["predicted"] in schema.labels and len(one["scores"]) == 4 for one in answers)
    labels = tmp_path / "labels.jsonl"
    more_r1("extract", own / "valid.jsonl", "--limit", 1, "--model", model, "--out", labels)
    assert [json.loads(line)["predicted"] for line in labels.read_text().splitlines()] == [o["predicted"] for o in answers]
    (document, *_) = load_documents(own / "valid.jsonl")
    assert [one.predicted for one in extract(load_backbone(model), [document])] == [one["predicted"] for one in answers]
    # What is asked for goes before what is remembered.
    told = more_r1("extract", own / "valid.jsonl", "--limit", 1, "--model", model, "--json", "--schema", _more(tmp_path))
    answers = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert answers and all(one["predicted"] in Schema.more().labels for one in answers)
    measured = more_r1("evaluate", "--model", model, "--data", own / "valid.jsonl", "--limit", 1, "--max-new-tokens", 4,
                       "--out", tmp_path / "measured", "--confidence")  # fmt: skip
    assert "F1" in measured
    exported = tmp_path / "exported"
    more_r1("export", out / "annotate", "--to", "trl", "--out", exported, "--model", model)
    assert Schema.load(exported / SCHEMA_FILE) == schema
    assert "temperature" in more_r1("calibrate", "--model", model, "--data", own / "data", "--limit", 1)
    more_r1("copy-model", model, tmp_path / "copy")
    assert read_schema(tmp_path / "copy") == schema


def test_the_report_knows_the_labels_of_the_run(own: Path, tmp_path: Path) -> None:
    label = "/per/misc/has_won"
    said = Trace(("so",) * 6, label).render()
    shown = {"document": "d", "object": "o", "span": [0, 1], "gold": label, "reward": 1.5, "completion": said}
    call = {"img_id": "d", "object": "o", "span": [0, 1], "label": label, "expert": "gpt", "fingerprint": "0", "attempt": 1,
            "completion": said, "verdict": "accepted", "final": True}  # fmt: skip
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1, "sample": shown}) + "\n")
    (tmp_path / "traces.jsonl").write_text(json.dumps(call) + "\n")

    def page() -> str:
        return write_report(tmp_path).read_text(encoding="utf-8")

    assert BROKEN in page() and f'"answer": "{label}"' not in page()  # without a recipe the labels are MORE's
    (tmp_path / "recipe.yaml").write_text(f"schema:\n{indent(OWN, '  ')}")
    assert BROKEN not in page() and f'"answer": "{label}"' in page()
    # What a stranger wrote breaks nothing.
    for broken in (
        "schema: {relations: 3}",
        "schema: own.yaml",
        "schema: &a {relations: &b {<<: *b}}",
        "schema: {relations: {",
    ):
        (tmp_path / "recipe.yaml").write_text(broken)
        assert BROKEN in page()


def _more(folder: Path) -> Path:
    (folder / "more.yaml").write_text(Schema.more().render())
    assert Schema.load(folder / "more.yaml") == Schema.more()
    return folder / "more.yaml"


def test_a_head_has_as_many_labels(own: Path, tmp_path: Path) -> None:
    done = run_sft(sft(own, tmp_path / "run", head=True, form={"reasoning": "none"}))
    schema = Schema.load(own / "own.yaml")
    with safe_open(done.model / HEAD_FILE, "pt") as stored:
        assert json.loads(stored.metadata()["labels"]) == list(schema.labels)
        assert len(stored.get_tensor("out.bias")) == len(schema.labels)
    (document, *_) = load_documents(own / "valid.jsonl")
    answers = list(extract(load_model(done.model), [document], confidence=True))
    assert answers and all(one.predicted in schema.labels for one in answers)


def test_a_run_is_of_one_schema_and_its_file_may_move(own: Path, tmp_path: Path) -> None:
    done = run_sft(sft(own, tmp_path / "run"))
    (tmp_path / "moved.yaml").write_text(OWN)
    assert run_sft(sft(own, tmp_path / "run", schema=tmp_path / "moved.yaml")) == done
    assert run_sft(load_recipe(tmp_path / "run" / "recipe.yaml", [f"out={tmp_path / 'run'}"], SftRecipe)) == done
    for other in (
        OWN.replace("is called so", "has that name"),
        OWN + "  /loc/loc/near: the place seen is near the named one\n",
    ):
        (tmp_path / "moved.yaml").write_text(other)
        with pytest.raises(
            RecipeError, match=r"recipe\.yaml: the run .* \(schema: not the same relations\); give another out="
        ):
            run_sft(sft(own, tmp_path / "run", schema=tmp_path / "moved.yaml"))
    asked = {"model": str(done.model), "data": own / "data", "limit": 2, "max_new_tokens": 4, "threads": 1}
    asked |= {"out": tmp_path / "difficulty"}
    run_difficulty(DifficultyRecipe.model_validate({**asked, "schema": own / "own.yaml"}))
    with pytest.raises(RecipeError, match="other questions"):
        run_difficulty(DifficultyRecipe.model_validate({**asked, "schema": tmp_path / "moved.yaml"}))


def test_a_run_from_before_there_was_a_schema_goes_on(own: Path, benchmark_dir: Path, tmp_path: Path) -> None:
    recipe = SftRecipe.model_validate({"model": str(own / "base"), "data": benchmark_dir, "out": tmp_path / "run", **SHORT})
    done = run_sft(recipe)
    assert not (done.model / SCHEMA_FILE).exists() and "relations of its own" not in (done.model / "README.md").read_text()
    file = tmp_path / "run" / "recipe.yaml"
    told = yaml.safe_load(file.read_text())
    assert told.pop("schema") is None
    file.write_text(yaml.safe_dump(told))
    assert run_sft(recipe) == done
    with pytest.raises(RecipeError, match="not the same relations"):
        run_sft(recipe.model_copy(update={"relations": Schema.load(own / "own.yaml")}))


def test_a_label_that_the_schema_does_not_have_costs_one_line(own: Path, tmp_path: Path) -> None:
    """It is not left out as a faulty pair is, for then `none` alone would be learnt."""
    line, named = next(
        (number, label)
        for number, text in enumerate((own / "data" / "txt" / "train.txt").read_text().splitlines(), 1)
        for label in OF_MORE.values()
        if f"'{label}'" in text
    )
    said = rf"data/txt/train\.txt:{line}: .*'{named}' is not in the schema; give the one .* as schema=FILE, or mend the line$"
    with pytest.raises(FormatError, match=said) as caught:
        run_sft(sft(own, tmp_path / "run", schema=None))
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
    recipe = {"out": tmp_path / "traces", "data": own / "data", "expert": {"kind": "oracle"}}
    with pytest.raises(FormatError, match=said):
        run_annotate(AnnotateRecipe.model_validate(recipe), lambda _: None)


def test_a_schema_is_given_once(own: Path, tmp_path: Path) -> None:
    given = {"out": str(tmp_path), "model": "tiny", "data": str(own / "data"), "sft": {"schema": str(own / "own.yaml")}}
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump(given))
    with pytest.raises(RecipeError, match=r"all\.yaml: sft\.schema is not that of the recipe; give schema once, at its top"):
        load_recipe(file, [], TrainRecipe)
    found = load_recipe(file, [f"schema={own / 'own.yaml'}", "annotate.expert={kind: self_taught, model: tiny}"], TrainRecipe)
    assert found.annotate is not None and isinstance(found.annotate.expert, SelfTaught)
    stages = (found.annotate, found.annotate.expert.sft, found.sft, found.difficulty, found.grpo)
    assert {stage.relations.labels for stage in stages} == {found.relations.labels} != {Schema.more().labels}
    (tmp_path / "broken.yaml").write_text("relations: {/per/dog/owns: x}")
    with pytest.raises(RecipeError, match=r"all\.yaml: schema: .*broken\.yaml: /per/dog/owns: unknown type 'dog'") as caught:
        load_recipe(file, [f"schema={tmp_path / 'broken.yaml'}"], TrainRecipe)
    assert "\n" not in str(caught.value)
    with pytest.raises(RecipeError, match="unknown key shema; did you mean schema"):
        load_recipe(file, ["shema=own.yaml"], TrainRecipe)


def test_an_expert_is_asked_for_the_labels(own: Path, tmp_path: Path) -> None:
    expert = {"kind": "openai", "model": "gpt", "key_env": None, "base_url": "http://localhost:1/v1"}
    given = {"out": tmp_path, "data": own / "data", "schema": own / "own.yaml", "expert": expert}
    recipe = AnnotateRecipe.model_validate(given)
    (asked,) = show(recipe, 1)
    for relation in recipe.relations.relations:
        assert f"{relation.label}: {relation.meaning}" in asked
    assert "/per/per/opponent" not in asked and plan(recipe).pairs > 0


def test_a_model_teaches_itself_relations_of_ones_own(own: Path, tmp_path: Path) -> None:
    short = {**SHORT, "batch_pairs": 16}
    expert: dict[str, Any] = {"kind": "self_taught", "model": str(own / "base"), "rounds": 1, "tries": 1, "max_new_tokens": 4}
    expert |= {"examples": str(own / "traces.jsonl"), "example_epochs": 1, "sft": {**short, "share": 1}}
    given = {"out": tmp_path, "data": own / "data", "share": 0.1, "schema": own / "own.yaml", "expert": expert}
    figures = run_annotate(AnnotateRecipe.model_validate(given), lambda _: None)
    assert figures.done == figures.pairs
    assert read_schema(tmp_path / "round-0" / "sft" / "final") == Schema.load(own / "own.yaml")
