"""A zero-shot detector of the OWL-ViT family with random weights, in a folder as the model hub has them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPTokenizer, OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessorPil, OwlViTProcessor


def tiny_owl(folder: Path) -> None:
    """Write model and processor; it is sure of everything."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["!", *letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: id for id, word in enumerate(words)}, merges=[], pad_token="!", model_max_length=16)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**size, "vocab_size": len(words), "max_position_embeddings": 16, "pad_token_id": 0}
    text |= {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}
    torch.manual_seed(0)
    config = OwlViTConfig(text_config=text, vision_config={**size, "image_size": 32, "patch_size": 8}, projection_dim=16)
    model = OwlViTForObjectDetection(config)
    with torch.no_grad():
        model.class_head.logit_shift.bias.fill_(4)
    model.save_pretrained(folder)
    images = OwlViTImageProcessorPil(size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32})
    OwlViTProcessor(images, tokenizer).save_pretrained(folder)
