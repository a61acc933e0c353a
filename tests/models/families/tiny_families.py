"""A random model of each family with some ten thousand parameters, in a folder as transformers alone writes it.

What lies beside the weights is as the hub's folders have it: image processors by their usual names, the templates in their way
of placing pictures.
"""

from __future__ import annotations

import io
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hub_config import flatten_config
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    Gemma3Config,
    Idefics3Config,
    LlavaOnevisionConfig,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen3VLConfig,
)

from more_r1.models.load import Backbone
from more_r1.models.processor import Segment
from more_r1.models.tiny import build_tokenizer
from more_r1.reasoning.prompt import Picture, Prompt
from more_r1.schema import Schema

WORDS = [f"w{i}" for i in range(30)]
TAGS = ["<think>", "</think>", "<answer>", "</answer>", "Step", ":", *"123456"]
BUDGET = 112 * 112
_QWEN = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"} | {
    f"vision_{edge}_token_id": f"<|vision_{edge}|>" for edge in ("start", "end")
}
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_IDEFICS_CHAT = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}{% for line in message['content'] %}"
    "{% if line['type'] == 'text' %}{{ line['text'] }}{% else %}<image>{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
# LLaVA-OneVision's puts all pictures first.
_LLAVA_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}<image>{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}\n{{ part['text'] }}{% endfor %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Gemma's cuts the blanks off the ends of each text.
_GEMMA_CHAT = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_GEMMA = {"image": "<image_soft_token>", "boi": "<start_of_image>", "eoi": "<end_of_image>"}
WINDOW = 11
_TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
    "bos_token_id": None,
    "max_position_embeddings": 4096,
}
_SIGLIP = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "initializer_range": 0.15,
}
_PATCHES = {"temporal_patch_size": 2, "merge_size": 2, "min_pixels": 56 * 56, "max_pixels": 12845056}


def _rope(sections: list[int]) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections}}


def _qwen(
    config: Any, vision: dict[str, Any], patch: int, name: str, **text: Any
) -> tuple[Any, dict[str, Any], str, list[str]]:
    processor = {"image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": patch, "processor_class": name, **_PATCHES}
    shape = {"patch_size": patch, "num_heads": 2, "depth": 2, "initializer_range": 0.15, **vision}
    return lambda ids: config(text_config=_TEXT | text | ids["text"], vision_config=shape, **ids["marks"]), processor, _CHAT, []


def _idefics(ids: dict[str, Any]) -> Any:
    text = {"model_type": "llama", **_TEXT, **ids["text"]}
    return Idefics3Config(text_config=text, vision_config=_SIGLIP, image_token_id=ids["all"]("<image>"), scale_factor=2)


def _llava(ids: dict[str, Any]) -> Any:
    return LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **_TEXT, **ids["text"]},
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **_SIGLIP},
        image_token_index=ids["all"]("<image>"),
        video_token_index=ids["all"]("<video>"),
        image_grid_pinpoints=[[56, 56], [56, 112], [112, 56], [112, 112]],
    )


def _gemma(ids: dict[str, Any]) -> Any:
    """Two layers in three have a window shorter than most prompts, than their pictures even."""
    layers = ["sliding_attention", "full_attention", "sliding_attention"]
    text = {
        **_TEXT,
        **ids["text"],
        "head_dim": 12,
        "query_pre_attn_scalar": 12,
        "sliding_window": WINDOW,
        "layer_types": layers,
    }
    return Gemma3Config(
        text_config=text,
        vision_config={"vision_use_head": False, **_SIGLIP},
        mm_tokens_per_image=16,
        initializer_range=0.15,
        **{f"{name}_token_index": ids["all"](token) for name, token in _GEMMA.items()},
    )


# Configuration, preprocessor_config.json, chat template and the special tokens that Qwen's tokenizer does not have.
_KINDS: dict[str, tuple[Any, dict[str, Any], str, list[str]]] = {
    "qwen2_vl": _qwen(Qwen2VLConfig, {"embed_dim": 32, "hidden_size": 48}, 14, "Qwen2VLProcessor", **_rope([2, 2, 2])),
    "qwen2_5_vl": _qwen(
        Qwen2_5_VLConfig,
        {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 48, "fullatt_block_indexes": [1]},
        14,
        "Qwen2_5_VLProcessor",
        **_rope([2, 2, 2]),
    ),
    "qwen3_vl": _qwen(
        Qwen3VLConfig,
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "out_hidden_size": 48,
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": [0, 1],
        },
        16,
        "Qwen3VLProcessor",
        head_dim=16,
        **_rope([4, 2, 2]),
    ),
    "idefics3": (
        _idefics,
        {
            "image_processor_type": "Idefics3ImageProcessor",
            "processor_class": "Idefics3Processor",
            "image_seq_len": 4,
            "size": {"longest_edge": 112},
            "max_image_size": {"longest_edge": 56},
        },
        _IDEFICS_CHAT,
        ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"],
    ),
    "llava_onevision": (
        _llava,
        {
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "processor_class": "LlavaOnevisionProcessor",
            "num_image_tokens": 16,
            "vision_feature_select_strategy": "full",
            "size": {"height": 56, "width": 56},
            "image_grid_pinpoints": [[56, 56], [56, 112], [112, 56], [112, 112]],
        },
        _LLAVA_CHAT,
        ["<image>", "<video>"],
    ),
    "gemma3": (
        _gemma,
        {
            "image_processor_type": "Gemma3ImageProcessor",
            "processor_class": "Gemma3Processor",
            "image_seq_length": 16,
            "size": {"height": 56, "width": 56},
        },
        _GEMMA_CHAT,
        ["<bos>", "<start_of_turn>", "<end_of_turn>", *_GEMMA.values()],
    ),
}
KINDS = tuple(_KINDS)


@dataclass(frozen=True)
class Both:
    """One folder, loaded by us and by transformers alone."""

    kind: str
    folder: Path
    ours: Backbone
    stock: Any


def write_tiny(kind: str, folder: Path, tied: bool | None = None) -> None:
    """A folder as on the hub; norms and biases are random, too, for a fresh model's do nothing. `tied`: whether the head is the
    embedding, where it is not to be as the family has it."""
    build, pictures, chat, special = _KINDS[kind]
    tokenizer = build_tokenizer([*WORDS, *TAGS, *Schema.more().labels])
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    if kind == "gemma3":  # whose tokenizer knows these by name
        tokenizer.bos_token = "<bos>"
        tokenizer._set_model_specific_special_tokens({f"{name}_token": token for name, token in _GEMMA.items()})
    known = tokenizer.convert_tokens_to_ids
    text = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = build({"text": text, "marks": {name: known(token) for name, token in _QWEN.items()}, "all": known})
    if tied is not None:
        config.tie_word_embeddings = tied
    torch.manual_seed(1)
    model = AutoModelForImageTextToText.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "projection_weight")) or "norm" in name or "ln_q" in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
        if kind == "gemma3" and ".post_" in name:  # or the token itself would drown what the layers add to it
            parameter.data += 3
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.save_pretrained(folder)
    if kind in ("qwen2_vl", "qwen2_5_vl"):
        flatten_config(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    own = {
        name: pictures[name]
        for name in ("image_seq_len", "image_seq_length", "num_image_tokens", "vision_feature_select_strategy")
        if name in pictures
    }
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": pictures["processor_class"], **own}))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": chat}))


def picture(seed: int, size: tuple[int, int]) -> Picture:
    """Noise."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return Picture(file.getvalue(), None, BUDGET)


def words(rng: random.Random, most: int) -> str:
    return " ".join(f"w{rng.randrange(30)}" for _ in range(rng.randint(1, most)))


def some_prompts(seed: int) -> list[Prompt]:
    """Documents with pairs under one root, ragged; each with no picture or two or three of several sizes."""
    rng = random.Random(seed)
    root = (words(rng, 12) + "\n",)
    found = []
    for document in range(3):
        shows = document != 1
        whole = (picture(rng.randrange(99), (84 + 28 * document, 90)), words(rng, 8)) if shows else (words(rng, 8),)
        for pair in range(1 + document % 2 + 1):
            crops = (picture(rng.randrange(99), (60, 56 + 30 * pair)), words(rng, 3)) if shows else ()
            more = (picture(rng.randrange(99), (30, 40)),) if pair and shows else ()
            found.append(Prompt((root, (*whole, "\n"), (*crops, *more, words(rng, 4)))))
    return found


def stock_inputs(backbone: Backbone, prompt: Prompt) -> dict[str, Any]:
    """What the processor itself makes of the whole prompt; it is the stock one but for videos, which want torchvision."""
    encoder = backbone.encoder
    processor, kind = encoder.processor, backbone.model.config.model_type
    content: list[dict[str, str]] = [
        {"type": "image"} if isinstance(part, Picture) else {"type": "text", "text": part}
        for parts in prompt.segments
        for part in parts
    ]
    placed = {"llava_onevision": "<image>", "gemma3": "<start_of_image>"}
    if kind in placed:  # with several pictures they are placed in the text
        content = [{"type": "text", "text": "".join(part.get("text", placed[kind]) for part in content)}]
    chat = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    shown = [picture.load() for picture in prompt.pictures]
    options: dict[str, Any] = {"return_tensors": "pt"}
    if "qwen" in kind:
        options["size"] = {"shortest_edge": 56 * 56, "longest_edge": BUDGET}
    if kind == "idefics3":
        options["do_image_splitting"] = False
    inputs = processor(text=[text], images=[shown] if shown else None, **options)
    return {name: value for name, value in inputs.items() if name != "mm_token_type_ids" or "qwen" in kind}


def followed(inputs: dict[str, Any], ids: torch.Tensor) -> dict[str, Any]:
    """The inputs of a prompt with these tokens [1, n] behind it."""
    longer = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": torch.zeros_like(ids)}
    return {name: torch.cat([value, longer[name]], dim=1) if name in longer else value for name, value in inputs.items()}


def spelled(segments: tuple[Segment, ...]) -> list[int]:
    return [id for segment in segments for id in segment.ids]
