"""Gemma 3: each picture as one square, whose tokens all see each other; most layers see only what is near."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import Gemma3Processor
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from more_r1.models.families.family import Family, Shown
from more_r1.reasoning.prompt import CUT, Picture, Prompt


class Gemma3(Family):
    """A picture is of a known number of tokens, whatever its size: 256 by default. Its processor's "pan and scan", which adds
    crops of long pictures, is left out, as it is in its own default."""

    def load(self, name: str) -> Any:
        """As Family has it."""
        processor = Gemma3Processor.from_pretrained(name, trust_remote_code=False)
        processor.image_processor = Gemma3ImageProcessorPil.from_pretrained(name)
        processor.tokenizer.padding_side = "left"
        return processor

    def image_id(self, processor: Any) -> int:
        """As Family has it; the processor's own is that of the mark before a picture."""
        return int(processor.tokenizer.image_token_id)

    def content(self, prompt: Prompt) -> list[dict[str, str]]:
        """As Family has it; in one text, for the template takes the blanks off the ends of each."""
        segments = ("".join("<start_of_image>" if isinstance(p, Picture) else p for p in parts) for parts in prompt.segments)
        return [{"type": "text", "text": CUT.join(segments)}]

    def bordered(self, text: str) -> str:
        """As Family has it, as the processor does."""
        return text.replace("<start_of_image>", "\n\n<start_of_image><image_soft_token><end_of_image>\n\n")

    def show(self, processor: Any, image: Image.Image, pixels: int) -> Shown:
        """As Family has it."""
        features = processor.image_processor(image, do_pan_and_scan=False, return_tensors="pt")
        side = isqrt(processor.image_seq_length)
        return features["pixel_values"], torch.tensor([1, side, side])

    def arguments(self, pixels: Tensor, grids: Tensor) -> dict[str, Tensor]:
        """As Family has it."""
        return {"pixel_values": pixels}

    def features(self, pictures: Sequence[Tensor]) -> Any:
        """As Family has it."""
        return torch.stack(list(pictures))


GEMMA3 = Gemma3("Gemma 3", ("image_token_id", "boi_token_id", "eoi_token_id"), "gemma3_text", both_ways=True)
