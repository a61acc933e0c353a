"""A Qwen2.5-VL of 2 to 3 million parameters with a tokenizer of its own, for CPUs and for the embedded world.

Everything but the sizes is transformers' own class, so whatever runs on the tiny model runs on the real one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from more_r1.models.families.qwen import MIN_PIXELS, ImageTextProcessor
from more_r1.models.load import ATTENTIONS, Backbone
from more_r1.models.processor import Encoder
from more_r1.reasoning.prompt import PromptForm

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Tags, parts of labels, words, single marks; each takes the space before it along.
_SPLIT = r" ?</?[a-z]+>| ?/[a-z_]+| ?[A-Za-z0-9_]+| ?[^\sA-Za-z0-9_]|\s"
# Qwen's template without its default system prompt, which would cost the tiny model tokens in every prompt.
_TEMPLATE = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>\
{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def build_tiny(words: Iterable[str], seed: int, form: PromptForm | None = None) -> Backbone:
    """A freshly initialised model whose tokenizer has each of `words` as one token, with and without a space before it.

    Any other text falls to bytes. The same words (in any order) and seed give the same model.
    """
    tokenizer = build_tokenizer(words)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "initializer_range": 0.05,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 3,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "out_hidden_size": 128,
            "fullatt_block_indexes": [0, 1, 2],
            "initializer_range": 0.05,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        initializer_range=0.05,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation=ATTENTIONS)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    pictures = Qwen2VLImageProcessorPil(size={"shortest_edge": MIN_PIXELS, "longest_edge": 1280 * 28 * 28})
    processor = ImageTextProcessor(pictures, tokenizer, chat_template=_TEMPLATE)
    return Backbone(model.eval(), Encoder(processor), form or PromptForm())


def build_tokenizer(words: Iterable[str]) -> Any:
    """A byte-level tokenizer without merges: the 256 bytes, each word with and without a leading space, special tokens.

    What it decodes is what was encoded, for any text. A word that the split would break is split off as it stands.
    """
    known = sorted({word for word in words if word})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelled = [symbols.pre_tokenize_str(text)[0][0] for word in known for text in (word, f" {word}")]
    vocabulary = {token: id for id, token in enumerate(dict.fromkeys([*alphabet, *spelled]))}
    odd = sorted((word for word in known if re.fullmatch(_SPLIT, word) is None), key=len, reverse=True)
    pattern = "|".join([*(f" ?{re.escape(word)}" for word in odd), _SPLIT])

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, symbols])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
