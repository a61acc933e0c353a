"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of any size, positions in three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import ProcessorMixin
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from more_r1.models.families.family import Family, Shown

MIN_PIXELS = 56 * 56
# Qwen's image processor refuses pictures longer than 200 times their width.
MAX_ASPECT = 200


class ImageTextProcessor(ProcessorMixin):  # type: ignore[misc]
    """The processor of a Qwen-VL without video, for which stock code wants torchvision. It reads stock model folders and
    writes folders that stock code reads.

    Returns `mm_token_type_ids` (without them the model silently uses 1-D positions) and pads left.
    """

    return_mm_token_type_ids = True
    stock = ("Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor")

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **_: Any) -> None:
        self.image_token: str = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        tokenizer.padding_side = "left"
        super().__init__(image_processor, tokenizer, chat_template=chat_template or tokenizer.chat_template)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **_: Any) -> str:
        """One image token for each merged patch of the picture."""
        patches = int(image_inputs["image_grid_thw"][image_idx].prod())
        merge: int = self.image_processor.merge_size
        return self.image_token * (patches // merge**2)

    def to_dict(self) -> dict[str, Any]:
        """As transformers has it, under the name of the stock class, which others know.

        The stock class, and with it vLLM, also wants to know how videos are prepared: as pictures are.
        """
        own = super().to_dict()
        video = {**own["image_processor"], "video_processor_type": self.stock[1]}
        del video["image_processor_type"]
        return {**own, "processor_class": self.stock[0], "video_processor": video}


@dataclass(frozen=True)
class QwenVL(Family):
    """A picture is as many tokens as it has merged patches; its pixel values are [patches, channels x 2 x patch x patch]."""

    stock: tuple[str, str] = ImageTextProcessor.stock
    """The stock classes of its processor, and of that for videos."""

    def load(self, name: str) -> Any:
        """As Family has it."""
        processor = ImageTextProcessor.from_pretrained(name, trust_remote_code=False)
        processor.image_processor = Qwen2VLImageProcessorPil.from_pretrained(name)
        processor.stock = self.stock
        return processor

    def merge(self, processor: Any) -> int:
        """As Family has it."""
        return int(processor.image_processor.merge_size)

    def show(self, processor: Any, image: Image.Image, pixels: int) -> Shown:
        """As Family has it; at most `pixels` pixels, the grid in patches."""
        width, height = image.size
        least = -(-max(width, height) // MAX_ASPECT)
        if min(width, height) < least:
            # A sliver of a crop: stretched just enough to be let in.
            image = image.resize((max(width, least), max(height, least)), Image.Resampling.BICUBIC)
        size = {"shortest_edge": MIN_PIXELS, "longest_edge": pixels}
        features = processor.image_processor(image, size=size, return_tensors="pt")
        return features["pixel_values"], features["image_grid_thw"][0]

    def positions(self, ids: Sequence[int], image_id: int, grids: Sequence[Tensor], merge: int) -> tuple[Tensor, int]:
        """As Family has it, by `get_rope_index` of transformers: text advances by one a token, a picture of t x h x w merged
        patches counts them out in three dimensions and advances by the larger of h and w."""
        if not grids:
            return super().positions(ids, image_id, grids, merge)
        parts: list[Tensor] = []
        at = base = 0
        for grid in grids:
            first = ids.index(image_id, at)
            parts.append(torch.arange(first - at).expand(3, -1) + base)
            base += first - at
            time, height, width = grid.tolist()
            height, width = height // merge, width // merge
            parts.append(torch.cartesian_prod(torch.arange(time), torch.arange(height), torch.arange(width)).T + base)
            base += max(height, width)
            at = first + time * height * width
        rest = len(ids) - at
        parts.append(torch.arange(rest).expand(3, -1) + base)
        return torch.cat(parts, dim=1), base + rest

    def rows(self, grids: Tensor) -> Tensor:
        """As Family has it: a row a patch."""
        return grids.prod(-1)

    def arguments(self, pixels: Tensor, grids: Tensor) -> dict[str, Tensor]:
        """As Family has it."""
        return {"pixel_values": pixels, "image_grid_thw": grids}

    def pictures(self, pixel_values: Tensor, given: Tensor | None) -> list[Shown]:
        """As Family has it."""
        assert given is not None
        counts = given.prod(-1).tolist()
        return list(zip(pixel_values.split(counts), given, strict=True))  # type: ignore[no-untyped-call]


_MARKS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
QWEN2_VL = QwenVL(
    "Qwen2-VL",
    _MARKS,
    boxes="thousandths",
    axes=3,
    plain=True,
    stock=("Qwen2VLProcessor", "Qwen2VLVideoProcessor"),
)
QWEN2_5_VL = QwenVL("Qwen2.5-VL", _MARKS, boxes="pixels", axes=3, plain=True)
QWEN3_VL = QwenVL("Qwen3-VL", _MARKS, boxes="thousandths", axes=3, stock=("Qwen3VLProcessor", "Qwen3VLVideoProcessor"))
