"""Qwen2.5-VL at its real sizes as a folder without weights, and as a small random model of the same structure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from more_r1.models.load import ATTENTIONS, Backbone, save_backbone
from more_r1.models.manner import FORM_FILE
from more_r1.models.processor import Encoder
from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import PromptForm
from more_r1.synthetic.lessons import vocabulary

# As the config.json of Qwen2.5-VL-7B and -3B have them: text model, vision tower.
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "7b": (
        {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
         "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False},
        {"out_hidden_size": 3584},
    ),
    "3b": (
        {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
         "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
        {"out_hidden_size": 2048},
    ),
}  # fmt: skip
_TOWER = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}


def config_folder(folder: Path, size: str) -> Path:
    """config.json with the real sizes, processor files with the tokenizer of the embedded world; no weights."""
    tiny, (text, vision) = build_tiny(vocabulary(), 0, PromptForm()), SIZES[size]
    folder.mkdir(parents=True)
    _config(tiny, text | {"rope_parameters": _ROPE}, _TOWER | vision).save_pretrained(folder)
    tiny.encoder.processor.save_pretrained(folder)
    (folder / FORM_FILE).write_text(json.dumps(PromptForm().model_dump()))
    return folder


def small_model(folder: Path) -> Path:
    """Random weights, a fiftieth of the 7B's: as many layers, all widths a seventh, the embedded world's vocabulary."""
    tiny = build_tiny(vocabulary(), 0, PromptForm())
    text = {"hidden_size": 504, "intermediate_size": 2856, "num_hidden_layers": 28, "num_attention_heads": 7}
    text |= {"num_key_value_heads": 1, "tie_word_embeddings": False, "initializer_range": 0.02}
    text["rope_parameters"] = _ROPE | {"mrope_section": [8, 14, 14]}
    vision = {"hidden_size": 176, "intermediate_size": 488, "num_heads": 4, "out_hidden_size": 504, "initializer_range": 0.02}
    config = _config(tiny, text, _TOWER | vision)
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation=ATTENTIONS).eval()
    model.generation_config = tiny.model.generation_config
    save_backbone(Backbone(model, Encoder(tiny.encoder.processor, tiny.encoder.family), PromptForm()), folder)
    return folder


def _config(tiny: Backbone, text: dict[str, Any], vision: dict[str, Any]) -> Qwen2_5_VLConfig:
    given = tiny.model.config.to_dict()
    given["text_config"] |= text | {"layer_types": None}
    given["vision_config"] |= vision
    given["tie_word_embeddings"] = text["tie_word_embeddings"]
    return Qwen2_5_VLConfig.from_dict(given)
