"""A token at a time gives what the whole forest gives, whatever the matrices are and however they are read."""

from __future__ import annotations

import copy

import pytest
import torch

import more_r1.models.step as step
from more_r1.models.forest import Forest, logprobs
from more_r1.models.load import Backbone
from more_r1.models.lora import Lora, add_lora
from more_r1.models.sampling import Sampling, rollout_seed, sample
from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import Prompt

PROMPTS = [Prompt((("w1 w2\n",), (f"w{i}",))) for i in range(3, 6)]


@pytest.fixture(scope="module")
def trained() -> Backbone:
    """With biases and norms that a fresh model does not have."""
    backbone = build_tiny([f"w{i}" for i in range(20)], 0)
    torch.manual_seed(1)
    for name, parameter in backbone.model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            parameter.data += 0.5 * torch.randn_like(parameter)
    return backbone


@pytest.mark.parametrize("way", ["as it is", "not copied", "double", "adapters", "learned since"])
def test_a_token_at_a_time(trained: Backbone, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(trained.model)
    backbone = Backbone(model, trained.encoder, trained.form)
    seeds = [[rollout_seed(0, 0, number, i) for i in range(number + 2)] for number in range(len(PROMPTS))]
    if way == "not copied":
        monkeypatch.setattr(step, "PACKED_BYTES", 0)
        monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None)
    elif way == "double":
        model.double()
    elif way == "adapters":
        add_lora(model, Lora(rank=4))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.1)
    elif way == "learned since":
        sample(backbone, PROMPTS, seeds, Sampling(), 4)
        for parameter in model.model.language_model.parameters():
            parameter.data *= 1.1
    drawn = sample(backbone, PROMPTS, seeds, Sampling(), 12)
    flat = [(trained.encoder.prompt(p), rollout) for p, group in zip(PROMPTS, drawn, strict=True) for rollout in group]
    with torch.no_grad():
        wanted = logprobs(model, Forest.build([(segments, rollout.ids) for segments, rollout in flat], trained.encoder))
    for (_, rollout), tokens in zip(flat, wanted, strict=True):
        assert list(rollout.logprobs) == pytest.approx(tokens.tolist(), abs=1e-5)
