"""LLaVA-OneVision: each picture as one square with borders, which is how its own processor shows one of several."""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaOnevisionProcessor
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from more_r1.models.families.family import Family, Shown
from more_r1.reasoning.prompt import CUT, Picture, Prompt


class LlavaProcessor(LlavaOnevisionProcessor):  # type: ignore[misc]
    """The stock processor without video, for which it wants torchvision. It reads stock folders and writes such."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        num_image_tokens: int | None = None,
        vision_feature_select_strategy: str | None = None,
        chat_template: str | None = None,
        image_token: str = "<image>",
        vision_aspect_ratio: str = "anyres_max_9",
        **_: Any,
    ) -> None:
        self.num_image_tokens = num_image_tokens
        self.vision_feature_select_strategy = vision_feature_select_strategy
        self.image_token = image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        self.vision_aspect_ratio = vision_aspect_ratio
        tokenizer.padding_side = "left"
        super(LlavaOnevisionProcessor, self).__init__(
            image_processor, tokenizer, chat_template=chat_template or tokenizer.chat_template
        )

    def to_dict(self) -> dict[str, Any]:
        """As transformers has it, under the name of the stock class, with what that wants to know of videos."""
        own = super().to_dict()
        video = {**own["image_processor"], "video_processor_type": "LlavaOnevisionVideoProcessor"}
        del video["image_processor_type"]
        return {**own, "processor_class": "LlavaOnevisionProcessor", "video_processor": video}


class LlavaOnevision(Family):
    """A picture is of a known number of tokens, whatever its size: one a patch and one that ends it, 730 by default."""

    def load(self, name: str) -> Any:
        """As Family has it."""
        processor = LlavaProcessor.from_pretrained(name, trust_remote_code=False)
        processor.image_processor = LlavaOnevisionImageProcessorPil.from_pretrained(name)
        return processor

    def content(self, prompt: Prompt) -> list[dict[str, str]]:
        """As Family has it; in one text, for the template would put all pictures before it."""
        segments = ("".join("<image>" if isinstance(p, Picture) else p for p in parts) for parts in prompt.segments)
        return [{"type": "text", "text": CUT.join(segments)}]

    def show(self, processor: Any, image: Image.Image, pixels: int) -> Shown:
        """As Family has it."""
        # A picture that stands alone would be cut into tiles; so another, as small as can be, goes with it.
        several = [[image, Image.new("RGB", (1, 1))]]
        features = processor.image_processor(several, return_tensors="pt")
        side = isqrt(processor.num_image_tokens)
        return features["pixel_values"][0], torch.tensor([1, side, side])

    def tokens(self, grid: Tensor, merge: int) -> int:
        """As Family has it."""
        return super().tokens(grid, merge) + 1

    def arguments(self, pixels: Tensor, grids: Tensor) -> dict[str, Tensor]:
        """As Family has it."""
        # The sizes are those of tiles, of which there are none. One more than there are: one alone would be tiled.
        sizes = torch.ones(len(pixels), 2, dtype=torch.long)
        return {"pixel_values": pixels, "image_sizes": sizes, "batch_num_images": torch.tensor([len(pixels) + 1])}


LLAVA_ONEVISION = LlavaOnevision("LLaVA-OneVision", ("image_token_id", "video_token_id"), "qwen2")
