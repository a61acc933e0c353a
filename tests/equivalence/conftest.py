"""Models to compare on: the tiny one, and one of another size in a folder as stock transformers and the hub have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hub_config import flatten_config
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from more_r1.models.load import Backbone, load_backbone
from more_r1.models.tiny import build_tiny, build_tokenizer

WORDS = [f"w{i}" for i in range(40)]
# As the hub's Qwen2.5-VL folders have it, with limits that suit a test.
PREPROCESSOR = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "processor_class": "Qwen2_5_VLProcessor",
}
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def stock_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2.5-VL with grouped queries, windowed vision and untied embeddings, saved by transformers alone, but for its
    configuration, which is flat as the hub's is."""
    folder = tmp_path_factory.mktemp("stock")
    tokenizer = build_tokenizer(WORDS)
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 512,
            "hidden_size": 96,
            "intermediate_size": 160,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            "initializer_range": 0.1,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_heads": 2,
            "out_hidden_size": 96,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.1,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    torch.manual_seed(1)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = [ids("<|im_end|>"), ids("<|endoftext|>")]
    model.save_pretrained(folder)
    flatten_config(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder


@pytest.fixture(scope="session")
def tiny() -> Backbone:
    return build_tiny(WORDS, seed=0)


@pytest.fixture(scope="session")
def stock(stock_folder: Path) -> Backbone:
    return load_backbone(stock_folder, device="cpu")


@pytest.fixture(params=["tiny", "stock"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """Each of the two in turn."""
    found: Backbone = request.getfixturevalue(request.param)
    return found
