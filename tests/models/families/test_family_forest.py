"""Of every family: the stock processor's tokens, the stock model's outputs, and on a forest what each sequence gives alone."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from tiny_families import Both, followed, some_prompts, spelled, stock_inputs, words
from torch import Tensor

from more_r1.models import recursive
from more_r1.models.forest import Forest, Sample, logprobs
from more_r1.reasoning.prompt import Prompt

TOLERANCE = 2e-5
Sequences = list[tuple[Prompt, tuple[int, ...]]]


def sequences(both: Both, seed: int) -> Sequences:
    """Every prompt with one or two completions, in any order, one of them twice and one of a single token."""
    rng, encode = random.Random(seed), both.ours.encoder.completion
    found = [(prompt, encode(words(rng, 9))) for prompt in some_prompts(seed) for _ in range(rng.choice((1, 2)))]
    found += [found[0], (found[1][0], found[1][1][-1:])]
    rng.shuffle(found)
    return found


def samples(both: Both, asked: Sequences) -> list[Sample]:
    return [(both.ours.encoder.prompt(prompt), completion) for prompt, completion in asked]


def whole(both: Both, prompt: Prompt, completion: tuple[int, ...]) -> dict[str, Any]:
    """What the processor makes of the prompt, with the completion behind it."""
    return followed(stock_inputs(both.ours, prompt), torch.tensor([completion]))


def alone(both: Both, asked: Sequences) -> list[Tensor]:
    """Each sequence by itself: the stock processor, the stock model."""
    found = []
    for prompt, completion in asked:
        logits = both.stock(**whole(both, prompt, completion), use_cache=False).logits[0, -len(completion) - 1 : -1]
        found.append(logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0])
    return found


def weights(found: Tensor) -> Tensor:
    """Each token counts with a weight of its own."""
    return torch.randn(len(found), generator=torch.Generator().manual_seed(0))


def gradients(model: Any) -> Tensor:
    """Of all parameters; those that have none count as zero."""
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    model.zero_grad()
    return torch.cat([grad.flatten() for grad in grads])


def test_segments_are_the_prompt_as_the_processor_has_it(both: Both) -> None:
    encoder = both.ours.encoder
    for prompt in some_prompts(0):
        inputs, segments = stock_inputs(both.ours, prompt), encoder.prompt(prompt)
        assert spelled(segments) == inputs["input_ids"][0].tolist()
        pictures = [picture for segment in segments for picture in segment.pictures]
        assert pictures == prompt.pictures
        shown = spelled(segments).count(encoder.image_id)
        assert shown == sum(encoder.family.tokens(encoder.pixels(one)[1], encoder.merge) for one in pictures)
        if pictures:
            pixels = torch.cat([encoder.pixels(picture)[0] for picture in pictures])
            assert torch.equal(pixels, inputs["pixel_values"].view(pixels.shape))


def test_without_a_forest_it_is_the_stock_model(both: Both) -> None:
    for prompt in some_prompts(1)[:2]:
        inputs = whole(both, prompt, (5, 6, 7))
        with torch.no_grad():
            assert torch.equal(both.ours.model(**inputs).logits, both.stock(**inputs).logits)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_packed_forest_gives_what_each_sequence_gives_alone(both: Both, seed: int) -> None:
    asked = sequences(both, seed)
    forest = Forest.build(samples(both, asked), both.ours.encoder)
    assert forest.tokens < 0.7 * forest.repeated_tokens
    wanted = torch.cat(alone(both, asked))
    found = torch.cat(logprobs(both.ours.model, forest))
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)
    for values in (found, wanted):
        (values * weights(values)).sum().backward()
    ours, stock = gradients(both.ours.model), gradients(both.stock)
    assert float((ours - stock).norm() / stock.norm()) < TOLERANCE


@pytest.mark.parametrize("chunk", [1, 60])
def test_part_by_part_it_is_the_same(both: Both, chunk: int) -> None:
    asked = sequences(both, 2)
    forest = Forest.build(samples(both, asked), both.ours.encoder)
    packed = torch.cat(logprobs(both.ours.model, forest))
    share = weights(packed)
    (packed * share).sum().backward()
    wanted = gradients(both.ours.model)
    found, _ = recursive.scored(both.ours.model, forest, chunk, lambda values, at: (values * share[at]).sum())
    torch.testing.assert_close(found, packed.detach(), atol=TOLERANCE, rtol=0)
    got = gradients(both.ours.model)
    assert float((got - wanted).norm() / wanted.norm()) < TOLERANCE


def test_checkpointing_changes_nothing_and_half_precision_little(both: Both) -> None:
    asked = sequences(both, 3)
    forest = Forest.build(samples(both, asked), both.ours.encoder)
    wanted = torch.cat(logprobs(both.ours.model, forest))
    (wanted * weights(wanted)).sum().backward()
    plain = gradients(both.ours.model)
    saving = copy.deepcopy(both.ours.model).train()
    saving.activation_checkpointing_enable()
    assert saving.get_decoder().layers[0].gradient_checkpointing
    for model, most in ((saving, 1e-5), (copy.deepcopy(both.ours.model).bfloat16(), 0.3)):
        found = torch.cat(logprobs(model, forest))
        (found * weights(found)).sum().backward()
        other = gradients(model).float()
        assert float((other - plain).norm() / plain.norm()) < most
    assert found.dtype == torch.float32


def test_other_pictures_and_positions_give_other_values(both: Both) -> None:
    """Else the tests above would show little."""
    asked = sequences(both, 0)
    forest = Forest.build(samples(both, asked), both.ours.encoder)
    with torch.no_grad():
        right = torch.cat(logprobs(both.ours.model, forest))
        assert forest.pixels is not None
        wrong = forest.pixels.roll(len(forest.pixels) // 2, 0), forest.positions + torch.arange(forest.tokens) // 60
        for change in ({"pixels": wrong[0]}, {"positions": wrong[1]}):
            other = torch.cat(logprobs(both.ours.model, Forest(**{**vars(forest), **change})))
            assert float((other - right).abs().max()) > 100 * TOLERANCE
