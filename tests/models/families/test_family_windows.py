"""Text models that were given windows: on a forest and in decoding they see what they see in the stock model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_family_decode import stock_text
from test_family_forest import TOLERANCE, alone, gradients, samples, sequences, weights
from tiny_families import Both, some_prompts, stock_inputs, write_tiny
from transformers import AutoModelForImageTextToText

from more_r1.models import recursive
from more_r1.models.forest import Forest, logprobs
from more_r1.models.generate import generate
from more_r1.models.load import load_backbone

# Shorter than all prompts; and passed by some prompts, by others while their completions grow.
WINDOWS = (8, 70)


@pytest.fixture(params=[(kind, window) for kind in ("qwen2_vl", "qwen2_5_vl", "llava_onevision") for window in WINDOWS])
def windowed(request: pytest.FixtureRequest, tmp_path: Path) -> Both:
    kind, window = request.param
    write_tiny(kind, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    layers = ["full_attention", "sliding_attention", "sliding_attention"]
    text = config.get("text_config", config)  # flat, as those of the hub
    text |= {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 1, "layer_types": layers}
    (tmp_path / "config.json").write_text(json.dumps(config))
    stock = AutoModelForImageTextToText.from_pretrained(tmp_path, attn_implementation="sdpa").eval()
    assert [layer.self_attn.sliding_window for layer in stock.get_decoder().layers] == [None, window, window]
    return Both(kind, tmp_path, load_backbone(tmp_path, device="cpu"), stock)


def test_a_forest_gives_what_each_sequence_gives_alone(windowed: Both) -> None:
    asked = sequences(windowed, 0)
    forest = Forest.build(samples(windowed, asked), windowed.ours.encoder)
    wanted = torch.cat(alone(windowed, asked))
    found = torch.cat(logprobs(windowed.ours.model, forest))
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)
    share = weights(found)
    for values in (found, wanted):
        (values * share).sum().backward()
    ours, stock = gradients(windowed.ours.model), gradients(windowed.stock)
    assert float((ours - stock).norm() / stock.norm()) < TOLERANCE
    recursive.scored(windowed.ours.model, forest, 40, lambda values, at: (values * share[at]).sum())
    parts = gradients(windowed.ours.model)
    assert float((parts - stock).norm() / stock.norm()) < TOLERANCE
    for layer in windowed.ours.model.get_decoder().layers:
        layer.self_attn.sliding_window = None
    with torch.no_grad():
        other = torch.cat(logprobs(windowed.ours.model, forest))
    assert float((other - found.detach()).abs().max()) > 100 * TOLERANCE  # the window matters


def test_greedy_texts_are_those_of_stock_generate(windowed: Both) -> None:
    prompts = some_prompts(3)
    sizes = [stock_inputs(windowed.ours, prompt)["input_ids"].shape[1] for prompt in prompts]
    assert min(sizes) < WINDOWS[1] < max(sizes)
    texts = generate(windowed.ours, prompts, 40)
    assert texts == [stock_text(windowed, stock_inputs(windowed.ours, prompt), 40) for prompt in prompts]
