"""What of a model learns: adapters alone, or its weights; and how that is saved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from accelerate.utils import set_seed

from more_r1.models.load import Backbone, save_backbone
from more_r1.models.lora import Lora, add_lora, save_adapter
from more_r1.models.vision import freeze_vision


def learning(backbone: Backbone, lora: Lora | None, frozen_vision: bool, model: str, seed: int) -> Callable[[Path], None]:
    """Say in place what of the backbone, loaded from `model`, is to learn; adapters begin at random by the seed. Returns what
    writes it: a model folder, adapters merged into its weights, and in its `adapter/` by themselves as peft has them."""
    save = partial(save_backbone, backbone, dtype=backbone.model.dtype)
    if lora is None:
        if frozen_vision:
            freeze_vision(backbone.model)
        return save
    set_seed(seed)
    add_lora(backbone.model, lora)
    base = str(Path(model).resolve()) if Path(model).is_dir() else model
    return partial(save, also=lambda folder: save_adapter(backbone.model, folder / "adapter", base))
