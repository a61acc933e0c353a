"""LoRA (Hu et al. 2021, arXiv 2106.09685) through peft: small matrices are trained beside the frozen weights of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
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

    layers = rf".*(language_model|text_model).*\.({'|'.join(_LAYERS)})"
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=layers)
    inject_adapter_in_model(config, model, adapter_name=_NAME)


@contextmanager
def without_lora(model: nn.Module) -> Iterator[None]:
    """The model as it was before the adapters."""
    # peft's own way also says that adapters do not learn, which FSDP then takes for good.
    layers = list(_adapters(model).values())
    scales = [layer.scaling[_NAME] for layer in layers]
    for layer in layers:
        layer.scaling[_NAME] = 0.0
    try:
        yield
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[_NAME] = scale


@torch.no_grad()
def merged(model: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The weights, on the host, of a model without adapters that computes the same; in `dtype` or, without it, in their own.

    What is one tensor under two names (tied embeddings) stays one.
    """
    adapters = _adapters(model)
    weights: dict[str, Tensor] = {}
    seen: dict[int, Tensor] = {}
    # One matrix after another: a device that trains has no room for a second model, let alone one in float32.
    for name, tensor in _tensors(model).items():
        if ".lora_" in name:
            continue
        wanted = dtype or tensor.dtype
        if (layer := adapters.get(name.removesuffix(".base_layer.weight"))) is not None:
            stored = (tensor.float() + layer.get_delta_weight(_NAME)).to(wanted).cpu()
        else:
            if (place := tensor.data_ptr()) not in seen:
                seen[place] = tensor.to(wanted).cpu()
            stored = seen[place]
        weights[name.replace(".base_layer.", ".")] = stored
    return weights


def save_adapter(model: nn.Module, folder: Path, base: str) -> None:
    """Write the adapters of a model, unmerged, as a folder of peft: `PeftModel.from_pretrained(stock model, folder)`.

    `base` is the folder or hub name of the model that they were put into. What is in the folder under the names of the two
    files is replaced. Raises KeyError for a model without adapters.
    """
    from safetensors.torch import save_file

    found = {name: tensor for name, tensor in _tensors(model).items() if ".lora_" in name}
    if not found:
        raise KeyError("the model has no adapters")
    configs: dict[str, Any] = model.peft_config  # type: ignore[assignment]  # put there by inject_adapter_in_model
    config = replace(configs[_NAME], base_model_name_or_path=base, inference_mode=True, task_type="CAUSAL_LM")
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    # peft's own names of the weights: below its wrapper, and without the adapter's name.
    weights = {f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": tensor.contiguous() for name, tensor in found.items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_model.safetensors").chmod(0o644)  # safetensors makes private what others may read


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """As `state_dict`, which of a model that is split has this process's parts even while it is whole (training/split.py)."""
    found = {name: parameter.detach() for name, parameter in model.named_parameters(remove_duplicate=False)}
    for prefix, module in model.named_modules():
        kept = (name for name in module._buffers if name not in module._non_persistent_buffers_set)
        found |= {f"{prefix}.{name}": buffer for name in kept if (buffer := module._buffers[name]) is not None}
    return found


def _adapters(model: nn.Module) -> dict[str, Any]:
    # peft takes a second to import, and a model without adapters does not need it.
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
