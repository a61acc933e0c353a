"""The packed forest gives what each sequence alone gives in the stock model: log-probabilities and gradients."""

from __future__ import annotations

import copy
import io
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from more_r1.models.attention import Blocks, Dense, Flex, Paths
from more_r1.models.forest import Forest, Sample, logprobs, scored
from more_r1.models.load import Backbone
from more_r1.models.sight import Span
from more_r1.reasoning.prompt import Picture, Prompt

TOLERANCE = 1e-5
CAUGHT = 10 * TOLERANCE
LAYOUTS = (Blocks, Dense, Paths)
AnyLayout = type[Blocks] | type[Dense] | type[Paths]
SIZES = ((56, 56), (112, 84), (70, 150), (112, 112))


def noise(rng: random.Random, size: tuple[int, int]) -> Picture:
    file = io.BytesIO()
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return Picture(file.getvalue(), None, 112 * 112)


def words(rng: random.Random, most: int) -> str:
    return " ".join(f"w{rng.randrange(40)}" for _ in range(rng.randint(1, most)))


def random_samples(rng: random.Random, backbone: Backbone) -> list[Sample]:
    """Three levels, ragged: roots, documents, pairs, completions, with and without pictures; in any order."""
    encoder = backbone.encoder
    samples: list[Sample] = []
    for _ in range(rng.choice((1, 1, 2))):
        root = (words(rng, 20) + "\n",)
        for _ in range(rng.randint(1, 3)):
            document = (*([noise(rng, rng.choice(SIZES))] if rng.random() < 0.8 else []), words(rng, 12) + "\n")
            for _ in range(rng.randint(1, 3)):
                pair = (*([noise(rng, (56, 56)), "\n", noise(rng, (84, 56))][: rng.choice((0, 1, 3))]), words(rng, 5))
                prompt = encoder.prompt(Prompt((root, document, pair)))
                for _ in range(rng.choice((1, 3))):
                    completion = encoder.completion(words(rng, 15))
                    samples.append((prompt, completion[-rng.choice((1, 99, 99)) :]))
    samples += rng.sample(samples, 1)
    rng.shuffle(samples)
    return samples


def repeated(backbone: Backbone, samples: list[Sample]) -> list[Tensor]:
    """Each sequence alone, with the positions that the model itself works out and transformers' SDPA."""
    model, encoder = backbone.model, backbone.encoder
    found = []
    for prompt, completion in samples:
        head = [id for segment in prompt for id in segment.ids]
        ids = torch.tensor([[*head, *completion]])
        pixels = [encoder.pixels(picture) for segment in prompt for picture in segment.pictures]
        vision = {}
        if pixels:
            grids = torch.stack([grid for _, grid in pixels])
            vision = {"pixel_values": torch.cat([values for values, _ in pixels]), "image_grid_thw": grids}
        model.model.rope_deltas = None
        logits = model(ids, mm_token_type_ids=(ids == encoder.image_id).int(), use_cache=False, **vision).logits[0]
        predicted = logits[len(head) - 1 : -1].log_softmax(-1)
        found.append(predicted.gather(1, torch.tensor(completion)[:, None])[:, 0])
    return found


def as_stock(backbone: Backbone) -> Backbone:
    """The same weights in a model that knows nothing of forests."""
    model = copy.deepcopy(backbone.model)
    model.set_attn_implementation("sdpa")
    return replace(backbone, model=model)


def difference(one: list[Tensor], other: list[Tensor]) -> float:
    assert [len(part) for part in one] == [len(part) for part in other]
    return max(float((a - b).detach().abs().max()) for a, b in zip(one, other, strict=True))


def gradients(backbone: Backbone, found: list[Tensor], seed: int) -> Tensor:
    """All gradients of a sum in which each token has a weight of its own."""
    values = torch.cat(found)
    weights = torch.randn(len(values), generator=torch.Generator().manual_seed(seed))
    parameters = [p for p in backbone.model.parameters() if p.requires_grad]
    grads = torch.autograd.grad((values * weights).sum(), parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([grad.flatten() for grad in grads])


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_forest_equals_repeated(backbone: Backbone, layout: AnyLayout, seed: int) -> None:
    samples = random_samples(random.Random(seed), backbone)
    forest = Forest.build(samples, backbone.encoder)
    alone = as_stock(backbone)
    packed, reference = logprobs(backbone.model, forest, layout(forest.spans)), repeated(alone, samples)
    assert difference(packed, reference) < TOLERANCE
    assert relative(gradients(backbone, packed, seed), gradients(alone, reference, seed)) < TOLERANCE
    assert (
        forest.tokens
        <= forest.repeated_tokens
        == sum(len(completion) + sum(len(segment.ids) for segment in prompt) for prompt, completion in samples)
    )


def test_flex_sees_what_the_others_see(tiny: Backbone) -> None:
    """Forwards only: on CPUs it has no way back."""
    for seed in range(3):
        forest = Forest.build(random_samples(random.Random(seed), tiny), tiny.encoder)
        with torch.no_grad():
            found, wanted = (logprobs(tiny.model, forest, layout(forest.spans)) for layout in (Flex, Dense))
        assert difference(found, wanted) < TOLERANCE


@pytest.fixture
def siblings(tiny: Backbone) -> tuple[Forest, list[Tensor]]:
    """A document with three pairs under one root, and the reference."""
    rng = random.Random(3)
    document = (noise(rng, (112, 112)), words(rng, 12) + "\n")
    prompts = [Prompt((("w1 w2\n",), document, (noise(rng, (56, 56)), words(rng, 4)))) for _ in range(3)]
    samples = [(tiny.encoder.prompt(prompt), tiny.encoder.completion(words(rng, 12))) for prompt in prompts]
    return Forest.build(samples, tiny.encoder), repeated(as_stock(tiny), samples)


def test_shared_segments_are_there_once(tiny: Backbone, siblings: tuple[Forest, list[Tensor]]) -> None:
    forest, reference = siblings
    assert len(forest.spans) == 4 and forest.grids is not None and len(forest.grids) == 4
    shared = forest.spans[0].end
    assert forest.repeated_tokens == forest.tokens + 2 * shared + 3  # the last token of a completion is never computed
    assert difference(logprobs(tiny.model, forest), reference) < TOLERANCE


@pytest.mark.parametrize("layout", LAYOUTS)
def test_leak_between_siblings_is_caught(tiny: Backbone, siblings: tuple[Forest, list[Tensor]], layout: AnyLayout) -> None:
    forest, reference = siblings
    root, first, *others = forest.spans
    leaking = layout((root, Span(first.start, first.end, others[0].end), *others))
    assert difference(logprobs(tiny.model, forest, leaking), reference) > CAUGHT


def test_shifted_positions_are_caught(tiny: Backbone, siblings: tuple[Forest, list[Tensor]]) -> None:
    forest, reference = siblings
    for axis in range(3):
        shifted = forest.positions.clone()
        shifted[axis, :, forest.spans[2].start : forest.spans[2].end] += 1
        assert difference(logprobs(tiny.model, replace(forest, positions=shifted)), reference) > CAUGHT
    flat = torch.arange(forest.tokens).expand(3, 1, -1)
    assert difference(logprobs(tiny.model, replace(forest, positions=flat)), reference) > CAUGHT


def test_swapped_images_are_caught(tiny: Backbone, siblings: tuple[Forest, list[Tensor]]) -> None:
    forest, reference = siblings
    assert forest.pixels is not None
    crops = forest.pixels[-16 * 2 :].split(16)  # 56 x 56 pixels are 16 patches
    swapped = torch.cat([forest.pixels[: -16 * 2], crops[1], crops[0]])
    assert difference(logprobs(tiny.model, replace(forest, pixels=swapped)), reference) > CAUGHT


def test_gradient_checkpointing_changes_nothing(tiny: Backbone, siblings: tuple[Forest, list[Tensor]]) -> None:
    forest, _ = siblings
    plain = gradients(tiny, logprobs(tiny.model, forest), 0)
    saving = replace(tiny, model=copy.deepcopy(tiny.model).train())
    saving.model.activation_checkpointing_enable()
    assert saving.model.model.language_model.layers[0].gradient_checkpointing
    assert relative(gradients(saving, logprobs(saving.model, forest), 0), plain) < 1e-6


def test_logits_a_few_rows_at_a_time_change_nothing(
    tiny: Backbone, siblings: tuple[Forest, list[Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither results nor gradients; and no more logits than those rows are kept for the way back."""
    forest, _ = siblings
    weights = torch.randn(len(forest.targets), generator=torch.Generator().manual_seed(0))
    vocabulary, width = tiny.model.lm_head.weight.shape
    found = []
    for rows in (len(forest.targets), 5):
        monkeypatch.setattr("more_r1.models.forest.LOGITS", rows * vocabulary)
        kept: list[int] = []

        def note(part: Tensor, kept: list[int] = kept) -> Tensor:
            if part.ndim == 2 and part.shape[1] == vocabulary and part.shape[0] != width:
                kept.append(part.shape[0])
            return part

        with torch.autograd.graph.saved_tensors_hooks(note, lambda part: part):
            chosen, spread = scored(tiny.model, forest, temperature=0.7, entropies=True)
        parameters = [p for p in tiny.model.parameters() if p.requires_grad]
        grads = torch.autograd.grad((chosen * weights).sum(), parameters, allow_unused=True, materialize_grads=True)
        assert spread is not None
        found.append((chosen, spread, torch.cat([grad.flatten() for grad in grads]), kept))
    (chosen, spread, grads, most), (parts, spreads, others, least) = found
    assert difference([chosen, spread], [parts, spreads]) < TOLERANCE and relative(others, grads) < 1e-6
    assert len(forest.targets) in most and not least


@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_precision_is_near(backbone: Backbone, layout: AnyLayout) -> None:
    """Under autocast, where queries and values come in two types, and with weights in bfloat16."""
    forest = Forest.build(random_samples(random.Random(4), backbone), backbone.encoder)
    exact = gradients(backbone, logprobs(backbone.model, forest), 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = logprobs(backbone.model, forest, layout(forest.spans))
    assert all(part.dtype == torch.float32 for part in found)
    assert relative(gradients(backbone, found, 0), exact) < 0.1
    half = replace(backbone, model=copy.deepcopy(backbone.model).bfloat16())
    assert relative(gradients(half, logprobs(half.model, forest, layout(forest.spans)), 0).float(), exact) < 0.1


def test_without_a_forest_the_model_is_the_stock_one(backbone: Backbone) -> None:
    ids = torch.randint(0, 300, (3, 20), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(20) >= torch.tensor([0, 4, 11])[:, None]).long()
    with torch.no_grad():
        ours, stock = (each.model(ids, attention_mask=mask).logits for each in (backbone, as_stock(backbone)))
    assert torch.equal(ours[mask.bool()], stock[mask.bool()])
