"""Pictures that are shown many times to a vision tower that does not learn: its features of each are computed once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling


def frozen_copy(model: Any) -> Any:
    """A copy that stays as the model is now. It has the same vision tower, not a second one, if that is frozen already."""
    tower = model.model.visual
    shared = {} if _learns(tower) else {id(tower): tower}
    return deepcopy(model, shared).requires_grad_(False)


@contextmanager
def remembered(model: Any) -> Iterator[None]:
    """While this lasts, the model's vision tower computes each picture once, whichever model calls it; not one that learns.

    Pictures are told apart by their pixels. Nothing may change the tower's weights meanwhile.
    """
    tower = model.model.visual
    if _learns(tower):
        yield
        return
    plain = tower.forward
    # By grid and by whether autocast is on, which rounds differently: pixels and features [patches / merge^2, width].
    seen: dict[tuple[tuple[int, ...], bool], list[tuple[Tensor, Tensor]]] = defaultdict(list)

    def forward(pixels: Tensor, grid_thw: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        counts = grid_thw.prod(-1)
        shown = list(pixels.split(counts.tolist()))  # type: ignore[no-untyped-call]
        autocast = torch.is_autocast_enabled(pixels.device.type)
        places = [seen[tuple(grid), autocast] for grid in grid_thw.tolist()]
        found = {
            number: features
            for number, (place, picture) in enumerate(zip(places, shown, strict=True))
            for known, features in place
            if torch.equal(known, picture)
        }
        new = [number for number in range(len(shown)) if number not in found]
        if new:
            merged = plain(torch.cat([shown[n] for n in new]), grid_thw=grid_thw[new], **kwargs).pooler_output
            for n, features in zip(new, merged.split((counts[new] // tower.spatial_merge_size**2).tolist()), strict=True):
                found[n] = features
                places[n].append((shown[n], features))
        return BaseModelOutputWithPooling(pooler_output=torch.cat([found[n] for n in range(len(shown))]))

    tower.forward = forward
    try:
        yield
    finally:
        del tower.forward


def _learns(tower: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in tower.parameters())
