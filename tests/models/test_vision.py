"""Pictures seen before: fewer of them are computed, and nothing else changes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from more_r1.models.forest import Forest, scored
from more_r1.models.load import Backbone
from more_r1.models.processor import Encoder
from more_r1.models.tiny import build_tiny
from more_r1.models.vision import frozen_copy, remembered
from more_r1.reasoning.prompt import Picture, Prompt

PATCH = 28


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    """With a tower that does not learn."""
    backbone = build_tiny(["w"], 0)
    backbone.model.model.visual.requires_grad_(False)
    return backbone


def picture(seed: int, width: int, height: int) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 256, (height * PATCH, width * PATCH, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Picture(file.getvalue(), None, width * height * PATCH**2)


# Two of one size, and one of as many patches in another shape.
ONE, LIKE, TURNED, SMALL = picture(0, 4, 2), picture(1, 4, 2), picture(2, 2, 4), picture(3, 2, 2)


def forest(encoder: Encoder, *pictures: Picture) -> Forest:
    return Forest.build([(encoder.prompt(Prompt(((*pictures, "w"),))), (encoder.eos_id, encoder.eos_id))], encoder)


def seen(model: Any, shown: Forest) -> Tensor:
    """What a model without sight of the pictures would get wrong."""
    found: Tensor = model(**shown.inputs(torch.device("cpu"))).logits
    return found


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """The merged patches of each call that computes any."""
    counts: list[int] = []
    visual = model.model.visual
    hook = visual.patch_embed.register_forward_hook(
        lambda _, given, __: counts.append(len(given[0]) // visual.spatial_merge_size**2)
    )
    yield counts
    hook.remove()


def test_each_picture_is_computed_once(tiny: Backbone) -> None:
    shown = [forest(tiny.encoder, *p) for p in ((ONE, SMALL), (SMALL, LIKE, ONE), (TURNED, LIKE), (ONE, SMALL), (ONE, ONE))]
    reference = frozen_copy(tiny.model)
    reference.model.language_model.embed_tokens.weight *= 1.1
    with torch.no_grad():
        wanted = [[seen(model, one) for one in shown] for model in (tiny.model, reference)]
        with counted(tiny.model) as counts:
            with remembered(tiny.model):
                got = [[seen(model, one) for one in shown] for model in (tiny.model, reference)]
            assert counts == [8 + 4, 8, 8]
            seen(reference, shown[0])
            assert counts == [8 + 4, 8, 8, 8 + 4]  # and forgotten after that
    for mine, plain in zip(got, wanted, strict=True):
        for one, other in zip(mine, plain, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
        assert not torch.allclose(mine[0], mine[3] + 1e-3) and torch.equal(mine[0], mine[3])
    assert not torch.allclose(got[0][0], got[1][0], atol=1e-3)


def test_gradients_of_what_learns_stay(tiny: Backbone) -> None:
    shown = forest(tiny.encoder, ONE, SMALL)

    def gradients(model: Any) -> dict[str, Tensor]:
        model.zero_grad()
        scored(model, shown)[0].sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    wanted = gradients(tiny.model)
    with remembered(tiny.model):
        seen(tiny.model, shown)
        got = gradients(tiny.model)
    assert got.keys() == wanted.keys() and not any("visual" in name for name in got)
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient)


def test_a_tower_that_learns_is_left_alone(tiny: Backbone) -> None:
    model = deepcopy(tiny.model)
    model.model.visual.merger.requires_grad_(True)
    shown = forest(tiny.encoder, ONE)
    with remembered(model), counted(model) as counts:
        seen(model, shown)
        scored(model, shown)[0].sum().backward()
    assert counts == [8, 8]
    assert any(bool(p.grad.any()) for p in model.model.visual.parameters() if p.grad is not None)


def test_autocast_has_features_of_its_own(tiny: Backbone) -> None:
    shown = forest(tiny.encoder, ONE)

    def both() -> list[Tensor]:
        plain = seen(tiny.model, shown)
        with torch.autocast("cpu", torch.bfloat16):
            return [plain, seen(tiny.model, shown)]

    with torch.no_grad():
        wanted = both()
        with remembered(tiny.model):
            got = both() + both()
    assert all(torch.equal(one, other) for one, other in zip(got, wanted + wanted, strict=True))


@pytest.mark.parametrize("learns", [False, True])
def test_a_frozen_copy_stays_as_it_is(tiny: Backbone, learns: bool) -> None:
    model = deepcopy(tiny.model)
    model.model.visual.requires_grad_(learns)
    copy = frozen_copy(model)
    assert (copy.model.visual is model.model.visual) is not learns
    assert not any(p.requires_grad for p in copy.parameters())
    learning = [p for p in model.parameters() if p.requires_grad]
    assert any(p is model.lm_head.weight for p in learning)
    assert any(p.requires_grad for p in model.model.visual.parameters()) is learns
    shown = forest(tiny.encoder, ONE)
    with torch.no_grad():
        before = seen(copy, shown)
        for parameter in learning:
            parameter += 1
        assert torch.equal(seen(copy, shown), before)
