"""Part by part, the forest gives what it gives in one call: log-probabilities, entropies and accumulated gradients."""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch import Tensor

from more_r1.models import forest as packed
from more_r1.models import recursive
from more_r1.models.attention import Blocks, Dense, Paths
from more_r1.models.forest import Forest, Sample
from more_r1.models.load import Backbone
from more_r1.models.sight import Span
from more_r1.reasoning.prompt import Picture, Prompt

TOLERANCE = 1e-5
TEMPERATURE = 0.7
HUGE = 10**6


def noise(rng: random.Random) -> Picture:
    size = rng.choice(((56, 56), (84, 56), (70, 150)))
    file = io.BytesIO()
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return Picture(file.getvalue(), None, 112 * 112)


def words(rng: random.Random, most: int) -> str:
    return " ".join(f"w{rng.randrange(40)}" for _ in range(rng.randint(1, most)))


def random_samples(rng: random.Random, backbone: Backbone) -> list[Sample]:
    """Groups of completions below pairs below documents below roots, ragged, with and without pictures, in any order.

    Some completions are of one token, some come twice in their group, and some prompts begin others.
    """
    encoder = backbone.encoder
    samples: list[Sample] = []
    for _ in range(rng.choice((1, 1, 2))):
        root = (words(rng, 20) + "\n",)
        for _ in range(rng.randint(1, 2)):
            document = (*([noise(rng)] if rng.random() < 0.8 else []), words(rng, 12) + "\n")
            for _ in range(rng.randint(1, 3)):
                pair = (*([noise(rng), "\n", noise(rng)][: rng.choice((0, 1, 3))]), words(rng, 5))
                levels = (root, document, pair)[: rng.choice((2, 3, 3, 3))]
                prompt = encoder.prompt(Prompt(levels))
                group = [encoder.completion(words(rng, 15))[-rng.choice((1, 99, 99)) :] for _ in range(rng.choice((1, 3)))]
                samples += [(prompt, completion) for completion in [*group, *group[: rng.choice((0, 1))]]]
    rng.shuffle(samples)
    return samples


def random_forest(seed: int, backbone: Backbone) -> Forest:
    return Forest.build(random_samples(random.Random(seed), backbone), backbone.encoder)


def own_weights(forest: Forest) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss that is not linear and weighs each token in its own way."""
    weights = torch.randn(len(forest.targets), generator=torch.Generator().manual_seed(0))

    def loss(logprobs: Tensor, at: Tensor) -> Tensor:
        return (weights[at] * (logprobs + 0.1 * logprobs**2)).sum()

    return loss


def gradients(model: Any) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def relative(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The norm of the difference of two sets of gradients over that of the second, no gradient counting as 0."""
    zero = torch.zeros(())
    off = sum(float((one.get(name, zero) - other.get(name, zero)).norm() ** 2) for name in one.keys() | other.keys())
    return float((off / sum(float(part.norm() ** 2) for part in other.values())) ** 0.5)


def both(model: Any, forest: Forest, chunk_tokens: int) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    """How far log-probabilities and entropies are from the packed form's; the gradients of both."""
    loss = own_weights(forest)
    expected, spread = packed.scored(model, forest, temperature=TEMPERATURE, entropies=True)
    loss(expected, torch.arange(len(expected))).backward()
    wanted = gradients(model)
    found, entropies = recursive.scored(model, forest, chunk_tokens, loss, TEMPERATURE, entropies=True)
    assert spread is not None and entropies is not None and not found.requires_grad and not entropies.requires_grad
    off = max(float((found - expected).detach().abs().max()), float((entropies - spread).abs().max()))
    return off, gradients(model), wanted


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), chunk_tokens=st.integers(1, 200) | st.just(HUGE))
def test_recursive_equals_packed(backbone: Backbone, seed: int, chunk_tokens: int) -> None:
    off, found, wanted = both(backbone.model, random_forest(seed, backbone), chunk_tokens)
    assert off < TOLERANCE
    assert relative(found, wanted) < TOLERANCE
    # Each parameter, not only the large ones; the bias of keys has no gradient but rounding.
    far = {name for name, part in wanted.items() if part.norm() > 1e-3 and relative({name: found[name]}, {name: part}) > 1e-4}
    assert not far


@pytest.fixture
def family(backbone: Backbone) -> Forest:
    """Two documents under one root, two pairs each, groups of three, with pictures on every level below the root."""
    rng = random.Random(1)
    encoder = backbone.encoder
    samples: list[Sample] = []
    for _ in range(2):
        document = (noise(rng), words(rng, 9) + "\n")
        for _ in range(2):
            prompt = encoder.prompt(Prompt((("w1 w2 w3\n",), document, (noise(rng), words(rng, 4)))))
            samples += [(prompt, encoder.completion(words(rng, 12))) for _ in range(3)]
    return Forest.build(samples, encoder)


class Calls(torch.nn.Module):
    """Notes of each call of the model within: its tokens, and whether it can be gone back through."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.within, self.lm_head = model.model, model.lm_head
        self.tokens: list[int] = []
        self.attached: list[bool] = []

    def model(self, **inputs: Any) -> Any:
        self.tokens.append(inputs["input_ids"].shape[1])
        output = self.within(**inputs)
        self.attached.append(output.last_hidden_state.requires_grad)
        return output


def test_calls_are_chunks(tiny: Backbone) -> None:
    """As many neighbours a call as the chunk holds, a node that has more below it alone, and no token twice."""
    prompt = tiny.encoder.prompt(Prompt((("w1 w2 w3",),)))
    completions = [tiny.encoder.completion(f"w{first} w4 w5") for first in range(10, 17)]  # the last of 4 tokens is not read
    forest = Forest.build([(prompt, completion) for completion in completions], tiny.encoder)
    root = len(prompt[0].ids)
    for chunk_tokens, calls in (
        (1, [root, 3, 3, 3, 3, 3, 3, 3]),
        (5, [root, 3, 3, 3, 3, 3, 3, 3]),
        (6, [root, 6, 6, 6, 3]),
        (20, [root, 18, 3]),
        (root + 20, [root, 21]),
        (root + 21, [root + 21]),
    ):
        counted = Calls(tiny.model)
        recursive.scored(counted, forest, chunk_tokens)
        assert counted.tokens == calls


@pytest.mark.parametrize("chunk_tokens", [1, 40, HUGE])
def test_without_a_loss_nothing_is_kept(backbone: Backbone, family: Forest, chunk_tokens: int) -> None:
    counted = Calls(backbone.model)
    found, entropies = recursive.scored(counted, family, chunk_tokens)
    expected = packed.scored(backbone.model, family)[0].detach()
    assert entropies is None and not found.requires_grad
    assert float((found - expected).abs().max()) < TOLERANCE
    assert not gradients(backbone.model) and not any(counted.attached)


def test_gradients_add_up(backbone: Backbone, family: Forest) -> None:
    loss = own_weights(family)
    recursive.scored(backbone.model, family, 40, loss)
    once = gradients(backbone.model)
    recursive.scored(backbone.model, family, 40, loss)
    recursive.scored(backbone.model, family, 40, loss)
    twice = gradients(backbone.model)
    assert relative({name: part / 2 for name, part in twice.items()}, once) < 1e-6


def test_pictures_learn_from_what_is_below(backbone: Backbone, family: Forest) -> None:
    """Prompts whose own tokens have no part in the loss: only gradients on keys and values tell the vision tower anything."""
    inner = [span.end - 1 for span in family.spans if span.end < span.stop]
    weights = (~torch.isin(family.index, torch.tensor(inner))).float()
    recursive.scored(backbone.model, family, 1, lambda logprobs, at: (logprobs * weights[at]).sum())
    found = gradients(backbone.model)
    (packed.scored(backbone.model, family)[0] * weights).sum().backward()
    seen, wanted = ({name: g for name, g in each.items() if ".visual." in name} for each in (found, gradients(backbone.model)))
    assert all(part.norm() > 0 for name, part in seen.items() if name.endswith("weight"))
    assert relative(seen, wanted) < TOLERANCE


def test_shares_of_the_loss_name_each_token_once(tiny: Backbone) -> None:
    forest = random_forest(7, tiny)
    told: list[int] = []

    def loss(logprobs: Tensor, at: Tensor) -> Tensor:
        assert logprobs.dtype == torch.float32 and logprobs.shape == at.shape and len(at) and logprobs.requires_grad
        told.extend(at.tolist())
        return logprobs.sum()

    recursive.scored(tiny.model, forest, 30, loss)
    assert sorted(told) == list(range(len(forest.targets)))


@pytest.mark.parametrize("frozen", [".visual.", "language_model", "language_model.layers.0.", "k_proj"])
def test_frozen_parts(backbone: Backbone, family: Forest, frozen: str) -> None:
    """Only some keys and values, or those of some nodes, pass gradients on; without a picture, none may."""
    model = copy.deepcopy(backbone.model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(frozen not in name)
    for chunk_tokens in (1, 60):
        off, found, wanted = both(model, family, chunk_tokens)
        assert off < TOLERANCE
        assert found and not any(frozen in name for name in found)
        assert relative(found, wanted) < TOLERANCE


def test_nothing_to_learn(tiny: Backbone, family: Forest) -> None:
    model = copy.deepcopy(tiny.model).requires_grad_(False)
    found, _ = recursive.scored(model, family, 40, lambda logprobs, at: logprobs.sum())
    assert float((found - packed.scored(model, family)[0]).abs().max()) < TOLERANCE
    assert not gradients(model)


@pytest.mark.parametrize("targets", [["q_proj", "k_proj", "v_proj", "o_proj"], ["q_proj"], ["down_proj"]])
def test_lora(backbone: Backbone, family: Forest, targets: list[str]) -> None:
    torch.manual_seed(0)
    pattern = rf"model\.language_model\..*\.({'|'.join(targets)})"
    peft = get_peft_model(copy.deepcopy(backbone.model), LoraConfig(r=4, target_modules=pattern))
    model = peft.get_base_model()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    plain = packed.scored(backbone.model, family)[0].detach()
    for chunk_tokens in (1, 60):
        off, found, wanted = both(model, family, chunk_tokens)
        assert off < TOLERANCE
        assert found and all("lora" in name for name in found)
        assert relative(found, wanted) < TOLERANCE
    adapted, _ = recursive.scored(model, family, 60)
    with peft.disable_adapter():
        reference, _ = recursive.scored(model, family, 60)
    assert float((reference - plain).abs().max()) < TOLERANCE < float((adapted - plain).abs().max())


def test_half_precision_is_near(backbone: Backbone, family: Forest) -> None:
    """With autocast, and with weights in bfloat16."""
    _, exact, _ = both(backbone.model, family, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        off, around, wanted = both(backbone.model, family, 1)
    assert off < 0.1 and relative(around, wanted) < 0.1 and relative(around, exact) < 0.1
    half = copy.deepcopy(backbone.model).bfloat16()
    assert relative({name: part.float() for name, part in both(half, family, 1)[1].items()}, exact) < 0.15


def test_gradient_checkpointing_changes_nothing(tiny: Backbone) -> None:
    forest = random_forest(3, tiny)
    saving = copy.deepcopy(tiny.model).train()
    saving.activation_checkpointing_enable()
    _, wanted, _ = both(tiny.model, forest, 40)
    assert relative(both(saving, forest, 40)[1], wanted) < 1e-6


def test_wrong_pictures_positions_and_targets_are_caught(tiny: Backbone) -> None:
    """What the comparison rests on: a part that gets another part's share is seen."""
    forest = random_forest(3, tiny)
    assert forest.pixels is not None and len(forest.pictures) > 1
    expected = packed.scored(tiny.model, forest)[0].detach()
    for fault in (
        replace(forest, pixels=forest.pixels.roll(1, 0)),
        replace(forest, positions=torch.arange(forest.tokens).expand(3, 1, -1)),
        replace(forest, index=forest.index.roll(1, 0)),
    ):
        found, _ = recursive.scored(tiny.model, fault, 40)
        assert float((found - expected).abs().max()) > 10 * TOLERANCE


@pytest.mark.parametrize("chunk_tokens", [0, -1])
def test_chunks_hold_a_token_at_least(tiny: Backbone, chunk_tokens: int) -> None:
    with pytest.raises(ValueError, match="chunk_tokens"):
        recursive.scored(tiny.model, random_forest(0, tiny), chunk_tokens)


@pytest.mark.parametrize("layout", [Blocks, Paths])
def test_attention_below_a_prefix(layout: type[Blocks] | type[Paths]) -> None:
    """As the mask of the whole has it, with the prefix as a root whose queries are left out; forward and backward."""
    above, spans = 11, (Span(0, 3, 9), Span(3, 7, 7), Span(7, 9, 9), Span(9, 10, 10))
    whole = [Span(0, above, above + 10), *(Span(*(above + place for place in span)) for span in spans)]
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, above + 10, 8, generator=generator, requires_grad=True) for heads in (4, 2, 2))
    weights = torch.randn(1, 4, 10, 8, generator=generator)
    expected = Dense(whole).attend(0, q, k, v, 0.3)[:, :, above:]
    found = layout(spans, above).attend(0, q[:, :, above:], k, v, 0.3)
    assert torch.allclose(found, expected, atol=1e-6)
    ours, theirs = (torch.autograd.grad((each * weights).sum(), (q, k, v)) for each in (found, expected))
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(ours, theirs, strict=True))
