"""Of every family: adapters train and merge, what is saved is stock again, and a frozen tower is asked once a picture."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import Both, some_prompts
from torch import Tensor
from transformers import AutoModelForImageTextToText

from more_r1.models.forest import Forest, scored
from more_r1.models.load import Backbone, load_backbone, save_backbone
from more_r1.models.lora import Lora, add_lora, without_lora
from more_r1.models.vision import freeze_vision, frozen_copy, remembered, vision_parameters


@pytest.fixture
def forest(both: Both) -> Forest:
    encoder = both.ours.encoder
    return Forest.build([(encoder.prompt(prompt), encoder.completion("w1 w2 w3")) for prompt in some_prompts(6)], encoder)


def values(model: Any, forest: Forest) -> Tensor:
    with torch.no_grad():
        return scored(model, forest)[0]


def test_adapters_train_and_merge_into_a_stock_folder(both: Both, forest: Forest, tmp_path: Path) -> None:
    model = copy.deepcopy(both.ours.model).train()
    before = values(both.ours.model, forest)
    add_lora(model, Lora(rank=4))
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    # Two matrices for each of seven projections in three layers, and nothing beside them.
    assert len(learning) == 2 * 7 * 3 and all(".lora_" in name for name in learning)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(4):
        loss = -scored(model, forest)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    model.eval()
    with without_lora(model):
        torch.testing.assert_close(values(model, forest), before, atol=1e-6, rtol=0)

    save_backbone(Backbone(model, both.ours.encoder, both.ours.form), tmp_path / "merged")
    stock = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged").eval()
    assert type(stock) is type(both.stock)
    assert stock.state_dict().keys() == both.stock.state_dict().keys()
    trained, ids = values(model, forest), torch.arange(40)[None]
    again = load_backbone(tmp_path / "merged", device="cpu")
    torch.testing.assert_close(values(again.model, forest), trained, atol=1e-5, rtol=0)
    with torch.no_grad():
        assert torch.equal(stock(ids).logits, again.model(ids).logits)
    named = [json.loads((folder / "processor_config.json").read_text()) for folder in (tmp_path / "merged", both.folder)]
    assert named[0]["processor_class"] == named[1]["processor_class"]
    prompt = some_prompts(6)[0]
    assert again.encoder.prompt(prompt) == both.ours.encoder.prompt(prompt)
    for picture in prompt.pictures:
        assert torch.equal(again.encoder.pixels(picture)[0], both.ours.encoder.pixels(picture)[0])


def test_a_frozen_tower_is_asked_once_a_picture(both: Both, forest: Forest) -> None:
    model = copy.deepcopy(both.ours.model)
    freeze_vision(model)
    reference = frozen_copy(model)
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    shared = {id(parameter) for parameter in vision_parameters(model)}
    assert {id(parameter) for parameter in reference.parameters()} & {id(p) for p in model.parameters()} == shared
    calls: list[int] = []
    # A layer of the tower that every picture goes through.
    hook = model.get_encoder("image").register_forward_hook(lambda *_: calls.append(1))
    wanted = values(model, forest)
    with remembered(model):
        first, other, again = values(model, forest), values(reference, forest), values(model, forest)
    hook.remove()
    assert len(calls) == 2  # without the memory, and once with it
    for found in (first, other, again):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.1)
    torch.testing.assert_close(values(reference, forest), wanted, atol=1e-5, rtol=0)
    assert not torch.allclose(values(model, forest), wanted, atol=1e-2)


def test_gradients_of_the_text_model_are_the_same_with_the_memory(both: Both, forest: Forest) -> None:
    model = copy.deepcopy(both.ours.model)
    freeze_vision(model)

    def gradients() -> list[Tensor]:
        model.zero_grad()
        scored(model, forest)[0].sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    wanted = gradients()
    with remembered(model):
        scored(model, forest)
        got = gradients()
    assert len(got) == len(wanted) > 0
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_tower_that_learns_gets_its_gradients(both: Both, forest: Forest) -> None:
    model = copy.deepcopy(both.ours.model)
    with remembered(model):
        scored(model, forest)[0].sum().backward()
    tower = list(model.get_encoder("image").parameters())
    assert sum(parameter.grad is not None and bool(parameter.grad.any()) for parameter in tower) > len(tower) / 2
    assert not {id(p) for p in frozen_copy(model).parameters()} & {id(p) for p in model.parameters()}
