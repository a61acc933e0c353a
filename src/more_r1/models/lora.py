"""LoRA (Hu et al. 2021, arXiv 2106.09685) through peft: small matrices are trained beside the frozen weights of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

_NAME = "default"
_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Lora(BaseModel):
    """Which adapters to train: on all projections of the text model, as is usual."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    """The adapters' part is scaled by alpha / rank."""


def add_lora(model: nn.Module, lora: Lora) -> None:
    """Put adapters into the model, in place, and freeze all else. They change nothing until they are trained."""
    from peft import LoraConfig, inject_adapter_in_model

    layers = rf".*language_model.*\.({'|'.join(_LAYERS)})"
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=layers)
    inject_adapter_in_model(config, model, adapter_name=_NAME)


@contextmanager
def without_lora(model: nn.Module) -> Iterator[None]:
    """The model as it was before the adapters."""
    adapters = _adapters(model)
    for layer in adapters.values():
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in adapters.values():
            layer.enable_adapters(True)


def merged(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model without adapters that computes the same; the model's own if it has none."""
    adapters = _adapters(model)
    if not adapters:
        return model.state_dict()
    weights = {name.replace(".base_layer.", "."): tensor for name, tensor in model.state_dict().items() if ".lora_" not in name}
    for name, layer in adapters.items():
        weights[f"{name}.weight"] = layer.base_layer.weight.detach() + layer.get_delta_weight(_NAME).detach()
    return weights


def _adapters(model: nn.Module) -> dict[str, Any]:
    # peft takes a second to import, and a model without adapters does not need it.
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
