"""Decoding on the forest gives the texts that transformers' generate gives for each prompt alone."""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

import more_r1.models.decode as generation
from more_r1.models.generate import generate
from more_r1.models.load import Backbone
from more_r1.reasoning.prompt import Picture, Prompt

VISION = ("<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
LIMIT = 40
STOP_EVERY = 16


def picture(seed: int, size: tuple[int, int]) -> Picture:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return Picture(file.getvalue(), None, 112 * 112)


@pytest.fixture
def prompts() -> list[Prompt]:
    """Ragged, of one to three levels, with a doubled prompt, one that begins another, and one with nothing in common."""
    rng = random.Random(5)

    def words(most: int) -> str:
        return " ".join(f"w{rng.randrange(40)}" for _ in range(rng.randint(1, most)))

    found = []
    for document in range(3):
        whole = (picture(document, (84 + 28 * document, 84)), words(9))
        found += [Prompt((("w1 w2 w3\n",), whole, (picture(9 + i, (56, 56)), words(6)))) for i in range(1 + 2 * document)]
    return [*found, found[2], Prompt((("w1 w2 w3\n",),)), Prompt((("w7\n",), ("w8",)))]


@pytest.fixture
def eager(backbone: Backbone) -> Iterator[Backbone]:
    """One token in STOP_EVERY ends a completion, so that rows finish early and at different steps."""
    config = backbone.model.generation_config
    before = config.eos_token_id
    config.eos_token_id = list(range(0, 300, STOP_EVERY))
    yield backbone
    config.eos_token_id = before


def vision_ids(backbone: Backbone) -> list[int]:
    return [int(backbone.encoder.tokenizer.convert_tokens_to_ids(token)) for token in VISION]


def stock_texts(backbone: Backbone, prompt: Prompt, times: int = 1) -> list[str]:
    """What transformers' generate gives for a batch of so many rows of the same prompt."""
    encoder = backbone.encoder
    stops = {encoder.eos_id, *backbone.model.generation_config.eos_token_id}
    model = copy.deepcopy(backbone.model)
    model.set_attn_implementation("sdpa")
    segments = encoder.prompt(prompt)
    ids = torch.tensor([[id for segment in segments for id in segment.ids]] * times)
    pixels = [encoder.pixels(shown) for shown in prompt.pictures] * times
    vision = {}
    if pixels:
        grids = torch.stack([grid for _, grid in pixels])
        vision = {"pixel_values": torch.cat([values for values, _ in pixels]), "image_grid_thw": grids}
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == encoder.image_id).int(),
        do_sample=False,
        max_new_tokens=LIMIT,
        eos_token_id=sorted(stops),
        suppress_tokens=vision_ids(backbone),
        pad_token_id=0,
        **vision,
    )[:, ids.shape[1] :].tolist()
    ends = [next((place for place, id in enumerate(row) if id in stops), len(row)) for row in out]
    return [encoder.decode(row[:end]) for row, end in zip(out, ends, strict=True)]


def alone(backbone: Backbone, prompt: Prompt) -> str:
    return stock_texts(backbone, prompt)[0]


def test_texts_are_those_of_stock_generate(eager: Backbone, prompts: list[Prompt]) -> None:
    told: list[int] = []
    texts = generate(eager, prompts, LIMIT, told.append)
    assert texts == [alone(eager, prompt) for prompt in prompts]
    assert len({len(text) for text in texts}) > 3, "the rows must finish at different steps for this to show anything"
    assert told == list(range(1, len(prompts) + 1))


def test_groups_are_what_stock_gives_for_repeated_prompts(eager: Backbone, prompts: list[Prompt]) -> None:
    size = 3
    texts = generate(eager, [prompt for prompt in prompts for _ in range(size)], LIMIT)
    assert texts == [text for prompt in prompts for text in stock_texts(eager, prompt, size)]
    assert len({len(text) for text in texts}) > 3


def test_batches_change_nothing(eager: Backbone, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch) -> None:
    together = generate(eager, prompts, LIMIT)
    order = random.Random(0).sample(range(len(prompts)), len(prompts))
    assert generate(eager, [prompts[i] for i in order], LIMIT) == [together[i] for i in order]
    monkeypatch.setattr(generation, "BATCH_TOKENS", 250)
    told: list[int] = []
    assert generate(eager, prompts, LIMIT, told.append) == together
    assert told == list(range(1, len(prompts) + 1))


def test_vision_tokens_are_never_written(tiny: Backbone, prompts: list[Prompt]) -> None:
    model = copy.deepcopy(tiny.model)
    with torch.no_grad():
        # A model that wants nothing so much as to write image tokens: each looks like what it just read.
        model.model.language_model.embed_tokens.weight[vision_ids(tiny)] *= 50
    eager_to_show = Backbone(model, tiny.encoder, tiny.form)
    assert not any(token in text for text in generate(eager_to_show, prompts, 12) for token in VISION)


def test_no_prompts_and_no_tokens(tiny: Backbone, prompts: list[Prompt]) -> None:
    assert generate(tiny, [], 5) == []
    with pytest.raises(ValueError, match="max_new_tokens"):
        generate(tiny, prompts, 0)
