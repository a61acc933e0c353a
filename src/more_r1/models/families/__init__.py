"""The families of models that can be used, by `model_type` of their configuration."""

from __future__ import annotations

from typing import Any

from more_r1.models.families.family import Family
from more_r1.models.families.idefics3 import IDEFICS3
from more_r1.models.families.llava_onevision import LLAVA_ONEVISION
from more_r1.models.families.qwen import QWEN2_5_VL, QWEN2_VL, QWEN3_VL

FAMILIES: dict[str, Family] = {
    "qwen2_vl": QWEN2_VL,
    "qwen2_5_vl": QWEN2_5_VL,
    "qwen3_vl": QWEN3_VL,
    "idefics3": IDEFICS3,
    "llava_onevision": LLAVA_ONEVISION,
}
# Families that cannot be, and why.
REFUSED = {
    "gemma3": "the tokens of a picture see those behind them, and most layers only what is near; no forest here is laid out so",
}


def family_of(config: Any) -> Family:
    """The family of a model with this configuration. Raises ValueError for what no forest can be laid out for."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        known = ", ".join(f"{one.name} ({kind})" for kind, one in FAMILIES.items())
        why = f" ({REFUSED[config.model_type]})" if config.model_type in REFUSED else ""
        raise ValueError(f"a {config.model_type} model{why}; give one of {known}")
    text = config.text_config
    layers = getattr(text, "layer_types", None)
    if "sliding_attention" in (layers or ()) or (layers is None and getattr(text, "sliding_window", None)):
        raise ValueError("sliding-window attention is not supported; set use_sliding_window to false")
    if family.text not in (None, text.model_type):
        raise ValueError(f"its text model is a {text.model_type}; {family.name} is supported with a {family.text} only")
    return family
