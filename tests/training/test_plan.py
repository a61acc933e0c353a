"""The plan's arithmetic against the real thing: models, forests, counted operations, kept bytes."""

from __future__ import annotations

import io
import json
import math
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from typer.testing import CliRunner

from more_r1.cli import app
from more_r1.models.attention import Dense
from more_r1.models.forest import Forest, Sample
from more_r1.models.load import Backbone
from more_r1.reasoning.prompt import Picture, Prompt
from more_r1.training.difficulty import DifficultyRecipe
from more_r1.training.grpo import GrpoRecipe
from more_r1.training.measured import Measured
from more_r1.training.mixing import Mixing, order
from more_r1.training.plan.compare import plan
from more_r1.training.plan.compare_table import render
from more_r1.training.plan.cost import Level, forward, image_tokens_of, seen_by, tokens_of, training
from more_r1.training.plan.layouts import LAYOUTS, Lengths, answered, prompts
from more_r1.training.plan.memory import Sharding
from more_r1.training.plan.recipe import Assumed, Devices, PlanRecipe
from more_r1.training.plan.shape import Shape, VisionShape, read_shape
from more_r1.training.plan.train import assumed_counts, stages_of
from more_r1.training.recipe import RecipeError, load_recipe
from more_r1.training.sft import SftRecipe

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "plan-7b.yaml"
SMALL = Shape(
    layers=2, hidden=96, intermediate=160, heads=6, kv_heads=2, vocab=300, tied=False,
    vision=VisionShape(depth=3, hidden=64, intermediate=96, heads=2, full_blocks=1),
)  # fmt: skip


def config_of(shape: Shape) -> Qwen2_5_VLConfig:
    vision, half = shape.vision, shape.hidden // shape.heads // 2
    sections = [half - half // 3 * 2, half // 3, half // 3]
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": shape.vocab, "hidden_size": shape.hidden, "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections},
            "tie_word_embeddings": shape.tied, "bos_token_id": None, "eos_token_id": 1,
        },
        vision_config={
            "depth": vision.depth, "hidden_size": vision.hidden, "intermediate_size": vision.intermediate,
            "num_heads": vision.heads, "out_hidden_size": shape.hidden, "patch_size": vision.patch,
            "spatial_merge_size": vision.merge, "temporal_patch_size": vision.frames, "in_channels": vision.channels,
            "window_size": vision.window, "fullatt_block_indexes": list(range(vision.full_blocks)),
        },
        tie_word_embeddings=shape.tied, image_token_id=2, video_token_id=3, vision_start_token_id=4, vision_end_token_id=5,
    )  # fmt: skip


def model_of(shape: Shape, attention: str = "eager") -> Any:
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config_of(shape)).train()
    model.set_attn_implementation(attention)
    return model


def parameters_of(shape: Shape) -> int:
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config_of(shape))
    return sum(parameter.numel() for parameter in model.parameters())


LENGTHS = Lengths(instruction=30, whole=20, headline=5, crop=8, question=4, completion=12)
PUBLISHED = load_recipe(RECIPE, [], PlanRecipe)


def recipe(**given: Any) -> PlanRecipe:
    return PUBLISHED.model_copy(update={"shape": SMALL, "lengths": LENGTHS} | given)


# Parameters


def test_parameters_of_the_published_model() -> None:
    shape = PUBLISHED.shape
    assert shape is not None
    assert shape.parameters == parameters_of(shape) == 8_292_166_656  # as the hub's model page counts them, too
    with torch.device("meta"):
        visual = Qwen2_5_VLForConditionalGeneration(config_of(shape)).model.visual
    assert shape.vision_parameters == sum(parameter.numel() for parameter in visual.parameters())


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.data())
def test_parameters_of_any_model(data: st.DataObject) -> None:
    def number(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    kv_heads, groups = number(1, 3), number(1, 3)
    shape = Shape(
        layers=number(1, 3), heads=kv_heads * groups, kv_heads=kv_heads, hidden=kv_heads * groups * 12 * number(1, 2),
        intermediate=number(1, 50), vocab=number(10, 99), tied=data.draw(st.booleans()),
        vision=VisionShape(
            depth=number(1, 3), hidden=8 * number(1, 4), heads=2, intermediate=number(1, 50), full_blocks=1,
            patch=number(2, 16), merge=number(1, 3), frames=number(1, 2), channels=number(1, 3),
        ),
    )  # fmt: skip
    assert shape.parameters == parameters_of(shape)


def test_lora_parameters() -> None:
    from peft import LoraConfig, get_peft_model

    layers = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
    config = LoraConfig(r=4, target_modules=rf".*language_model.*({'|'.join(layers)})")
    adapted = get_peft_model(model_of(SMALL), config)
    assert SMALL.lora_parameters(4) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def test_sizes_are_read_from_a_folder_as_transformers_writes_and_as_the_hub_has_them(tmp_path: Path) -> None:
    config_of(SMALL).save_pretrained(tmp_path)
    assert read_shape(str(tmp_path)) == SMALL
    file = tmp_path / "config.json"
    nested = json.loads(file.read_text())
    nested["vision_config"]["fullatt_block_indexes"] = [0, 7, 15]  # of a deeper tower
    text = {name: value for name, value in nested.pop("text_config").items() if name not in ("model_type", "dtype")}
    file.write_text(json.dumps(text | nested))
    assert read_shape(str(tmp_path)) == SMALL
    made = plan(recipe(model=str(tmp_path), shape=None))
    assert made == plan(recipe())


# Tokens


def planted(backbone: Backbone, lengths: tuple[int, ...], documents: int, pairs: int, group: int) -> list[list[list[Sample]]]:
    """By document, by pair: the rollouts, all of the same lengths but of different words and pictures."""
    rng, encoder = random.Random(0), backbone.encoder
    instruction, headline, question, completion = lengths

    def words(count: int) -> str:
        return " " + " ".join(rng.choice(("per", "org", "loc", "the", "in")) for _ in range(count))

    def picture(side: int) -> Picture:
        file = io.BytesIO()
        pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "PNG")
        return Picture(file.getvalue(), None, side * side)

    root = (words(instruction),)
    planted = []
    for _ in range(documents):
        document = (picture(112), words(headline))
        prompted = [encoder.prompt(Prompt((root, document, (picture(56), words(question))))) for _ in range(pairs)]
        # Random ids, so that equal completions, which a forest computes once, do not come up.
        planted.append(
            [[(prompt, tuple(rng.randrange(250) for _ in range(completion))) for _ in range(group)] for prompt in prompted]
        )
    return planted


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(1, 9), st.integers(6, 15)),
    documents=st.integers(1, 3),
    pairs=st.integers(1, 5),
    group=st.integers(1, 4),
)
def test_tokens_are_those_of_real_forests(
    random_tiny: Backbone, lengths: tuple[int, ...], documents: int, pairs: int, group: int
) -> None:
    samples, encoder = planted(random_tiny, lengths, documents, pairs, group), random_tiny.encoder
    instruction, document, pair = (len(segment.ids) for segment in samples[0][0][0][0])
    asked = Lengths(
        instruction=instruction, whole=16, headline=document - 16, crop=4, question=pair - 4, completion=lengths[-1]
    )  # 28 x 28 pixels are one token
    levels = {layout: answered(asked, layout, documents * pairs, group, pairs) for layout in LAYOUTS}

    forest = Forest.build([sample for each in samples for rollouts in each for sample in rollouts], encoder)
    assert tokens_of(levels["document"]) == forest.tokens
    assert seen_by(levels["document"]) == int(Dense(forest.spans).mask().sum())
    assert forest.pixels is not None and image_tokens_of(levels["document"]) * 4 == len(forest.pixels)
    assert tokens_of(levels["repeated"]) == forest.repeated_tokens
    length = int(asked.prompt + asked.completion)
    assert seen_by(levels["repeated"]) == documents * pairs * group * int(torch.ones(length, length).tril().sum())

    groups = [Forest.build(rollouts, encoder) for each in samples for rollouts in each]
    assert tokens_of(levels["group"]) == sum(forest.tokens for forest in groups)
    assert seen_by(levels["group"]) == sum(int(Dense(forest.spans).mask().sum()) for forest in groups)


@given(q=st.floats(0.001, 1), p=st.integers(1, 12))
def test_pairs_that_meet(q: float, p: int) -> None:
    drawn = round(q * 10000) or 1
    settings = recipe(train_pairs=10000, pairs_per_document=p)
    chances = {k: math.comb(p, k) * (drawn / 1e4) ** k * (1 - drawn / 1e4) ** (p - k) for k in range(1, p + 1)}
    mean = sum(k * chance for k, chance in chances.items()) / sum(chances.values())
    assert settings.met(drawn) == pytest.approx(mean, rel=1e-6)


def test_samples_of_an_epoch_are_those_that_are_drawn() -> None:
    pool = [Measured(document=f"d{n}", object="o", span=(0, 1), label="none", predicted=("none",)) for n in range(40)]
    for hard in (3, 7, 15):
        settings = recipe(hard=hard, easy=40 - hard)
        for epoch in (1, 2, 3, 4):
            assert settings.samples(epoch) == len(order(pool[hard:], pool[:hard], epoch, Mixing(), 0))


@pytest.mark.parametrize("preset", ["raw", "hard_only", "fixed", "progressive"])
def test_stages_count_what_is_drawn(tmp_path: Path, preset: str) -> None:
    pool = [Measured(document=f"d{n}", object="o", span=(0, 1), label="none", predicted=("none",)) for n in range(40)]
    hard, mixing = 7, Mixing.model_validate({"preset": preset})
    common = {"model": "m", "data": tmp_path, "out": tmp_path}
    sections = (
        SftRecipe.model_validate(common),
        DifficultyRecipe.model_validate(common),
        GrpoRecipe.model_validate({**common, "difficulty": tmp_path, "mixing": {"preset": preset}}),
    )
    assumed = Assumed.model_validate(yaml.safe_load((ROOT / "recipes" / "more-qwen2.5-vl-7b.yaml").read_text())["plan"])
    counts = replace(assumed_counts(*sections[:2], assumed), pool=40, hard=hard)
    grpo = stages_of(*sections, counts, "float32", "ddp", 1)[-1]
    assert grpo.pairs == tuple(len(order(pool[hard:], pool[:hard], epoch, mixing, 0)) for epoch in (1, 2, 3, 4))


def test_samples_of_the_paper() -> None:
    assert [PUBLISHED.samples(epoch) for epoch in (1, 2, 3, 4)] == [2 * 2370, 2370 + 1185, 2370 + 593, 2370 + 296]
    assert PUBLISHED.model_copy(update={"easy": 100}).samples(1) == 2470


# Operations


def inputs(rows: int, grid: tuple[int, int], length: int) -> dict[str, torch.Tensor]:
    """Sequences of `length` tokens that begin with a picture of grid[0] x grid[1] patches."""
    images = grid[0] * grid[1] // 4
    ids = torch.full((rows, length), 7)
    ids[:, :images] = 2
    return {
        "input_ids": ids,
        "mm_token_type_ids": (ids == 2).int(),
        "pixel_values": torch.randn(rows * images * 4, 3 * 2 * 14 * 14),
        "image_grid_thw": torch.tensor([[1, *grid]] * rows),
    }


@pytest.mark.parametrize("grid", [(8, 8), (16, 8), (4, 4)])  # windows are of 8 x 8 patches
def test_operations_of_a_forward_call(grid: tuple[int, int]) -> None:
    rows, length, scored = 2, 60, 9
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model_of(SMALL)(**inputs(rows, grid, length), logits_to_keep=scored, use_cache=False)
    expected = forward(SMALL, [Level(rows, length, pictures=(grid[0] * grid[1] / 4,))], rows * scored)
    # Eager attention computes what the causal mask hides as well.
    hidden = expected.attention * (2 * length / (length + 1) - 1)
    assert counter.get_total_flops() == pytest.approx(expected.total + hidden, rel=1e-3)


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("way", ["all", "frozen vision", "adapters"])
def test_operations_of_a_training_step(way: str, recomputed: bool) -> None:
    from peft import LoraConfig, get_peft_model

    rows, length, scored, images = 2, 60, 9, 32
    model = model_of(SMALL)
    if way == "frozen vision":
        model.model.visual.requires_grad_(False)
    if way == "adapters":
        model = get_peft_model(model, LoraConfig(r=1, target_modules=r".*language_model.*_proj")).base_model.model
    if recomputed:
        model.activation_checkpointing_enable()
        model.disable_input_require_grads()  # which would send a backward pass through a frozen vision tower for nothing
    given = inputs(rows, (8, 8), length)
    with FlopCounterMode(display=False) as counter:
        model(**given, logits_to_keep=scored, use_cache=False).logits.sum().backward()

    once = forward(SMALL, [Level(rows, length, pictures=(images / rows,))], rows * scored)
    frozen = way == "frozen vision"
    expected = training(SMALL, once, recomputed=recomputed, adapters=way == "adapters", frozen_vision=frozen)
    # Eager attention computes what the mask hides as well, and does not compute the scores anew in the backward pass.
    eager = once.attention * (2 * length / (length + 1)) * (3 + recomputed) - expected.attention
    # The gradient of pixels is not wanted; patch embedding, merger and the last matrix of each block are not recomputed.
    vision, wide = SMALL.vision, SMALL.vision.hidden * 4
    patching = 2 * images * 4 * (3 * 2 * 14 * 14) * vision.hidden
    rest = 2 * images * (wide * wide + wide * SMALL.hidden + 4 * vision.depth * vision.hidden * vision.intermediate)
    less = patching + recomputed * (patching + rest) if way == "all" else 0
    # Adapters of rank 1 are as wide as this model's layers are narrow.
    tolerance = 0.04 if way == "adapters" else 1e-3
    assert counter.get_total_flops() == pytest.approx(expected.total + eager - less, rel=tolerance)


@pytest.mark.parametrize("recomputed", [False, True])
def test_operations_of_attention_are_as_torch_counts_its_flash_kernel(recomputed: bool) -> None:
    once = forward(SMALL, [Level(1, 60)], 0)
    query = key = (1, SMALL.heads, 60, 16)
    back = sdpa_backward_flop_count(query, query, key, key) / sdpa_flop_count(query, key, key)
    counted = training(SMALL, once, recomputed=recomputed, adapters=False, frozen_vision=True).attention
    assert counted == pytest.approx(once.attention * (1 + recomputed + back))


def test_head_for_all_tokens() -> None:
    made, adapted = plan(recipe()), plan(recipe(lora_rank=2))
    for layout in LAYOUTS:
        phase = made.epochs[0].phases[layout][3]
        scored = made.epochs[0].samples * 8 * LENGTHS.completion
        assert made.head_for_all[layout] == pytest.approx(phase.flops.head / scored * phase.tokens)
        assert adapted.head_for_all[layout] == pytest.approx(made.head_for_all[layout] * 2 / 3)


# Bytes


def kept(shape: Shape, tokens: int, dtype: torch.dtype, part: str) -> int:
    """Bytes that autograd keeps of one call, weights apart."""
    model = model_of(shape, "sdpa").to(dtype)
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)  # or its address is given away again
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        if part == "layer":
            positions = torch.arange(tokens).expand(3, 1, tokens)
            model.model.language_model(input_ids=torch.full((1, tokens), 7), position_ids=positions, use_cache=False)
        else:
            pixels = torch.randn(tokens, 3 * 2 * 14 * 14, dtype=dtype)
            model.model.visual(pixels, torch.tensor([[1, 8, tokens // 8]]))
    return sum(found.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("part", ["layer", "block"])
def test_bytes_kept_of_a_layer(dtype: torch.dtype, part: str) -> None:
    tokens, shape = 64, SMALL.model_copy(update={"vision": SMALL.vision.model_copy(update={"full_blocks": 0})})
    deeper = {
        "layer": shape.model_copy(update={"layers": shape.layers + 1}),
        "block": shape.model_copy(update={"vision": shape.vision.model_copy(update={"depth": shape.vision.depth + 1})}),
    }[part]
    expected = shape.layer_bytes(dtype.itemsize) if part == "layer" else shape.block_bytes(dtype.itemsize)
    assert kept(deeper, tokens, dtype, part) - kept(shape, tokens, dtype, part) == tokens * expected


def test_memory() -> None:
    settings = recipe(group=3, pairs_at_once=2, sharding="ddp", precision="float32", devices=alone())
    made = plan(settings)
    model, length = model_of(SMALL), settings.lengths.prompt + settings.lengths.completion - 1
    cache = model(input_ids=torch.full((6, int(length)), 7)).past_key_values
    prompts_again = 2 * 4 * SMALL.layers * SMALL.kv * 6 * settings.lengths.prompt  # twice while they are sorted
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert made.memory["repeated"].cache == max(held, 2 * prompts_again)
    assert made.trained == SMALL.parameters - SMALL.vision_parameters
    for name, memory in made.memory.items():
        assert memory.weights == 4 * SMALL.parameters and memory.reference == 4 * made.trained, name
        assert memory.gradients == 4 * made.trained and memory.optimizer == 8 * made.trained
        assert (memory.whole, memory.layers) == (0, 0)
        always = memory.weights + memory.reference + memory.optimizer
        assert memory.peak == max(memory.drawing, memory.training) > always + max(memory.cache, memory.logits)
        assert memory.training <= always + memory.gradients + memory.activations + memory.logits
    caches, activations = ([getattr(each, part) for each in made.memory.values()] for part in ("cache", "activations"))
    assert caches[0] > caches[1] > caches[2] == caches[3]
    assert activations[0] > activations[1] > activations[2]
    # The recursive form holds one path and one completion, however many there are.
    more = plan(settings.model_copy(update={"group": 30, "pairs_at_once": 20})).memory
    assert more["document, recursive"].activations == made.memory["document, recursive"].activations
    assert more["document"].activations > 10 * made.memory["document"].activations


def alone(count: int = 1) -> Devices:
    return PUBLISHED.devices.model_copy(update={"count": count})


def test_memory_of_a_forest_by_hand() -> None:
    asked = {"group": 3, "pairs_at_once": 2, "train_pairs": 20, "hard": 20, "easy": 0, "pairs_per_document": 2}
    document, recursive = 30 + 25 + 2 * 12 + 6 * 11, 30 + 25 + 12 + 11
    layer, patches, block = SMALL.layer_bytes(2), 4 * (20 + 2 * 8), SMALL.block_bytes(2)
    pixels, keys, between = 4 * 3 * 2 * 14 * 14, 2 * 2 * 2 * SMALL.kv * LENGTHS.prompt, 2 * SMALL.intermediate
    memory = plan(recipe(**asked)).memory
    assert memory["document"].activations == patches * pixels + document * (2 * 2 * 96 + layer + between)
    assert memory["group"].logits == 6 * LENGTHS.completion * 300 * (2 + 4 + 4 + 4)
    assert list(memory) == list(LAYOUTS)  # a split model is not walked through
    whole = plan(recipe(**asked, sharding="ddp")).memory["document, recursive"]
    assert whole.activations == 4 * (20 + 8) * pixels + keys + recursive * (2 * layer + between)
    assert whole.logits == LENGTHS.completion * 300 * (2 + 4 + 4 + 4)
    memory = plan(recipe(**asked, freeze_vision=False)).memory
    inputs, tiles = 2 * (2 * document * 96 + 3 * patches * 64), patches * 2 * SMALL.vision.intermediate
    again = max(document * layer, patches * block) + max(document * between, tiles)
    assert memory["document"].activations == patches * pixels + inputs + again
    memory = plan(recipe(**asked, freeze_vision=False, checkpointing=False)).memory
    kept = 2 * document * layer + 3 * patches * block + max(document * between, tiles)
    assert memory["document"].activations == patches * pixels + kept


def test_logits_of_a_large_vocabulary_are_never_all_there() -> None:
    from more_r1.models import decode, forest
    from more_r1.training.plan import memory

    assert (memory.LOGITS, memory.BATCH_TOKENS) == (forest.LOGITS, decode.BATCH_TOKENS)
    assert plan(PUBLISHED).memory["repeated"].logits == forest.LOGITS * 14


def test_devices_share_out_what_sharding_says() -> None:
    frozen, tower = SMALL.parameters - SMALL.vision_parameters, SMALL.vision_parameters
    found = {}
    for sharding in get_args(Sharding):
        one = plan(recipe(sharding=sharding)).memory["group"]
        found[sharding] = [one.weights - 2 * tower, one.gradients, one.optimizer, one.whole]
        assert one.reference == 2 * frozen and (one.layers > 0) == (sharding in ("fsdp2", "zero3"))
    assert found["ddp"] == [6 * frozen, 2 * 4 * frozen, 8 * frozen, 0]
    assert found["zero2"] == [2 * frozen, 2 * frozen / 8, 12 * frozen / 8, 0]
    assert found["zero3"] == [2 * frozen / 8, 2 * frozen / 8, 12 * frozen / 8, 2 * frozen]
    assert found["fsdp2"] == [4 * frozen / 8, 4 * frozen / 8, 8 * frozen / 8, 2 * frozen]
    single = plan(recipe(sharding="fsdp2", devices=alone())).memory["group"]
    assert (single.whole, single.layers) == (0, 0)


def test_adapters_need_no_reference_and_no_gradients_of_the_weights() -> None:
    made = plan(recipe(lora_rank=4, sharding="ddp", devices=alone(), checkpointing=False))
    assert made.trained == SMALL.lora_parameters(4) and made.memory["group"].reference == 0
    assert made.memory["group"].gradients == 4 * made.trained
    assert made.memory["group"].weights == 2 * SMALL.parameters + 6 * made.trained
    assert made.epochs[0].phases["group"][3].flops.matrices == 2 * made.epochs[0].phases["group"][2].flops.matrices


# Hours


def test_decoding_step_by_step() -> None:
    settings = recipe(group=3, pairs_at_once=2, hard=8, easy=0, train_pairs=8, pairs_per_document=2, epochs=1)
    lengths, weights, kv = settings.lengths, 2 * (SMALL.matrices + SMALL.head), 2 * 2 * SMALL.layers * SMALL.kv
    for layout, held in (
        ("repeated", 6 * lengths.prompt),
        ("group", 2 * lengths.prompt),
        ("document", lengths.instruction + lengths.document + 2 * lengths.pair),
    ):
        phase = plan(settings).epochs[0].phases[layout][1]  # type: ignore[index]
        read = operations = 0
        for _ in range(4):
            for step in range(1, int(lengths.completion)):
                read += weights + kv * (held + 6 * step)
                operations += 6 * (
                    2 * (SMALL.matrices + SMALL.head) + 4 * SMALL.layers * SMALL.hidden * (lengths.prompt + step)
                )
        assert phase.bytes_read == pytest.approx(read) and phase.flops.total == pytest.approx(operations)
        devices = settings.devices
        slow = max(read / (devices.bandwidth * 0.5), operations / (devices.flops * 0.35)) / 8
        assert phase.seconds == pytest.approx(slow)


@settings(max_examples=60, deadline=None)
@given(
    group=st.integers(1, 32),
    pairs=st.integers(1, 12),
    passes=st.integers(1, 3),
    beta=st.sampled_from((0.0, 0.1)),
    lora=st.none() | st.integers(1, 8),
    checkpointing=st.booleans(),
    frozen=st.booleans(),
)
def test_sharing_never_costs_more(
    group: int, pairs: int, passes: int, beta: float, lora: int | None, checkpointing: bool, frozen: bool
) -> None:
    given = {"checkpointing": checkpointing, "freeze_vision": frozen, "lora_rank": lora, "beta": beta, "passes": passes}
    settings = recipe(group=group, pairs_at_once=pairs, **given)
    made = plan(settings)
    assert made.hours("repeated") >= made.hours("group") >= made.hours("document") > 0
    assert made.hours("group") == pytest.approx(sum(epoch.hours("group") for epoch in made.epochs))
    for epoch in made.epochs:
        for layout in LAYOUTS:
            prefill, decode, reference, train = epoch.phases[layout]
            forests = epoch.samples / pairs
            if pairs == 1:  # nothing to share a document with
                assert epoch.phases["document"][3].tokens == pytest.approx(epoch.phases["group"][3].tokens)
            whole, asked = (made(LENGTHS, layout, pairs, group, epoch.pairs_met) for made in (answered, prompts))
            assert train.tokens == pytest.approx(passes * forests * tokens_of(whole))
            assert reference.tokens == pytest.approx(train.tokens / passes if beta else 0)
            assert prefill.image_tokens == pytest.approx(forests * image_tokens_of(asked))
            # A tower that does not learn sees each picture once, but for stock TRL: models/vision.py.
            again = layout == "repeated" or not (frozen or lora)
            assert train.image_tokens == (pytest.approx(passes * forests * image_tokens_of(asked)) if again else 0)
            assert (train.flops.vision > 0, reference.flops.vision > 0) == (again, again and beta > 0)
            assert decode.tokens == pytest.approx(epoch.samples * group * (settings.lengths.completion - 1))
    twice = settings.devices.model_copy(update={"count": 16})
    assert plan(settings.model_copy(update={"devices": twice})).hours("group") == pytest.approx(made.hours("group") / 2)


# The command


def test_the_page_shows_what_the_command_prints() -> None:
    file = io.StringIO()
    Console(file=file, width=128).print(render(plan(PUBLISHED), PUBLISHED))
    page = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
    shown = [line.rstrip() for line in file.getvalue().splitlines()]
    assert "\n".join(shown) in page


def test_command_for_machines() -> None:
    done = CliRunner().invoke(app, ["plan", str(RECIPE), "group=16", "--json"])
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    made = plan(load_recipe(RECIPE, ["group=16"], PlanRecipe))
    assert told["parameters"] == 8_292_166_656
    assert told["epochs"][0]["phases"]["group"][3]["flops"]["total"] == made.epochs[0].phases["group"][3].flops.total
    assert told["memory"]["document"]["peak"] == made.memory["document"].peak


def test_no_torch() -> None:
    code = (
        "import sys; from more_r1.training.plan.compare import plan, PlanRecipe;"
        "from more_r1.training.plan.stages import Stage;"
        "from more_r1.training.recipe import load_recipe;"
        f"plan(load_recipe({str(RECIPE)!r}, [], PlanRecipe)); assert not {{'torch', 'transformers'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["shape=null"], ["model=FOLDER", "shape"]),
        (["shape.layer=3"], ["unknown key shape.layer", "shape.layers"]),
        (["shape.heads=5"], ["hidden 3584 must be a multiple of heads 5"]),
        (["lengths.completion=1"], ["lengths.completion", "greater than or equal to 2"]),
        (["devices.utilization=35"], ["devices.utilization", "less than or equal to 1"]),
        (["hard=0"], ["no samples"]),
        (["train_pairs=100"], ["more than train_pairs 100"]),
        (["sharding=zero4"], ["sharding", "zero3"]),
    ],
)
def test_mistakes_cost_one_clear_line(overrides: list[str], parts: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(RECIPE, overrides, PlanRecipe)
    assert "\n" not in str(caught.value) and "plan-7b.yaml" in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        None,
        "{",
        "[]",
        json.dumps({"model_type": "llama"}),
        json.dumps({"model_type": "qwen2_5_vl", "hidden_size": -3}),
        json.dumps({"model_type": "qwen2_5_vl", "hidden_size": 100, "num_attention_heads": 7}),
        json.dumps({"model_type": "qwen2_5_vl", "vision_config": {"depth": "many"}}),
        json.dumps(
            {"model_type": "qwen2_5_vl", "auto_map": {"AutoConfig": "evil.Config"}, "vision_config": {"window_size": 0}}
        ),
    ],
)
def test_folders_that_are_no_model(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(RecipeError, match=r"^model=[^\n]*$"):
        plan(recipe(model=str(tmp_path)))


def test_a_hub_that_cannot_be_reached_costs_one_line(tmp_path: Path) -> None:
    away = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "more_r1", "plan", str(RECIPE), "model=nobody/nothing"]
    done = subprocess.run(command, env=away, capture_output=True, text=True)
    assert done.returncode == 1
    mend = "the hub cannot be reached, and it is not kept here; give model=FOLDER"
    assert done.stderr == f"more-r1: model=nobody/nothing: {mend}\n"
