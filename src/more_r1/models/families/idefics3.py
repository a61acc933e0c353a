"""Idefics3: each picture as one square, squeezed into the size of a tile; the finer tiles of its own processor are left out."""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import Idefics3Processor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from more_r1.models.families.family import Family, Shown


class Idefics3(Family):
    """Without tiles a picture is of a known number of tokens, whatever its size: 169 by default."""

    def load(self, name: str) -> Any:
        """As Family has it."""
        processor = Idefics3Processor.from_pretrained(name, trust_remote_code=False)
        processor.image_processor = Idefics3ImageProcessorPil.from_pretrained(name)
        processor.tokenizer.padding_side = "left"
        return processor

    def bordered(self, text: str) -> str:
        """As Family has it, as the processor does for a picture without tiles."""
        return text.replace("<image>", "<fake_token_around_image><global-img><image><fake_token_around_image>")

    def show(self, processor: Any, image: Image.Image, pixels: int) -> Shown:
        """As Family has it."""
        features = processor.image_processor(image, do_image_splitting=False, return_tensors="pt")
        side = isqrt(processor.image_seq_len)
        return features["pixel_values"][0], torch.tensor([1, side, side])

    def arguments(self, pixels: Tensor, grids: Tensor) -> dict[str, Tensor]:
        """As Family has it."""
        return {"pixel_values": pixels[None]}


IDEFICS3 = Idefics3("Idefics3", ("image_token_id",), "llama")
