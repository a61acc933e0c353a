"""Pictures that are shown many times to a vision tower that does not learn: its features of each are computed once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from more_r1.models.families import family_of

# What is set aside, by name.
_ASIDE = "_more_r1_vision"


def freeze_vision(model: Any) -> None:
    """Let nothing learn that lies between the pixels and the text model: the tower and what projects its features."""
    for parameter in vision_parameters(model):
        parameter.requires_grad_(False)


def vision_parameters(model: Any) -> list[nn.Parameter]:
    """All that only pictures reach."""
    return [*model.model.parameters(recurse=False), *(p for part in _parts(model) for p in part.parameters())]


def set_vision_aside(model: Any) -> None:
    """All that only pictures reach is called by its names as ever, but is no part of the model that is split, cast or saved."""
    inner = model.model
    inner.__dict__[_ASIDE] = names = [
        *(name for name, part in inner.named_children() if part is not model.get_decoder()),
        *(name for name, _ in inner.named_parameters(recurse=False)),
    ]
    for name in names:
        parts = inner._modules if name in inner._modules else inner._parameters
        inner.__dict__[name] = parts.pop(name)


@contextmanager
def with_vision(model: Any) -> Iterator[None]:
    """While this lasts, what was set aside is a part of the model again."""
    inner = model.model
    names = inner.__dict__.pop(_ASIDE, ())
    for name in names:
        setattr(inner, name, inner.__dict__.pop(name))
    try:
        yield
    finally:
        if names:
            set_vision_aside(model)


def frozen_copy(model: Any) -> Any:
    """A copy that stays as the model is now. It asks the model for features, and has no vision tower of its own, if that is
    frozen already."""
    if _learns(model):
        return deepcopy(model).requires_grad_(False)
    shared = [*_parts(model), *model.model.parameters(recurse=False)]
    copy = deepcopy(model, {id(part): part for part in shared}).requires_grad_(False)
    copy.model.get_image_features = lambda *args, **kwargs: model.model.get_image_features(*args, **kwargs)
    return copy


@contextmanager
def remembered(model: Any) -> Iterator[None]:
    """While this lasts, the features of each picture are computed once, for the model and its frozen copies; not by a tower
    that learns.

    Pictures are told apart by their pixels. Nothing may change the tower's weights meanwhile.
    """
    if _learns(model):
        yield
        return
    family, plain = family_of(model.config), model.model.get_image_features
    # By grid and by whether autocast is on, which rounds differently: pixels and features, each [tokens, width].
    seen: dict[tuple[tuple[int, ...], bool], list[tuple[Tensor, list[Tensor]]]] = defaultdict(list)

    def features(pixel_values: Tensor, given: Tensor | None = None, **kwargs: Any) -> Any:
        autocast = torch.is_autocast_enabled(pixel_values.device.type)
        shown = family.pictures(pixel_values, given)
        places = [seen[tuple(grid.tolist()), autocast] for _, grid in shown]
        found = {
            number: features
            for number, (place, (pixels, _)) in enumerate(zip(places, shown, strict=True))
            for known, features in place
            if torch.equal(known, pixels)
        }
        new = [number for number in range(len(shown)) if number not in found]
        if new:
            asked = family.arguments(torch.cat([shown[n][0] for n in new]), torch.stack([shown[n][1] for n in new]))
            for n, features in zip(new, _each(plain(**(kwargs | asked)), len(new)), strict=True):
                found[n] = features
                places[n].append((shown[n][0], features))
        last, *deeper = zip(*(found[n] for n in range(len(shown))), strict=True)
        return BaseModelOutputWithDeepstackFeatures(pooler_output=family.features(last), deepstack_features=deeper)

    model.model.get_image_features = features
    try:
        yield
    finally:
        del model.model.get_image_features


def _each(output: Any, count: int) -> Iterator[list[Tensor]]:
    """The features of each of so many pictures: the last, then those for the first layers of the text model if it wants any."""
    kinds = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
    for several in zip(*(kind if len(kind) == count else torch.cat(list(kind)).chunk(count) for kind in kinds), strict=True):
        yield list(several)


def _parts(model: Any) -> list[nn.Module]:
    return [part for part in model.model.children() if part is not model.get_decoder()]


def _learns(model: Any) -> bool:
    return any(parameter.requires_grad for parameter in vision_parameters(model))
