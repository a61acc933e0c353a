"""The families of models that can be used, by `model_type` of their configuration."""

from __future__ import annotations

from typing import Any

from more_r1.models.families.family import Family
from more_r1.models.families.gemma3 import GEMMA3
from more_r1.models.families.idefics3 import IDEFICS3
from more_r1.models.families.llava_onevision import LLAVA_ONEVISION
from more_r1.models.families.qwen import QWEN2_5_VL, QWEN2_VL, QWEN3_VL

FAMILIES: dict[str, Family] = {
    "qwen2_vl": QWEN2_VL,
    "qwen2_5_vl": QWEN2_5_VL,
    "qwen3_vl": QWEN3_VL,
    "idefics3": IDEFICS3,
    "llava_onevision": LLAVA_ONEVISION,
    "gemma3": GEMMA3,
}


def family_of(config: Any) -> Family:
    """The family of a model with this configuration. Raises ValueError for what no forest can be laid out for."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        known = ", ".join(f"{one.name} ({kind})" for kind, one in FAMILIES.items())
        raise ValueError(f"a {config.model_type} model; give one of {known}")
    text = config.text_config
    if getattr(text, "use_bidirectional_attention", None):
        raise ValueError(
            "its tokens see those behind them (use_bidirectional_attention); give a model that writes from left to right"
        )
    if family.text not in (None, text.model_type):
        raise ValueError(f"its text model is a {text.model_type}; {family.name} is supported with a {family.text} only")
    return family
