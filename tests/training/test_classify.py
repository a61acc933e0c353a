"""The classification head: what it looks at, that it learns, and that a folder with one is a model like any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from halves import FORM, SHARE, VALID, Halfway, document, events
from typer.testing import CliRunner

import more_r1.training.sft as module
from more_r1.cli import app
from more_r1.document import Document, Entity, Pair, Span
from more_r1.evaluation.evaluate import evaluate
from more_r1.models.classifier import Asked, Classifier, load_model
from more_r1.models.load import Backbone, load_backbone
from more_r1.models.manner import ModelError, read_form
from more_r1.models.predict import Reading
from more_r1.models.sampling import Sampling
from more_r1.reasoning.prompt import Prompt, PromptForm, build_prompt
from more_r1.schema import Schema
from more_r1.training.difficulty import DifficultyRecipe, run_difficulty
from more_r1.training.grpo import run_grpo
from more_r1.training.recipe import RecipeError
from more_r1.training.sft import SftRecipe, run_sft

SCHEMA = Schema.more()


def recipe(halfway: Halfway, out: Path, **settings: Any) -> SftRecipe:
    given = {"model": str(halfway.data.parent / "base"), "data": halfway.data, "out": out, "head": True, "share": 1.0}
    form = {"form": {"reasoning": "none"}, "threads": 1, "valid_pairs": 99, "validate_every": 6}
    steps = {"epochs": 12, "batch_pairs": 6, "lr": 2e-3, "freeze_vision": False, "checkpoint_every": 7}
    return SftRecipe.model_validate(given | form | steps | settings)


@pytest.fixture(scope="module")
def headed(halfway: Halfway, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_sft(recipe(halfway, tmp_path_factory.mktemp("headed") / "run")).out


def prompts(count: int = VALID) -> list[Prompt]:
    form = FORM.model_copy(update={"reasoning": "none"})
    documents = [document(number) for number in range(count)]
    return [build_prompt(one, pair, SCHEMA, form) for one in documents for pair in one.pairs]


def loaded(folder: Path) -> Classifier:
    model = load_model(folder)
    assert isinstance(model, Classifier)
    return model


def test_it_learns_and_its_folder_answers_as_it_did_in_training(headed: Path, tmp_path: Path) -> None:
    log = events(headed)
    losses = [event["loss"] for event in log if "loss" in event]
    assert sum(losses[-3:]) < 0.2 * sum(losses[:3])
    last = [event for event in log if "valid_f1" in event][-1]
    assert last["valid_f1"] > 0.9 and last["valid_broken"] == 0
    told: list[tuple[int, int]] = []
    documents = [document(number) for number in range(VALID)]
    reading = Reading(confidence=True)
    metrics = evaluate(
        loaded(headed / "final"), documents, SCHEMA, tmp_path, progress=lambda *done: told.append(done), reading=reading
    )
    assert (metrics.f1, metrics.accuracy) == (last["valid_f1"], last["valid_accuracy"])
    assert metrics.confidence is not None and metrics.confidence.after.pairs == 2 * VALID
    assert told[-1] == (2 * VALID, 2 * VALID)


def test_answers_do_not_depend_on_what_is_asked_together(headed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = loaded(headed / "final"), prompts()
    together = model.logits(asked)
    alone = torch.cat([model.logits([prompt]) for prompt in reversed(asked)]).flip(0)
    assert torch.allclose(together, alone, atol=1e-4)
    monkeypatch.setattr("more_r1.models.classifier.ASKED_TOKENS", 50)
    assert torch.allclose(together, model.logits(asked), atol=1e-4)
    drawn = model.generate(asked, 1, sampling=Sampling(temperature=3), seeds=range(len(asked)))
    assert drawn == model.generate(asked, 1, sampling=Sampling(temperature=3), seeds=range(len(asked)))
    assert drawn != model.generate(asked, 1)


def test_scores_are_the_schemas_in_its_order(headed: Path) -> None:
    model, asked = loaded(headed / "final"), prompts(2)
    rows = model.label_scores(asked, [""] * len(asked), SCHEMA)
    turned = Schema(relations=SCHEMA.relations[::-1])
    for row, other, text in zip(rows, model.label_scores(asked, [""] * 4, turned), model.generate(asked, 1), strict=True):
        assert row is not None and other is not None
        assert torch.tensor(row).exp().sum() == pytest.approx(1)
        assert dict(zip(SCHEMA.labels, row, strict=True)) == dict(zip(turned.labels, other, strict=True))
        assert text == f"<answer>{max(zip(row, SCHEMA.labels, strict=True))[1]}</answer>"
    fewer = Schema(relations=SCHEMA.relations[1:])
    for ask in (lambda: model.label_scores(asked, [""] * 4, fewer), lambda: model.generate(asked, 1, keep_form=fewer)):
        with pytest.raises(ModelError, match="not trained on this schema"):
            ask()


@pytest.mark.parametrize("order", ["shared", "paper"])
@pytest.mark.parametrize("coordinates", [False, True])
def test_it_looks_at_the_crop_and_at_the_name(random_tiny: Backbone, order: str, coordinates: bool) -> None:
    encoder = random_tiny.encoder
    form = PromptForm.model_validate({**FORM.model_dump(), "reasoning": "none", "order": order, "coordinates": coordinates})
    base = document(3)
    tokens = ("Maya", "of", "Lume", "wins", "in", "Lume")
    entities = tuple(Entity(id=f"{a}-{b}", span=Span(start=a, end=b)) for a, b in ((0, 1), (2, 3), (0, 3)))
    pairs = tuple(Pair(object=one.id, entity=entity.id) for one in base.objects for entity in entities)
    asked = Document(**{**dict(base), "tokens": tokens, "entities": entities, "pairs": pairs})
    found = [build_prompt(asked, pair, SCHEMA, form) for pair in pairs]
    laid = Asked.build(found, encoder)
    row = laid.forest.ids[0].tolist()
    names = ["Maya", "Lume (mention 1 of 2)", "Maya of Lume"] * 2
    for prompt, crop, name, expected in zip(found, laid.objects, laid.entities, names, strict=True):
        patches = int(encoder.pixels(prompt.pictures[1])[1].prod()) // encoder.merge**2
        assert [row[place] for place in crop] == [encoder.image_id] * patches
        assert encoder.decode([row[place] for place in name]).strip() == expected
    assert len(set(laid.objects)) == len(laid.objects) == 6


def test_a_run_that_was_killed_goes_on_to_the_same_head(
    halfway: Halfway, headed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(11))

    def dying(schema: Schema) -> Any:
        update = real(schema)

        def step(*arguments: Any) -> Any:
            next(steps)  # StopIteration, as good as any end
            return update(*arguments)

        return step

    real = module.classify
    monkeypatch.setattr(module, "classify", dying)
    with pytest.raises((StopIteration, RuntimeError)):
        run_sft(recipe(halfway, tmp_path / "run"))
    monkeypatch.setattr(module, "classify", real)
    again = run_sft(recipe(halfway, tmp_path / "run"))
    one, other = loaded(headed / "final"), loaded(again.out / "final")
    assert one.fingerprint == other.fingerprint
    assert events(headed) == events(again.out)


def test_what_is_no_head_is_refused(halfway: Halfway, headed: Path, tmp_path: Path) -> None:
    assert isinstance(load_model(halfway.model), Backbone)
    with pytest.raises(ValueError, match=r"set form\.reasoning=none"):
        recipe(halfway, tmp_path, form={"reasoning": "steps"})
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in (headed / "final").iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "head.safetensors").unlink()
    (folder / "head.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"head\.safetensors: no head .*train it anew"):
        load_model(folder)
    assert read_form(folder).reasoning == "none"


def test_where_words_are_needed_a_head_is_refused(halfway: Halfway, headed: Path, tmp_path: Path) -> None:
    """Its language model has learnt nothing of words: what it wrote would be noise, and nobody would be told."""
    model = str(headed / "best")
    runs: tuple[Callable[[], object], ...] = (
        lambda: run_sft(recipe(halfway, tmp_path / "sft", model=model, head=False)),
        lambda: run_difficulty(DifficultyRecipe(model=model, data=halfway.data, share=SHARE, out=tmp_path / "difficulty")),
        lambda: run_grpo(halfway.grpo(tmp_path / "grpo", model=model)),
        lambda: load_backbone(model),
    )
    for run in runs:
        with pytest.raises(ModelError, match=r"best: has a classification head and writes no words.*trained from"):
            run()
    assert not any((tmp_path / name).exists() for name in ("sft", "difficulty", "grpo"))


def test_a_copy_keeps_its_head_and_the_head_is_calibrated(halfway: Halfway, headed: Path, tmp_path: Path) -> None:
    copy, runner = tmp_path / "copy", CliRunner()
    done = runner.invoke(app, ["copy-model", str(headed / "best"), str(copy), "--dtype", "bfloat16"])
    assert done.exit_code == 0, done.output
    asked = prompts()
    assert torch.equal(loaded(copy).logits(asked).argmax(-1), loaded(headed / "best").logits(asked).argmax(-1))
    done = runner.invoke(app, ["calibrate", "--model", str(copy), "--data", str(halfway.data), "--split", "valid"])
    assert done.exit_code == 0, done.output
    assert loaded(copy).temperature != 1
    # A head is sure of what it was taught: that of the language model, which learnt nothing, would need to be less so.
    fitted = json.loads((copy / "calibration.json").read_text())
    assert fitted["nll_after"] <= fitted["nll_before"] < 1


def test_a_run_from_before_a_setting_is_the_same_run(halfway: Halfway, headed: Path) -> None:
    file = headed / "recipe.yaml"
    lines = file.read_text()
    file.write_text("".join(line for line in lines.splitlines(keepends=True) if not line.startswith("decision_weight")))
    assert run_sft(recipe(halfway, headed)).steps > 0
    with pytest.raises(RecipeError, match=r"another recipe \(decision_weight=1\.0 there, 2\.0 here"):
        run_sft(recipe(halfway, headed, decision_weight=2))
    file.write_text(lines)
