from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file

from more_r1.models.load import Backbone, load_backbone, save_backbone
from more_r1.models.manner import SCHEMA_FILE, ModelError, load_manner, read_schema
from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import Prompt, PromptForm
from more_r1.schema import Schema


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return build_tiny(["see"], seed=0, form=PromptForm(wording="short", reasoning="none"))


@pytest.fixture
def folder(tiny: Backbone, tmp_path: Path) -> Path:
    save_backbone(tiny, tmp_path / "deep" / "model")
    return tmp_path / "deep" / "model"


def test_what_is_saved_loads_the_same(tiny: Backbone, folder: Path) -> None:
    loaded = load_backbone(folder, device="cpu")
    assert loaded.form == tiny.form
    weights = tiny.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.model.state_dict().items())
    prompt = Prompt((("see",), ("<think>",)))
    assert loaded.encoder.prompt(prompt) == tiny.encoder.prompt(prompt)
    assert loaded.encoder.processor.tokenizer.padding_side == "left"
    assert not loaded.model.training
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert json.loads((folder / "processor_config.json").read_text())["processor_class"] == "Qwen2_5_VLProcessor"


def test_weights_can_be_saved_at_half_the_size(tiny: Backbone, tmp_path: Path, folder: Path) -> None:
    save_backbone(tiny, tmp_path / "half", dtype=torch.bfloat16)
    sizes = [(path / "model.safetensors").stat().st_size for path in (tmp_path / "half", folder)]
    assert sizes[0] < 0.52 * sizes[1]
    keys = [load_file(path / "model.safetensors").keys() for path in (tmp_path / "half", folder)]
    assert keys[0] == keys[1] and "lm_head.weight" not in keys[0]  # tied: once is enough
    assert tiny.model.dtype == torch.float32
    loaded = load_backbone(tmp_path / "half", device="cpu")
    assert loaded.model.dtype == torch.float32
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, tiny.model.state_dict()[name].bfloat16().float())


def test_a_folder_is_replaced_whole_or_not_at_all(tiny: Backbone, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "left-over").touch()
    before = sorted(path.name for path in folder.iterdir())

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(type(tiny.encoder.processor), "save_pretrained", fail)
        with pytest.raises(OSError, match="disk full"):
            save_backbone(tiny, folder)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    save_backbone(tiny, folder)
    assert not (folder / "left-over").exists()


def test_without_a_form_the_default_holds(folder: Path) -> None:
    (folder / "more_r1.json").unlink()
    assert load_backbone(folder, device="cpu").form == PromptForm()


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("ran"),))  # type: ignore[return-value]


def spoil_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen2"}))


def spoil_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))


def spoil_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    code = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (folder / "config.json").write_text(json.dumps({**config, **code}))
    (folder / "own.py").write_text(f"import pathlib\npathlib.Path({str(folder / 'ran')!r}).touch()\n")


def spoil_image_code(folder: Path) -> None:
    spoil_code(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen2_5_vl"}))
    stored = json.loads((folder / "processor_config.json").read_text())
    stored["image_processor"] |= {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own"}}
    (folder / "processor_config.json").write_text(json.dumps(stored))


def spoil_form(folder: Path) -> None:
    (folder / "more_r1.json").write_text('{"wording": "none such"}')


def spoil_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_type, "a qwen2 model"),
        (spoil_weights, "cannot be loaded"),
        (spoil_code, "cannot be loaded"),
        (spoil_image_code, "cannot be loaded"),
        (spoil_form, "not a prompt form"),
        (spoil_config, "no config.json"),
    ],
)
def test_bad_folders_cost_one_clear_line(folder: Path, spoil: object, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers asks whether to run a folder's code
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(ModelError, match=says) as caught:
        load_backbone(folder, device="cpu")
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("name", ["/no/such", "/nosuch", "runs/no/such", "./no/such", "runs/such/"])
def test_a_folder_that_is_not_there_is_named_as_one(name: str) -> None:
    with pytest.raises(ModelError, match=f"^{name}: no model folder"):
        load_backbone(name, device="cpu")


def test_a_hub_that_cannot_be_reached_costs_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect\nto the hub") from LocalEntryNotFoundError("no such file")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", unreachable)
    with pytest.raises(ModelError) as caught:
        load_backbone("some-owner/some-model")
    assert (
        str(caught.value) == "some-owner/some-model: the hub cannot be reached, and the model is not kept here; give a folder"
    )


def test_the_form_of_a_hub_model_is_read_too(
    tiny: Backbone, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 40
    stored = tmp_path / "hub" / "models--someone--relations"
    (stored / "refs").mkdir(parents=True)
    (stored / "refs" / "main").write_text(commit)
    (stored / "snapshots").mkdir()
    folder.rename(stored / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_backbone("someone/relations", device="cpu").form == tiny.form
    (stored / "snapshots" / commit / "more_r1.json").unlink()
    assert load_backbone("someone/relations", device="cpu").form == PromptForm()


def test_the_relations_that_a_model_was_trained_for_stay_with_it(tiny: Backbone, folder: Path) -> None:
    assert not (folder / SCHEMA_FILE).exists() and load_backbone(folder, device="cpu").schema == Schema.more()
    own = Schema.parse("relations: {/per/per/friend: {meaning: is a friend of, symmetric: true}, /per/org/fan: cheers for}")
    save_backbone(replace(tiny, schema=own), folder)
    assert load_backbone(folder, device="cpu").schema == own == read_schema(folder)
    assert read_schema("tiny") == Schema.more()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("relations: {/per/dog/owns: x}", "/per/dog/owns: unknown type 'dog'; the types are"),
        ("weights: 3", "expected `relations:`"),
        ("relations: {/per/per/friend: 'x", "found unexpected end of stream"),
        ("relations:\n" + "".join(f"  /per/per/r{n}: x\n" for n in range(9000)), "larger than any schema"),
        ("relations: {? " + "/x" * 9000 + " : x}", "malformed label"),
    ],
)
def test_a_bad_schema_in_a_folder_costs_one_clear_line(folder: Path, text: str, says: str) -> None:
    (folder / SCHEMA_FILE).write_text(text)
    for load in (load_manner, read_schema):
        with pytest.raises(ModelError, match=says) as caught:
            load(folder)
        assert str(caught.value).startswith(str(folder / SCHEMA_FILE))
        assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300


LOOPS = "{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}"
SAID = "{% for part in messages[0]['content'] %}{{ part['text'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ 1/0 }}", "division by zero"),
        ("{{ one.two.three }}", "'one' is undefined"),
        ("{% for %}", "Expected an expression"),
        ("{{ raise_exception('no users') }}", "no users"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "recursion"),
        ("{% for i in range(10**9) %}{{ i }}{% endfor %}", "Range too big"),
        ("{% for i in range(10**5) %}{{ i }}{% endfor %}", "488890 characters of a short question"),
        (LOOPS, "does not end within 0 seconds"),
        ("a question", "does not say each part of a question once"),
        (2 * SAID, "does not say each part of a question once"),
        (SAID, "does not put each picture where it belongs"),
        (None, "does not have a chat template"),
    ],
)
def test_a_chat_template_that_cannot_be_used_costs_one_clear_line(
    folder: Path, template: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("more_r1.models.template._SECONDS", 0.4)
    file = folder / "chat_template.jinja"
    file.unlink()
    if template is not None:
        file.write_text(template)
    before = sys.gettrace()
    with pytest.raises(ModelError, match=says) as caught:
        load_manner(folder)
    said = str(caught.value)
    assert said.startswith(f"{folder}: its chat template cannot be used (") and "\n" not in said
    assert sys.gettrace() is before
