"""Prompt -> token ids and pixels, and back from token ids to text.

transformers' own `Qwen2_5_VLProcessor` wants a video processor and with it torchvision. We read pictures only.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from PIL import Image
from torch import Tensor
from transformers import ProcessorMixin

from more_r1.document import DocumentError
from more_r1.reasoning.prompt import CUT, Picture, Prompt

MIN_PIXELS = 56 * 56
# Pixels of pictures seen lately: pairs of a document share its picture, an epoch comes back to all of them.
PIXEL_CACHE_BYTES = 512 * 2**20
# Qwen's image processor refuses pictures longer than 200 times their width.
MAX_ASPECT = 200


class ImageTextProcessor(ProcessorMixin):  # type: ignore[misc]
    """Qwen2.5-VL's processor without video. Reads stock model folders and writes folders that stock code reads.

    Returns `mm_token_type_ids` (without them the model silently uses 1-D positions) and pads left.
    """

    return_mm_token_type_ids = True

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
        video = {**own["image_processor"], "video_processor_type": "Qwen2VLVideoProcessor"}
        del video["image_processor_type"]
        return {**own, "processor_class": "Qwen2_5_VLProcessor", "video_processor": video}


@dataclass(frozen=True)
class Segment:
    """A run of token ids, image tokens expanded, and the pictures behind its runs of image tokens, in order."""

    ids: tuple[int, ...]
    pictures: tuple[Picture, ...] = ()


class Encoder:
    """Prompts and completions to token ids, pictures to pixels. `processor` is an image-text processor of Qwen2.5-VL."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_id: int = processor.image_token_id
        self.merge: int = processor.image_processor.merge_size
        self.eos_id: int = self.tokenizer.eos_token_id
        self._pixels: OrderedDict[Picture, tuple[Tensor, Tensor]] = OrderedDict()
        self._cached_bytes = 0
        # The instruction is the same in every prompt.
        self._ids = lru_cache(maxsize=1024)(self._tokenise)

    def prompt(self, prompt: Prompt) -> tuple[Segment, ...]:
        """The chat template around the prompt, cut into the prompt's segments, each tokenised by itself.

        Raises ValueError where text of the prompt holds image tokens of its own; DocumentError for unreadable pictures.
        """
        content: list[dict[str, str]] = []
        for index, parts in enumerate(prompt.segments):
            if index:
                content.append({"type": "text", "text": CUT})
            # The template only needs to know where the pictures stand; they need not be decoded for it.
            content += [{"type": "image"} if isinstance(p, Picture) else {"type": "text", "text": p} for p in parts]
        message = [{"role": "user", "content": content}]
        text = self.processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        pieces = text.split(CUT)
        if len(pieces) != len(prompt.segments):
            raise ValueError(f"the text of a prompt holds the cut mark {CUT!r}; pass it through more_r1.reasoning.prompt.plain")
        return tuple(
            self._segment(piece, tuple(part for part in parts if isinstance(part, Picture)))
            for piece, parts in zip(pieces, prompt.segments, strict=True)
        )

    def completion(self, text: str) -> tuple[int, ...]:
        """The ids of a completion, end of sequence included. Raises ValueError if the text holds image tokens."""
        ids = self._tokenise(text)
        if self.image_id in ids:
            raise ValueError("a completion holds image tokens; its text must not contain <|image_pad|>")
        return (*ids, self.eos_id)

    def decode(self, ids: tuple[int, ...] | list[int]) -> str:
        """The text of a completion, up to the end of sequence."""
        ids = list(ids)
        if self.eos_id in ids:
            ids = ids[: ids.index(self.eos_id)]
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @cached_property
    def closing_ids(self) -> frozenset[int]:
        """The tokens in which a tag can end: those whose text has a `>`."""
        return frozenset(id for id in range(len(self.tokenizer)) if ">" in self.decode([id]))

    def pixels(self, picture: Picture) -> tuple[Tensor, Tensor]:
        """Pixel values [patches, channels x 2 x patch x patch] and the grid [3] (time, height, width in patches).

        Raises DocumentError if the picture cannot be read.
        """
        found = self._pixels.get(picture)
        if found is not None:
            self._pixels.move_to_end(picture)
            return found
        found = self._preprocess(picture)
        self._pixels[picture] = found
        self._cached_bytes += _kept(picture, found[0])
        while self._cached_bytes > PIXEL_CACHE_BYTES and len(self._pixels) > 1:
            first, (pixels, _) = self._pixels.popitem(last=False)
            self._cached_bytes -= _kept(first, pixels)
        return found

    def forget(self) -> None:
        """Let go of the pictures that are kept for prompts to come; a server would keep those of strangers, files and all."""
        self._pixels.clear()
        self._cached_bytes = 0

    def _preprocess(self, picture: Picture) -> tuple[Tensor, Tensor]:
        image = picture.load()
        width, height = image.size
        least = -(-max(width, height) // MAX_ASPECT)
        if min(width, height) < least:
            # A sliver of a crop: stretched just enough to be let in.
            image = image.resize((max(width, least), max(height, least)), Image.Resampling.BICUBIC)
        size = {"shortest_edge": MIN_PIXELS, "longest_edge": picture.pixels}
        try:
            features = self.processor.image_processor(image, size=size, return_tensors="pt")
        except ValueError as error:
            name = "image" if isinstance(picture.source, bytes) else picture.source
            raise DocumentError(f"{name}: cannot be prepared for the model ({error})") from error
        return features["pixel_values"], features["image_grid_thw"][0]

    def _tokenise(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _segment(self, text: str, pictures: tuple[Picture, ...]) -> Segment:
        ids = self._ids(text)
        if ids.count(self.image_id) != len(pictures):
            raise ValueError("the text of a prompt holds image tokens; pass it through more_r1.reasoning.prompt.plain")
        if not pictures:
            return Segment(ids)
        expanded: list[int] = []
        rest = iter(pictures)
        for id in ids:
            count = int(self.pixels(next(rest))[1].prod()) // self.merge**2 if id == self.image_id else 1
            expanded += [id] * count
        return Segment(tuple(expanded), pictures)


def _kept(picture: Picture, pixels: Tensor) -> int:
    """Bytes: an encoded picture is kept as long as what was made of it, and may be the larger of the two."""
    return pixels.nbytes + (len(picture.source) if isinstance(picture.source, bytes) else 0)
