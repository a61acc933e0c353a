"""Prompt -> token ids and pixels, and back from token ids to text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Any

from PIL import Image
from torch import Tensor

from more_r1.document import DocumentError
from more_r1.models.families.family import Family, Shown
from more_r1.models.families.qwen import QWEN2_5_VL
from more_r1.models.kept import Kept
from more_r1.reasoning.prompt import CUT, Picture, Prompt


@dataclass(frozen=True)
class Segment:
    """A run of token ids, image tokens expanded, and the pictures behind its runs of image tokens, in order."""

    ids: tuple[int, ...]
    pictures: tuple[Picture, ...] = ()


class Encoder:
    """Prompts and completions to token ids, pictures to pixels. `processor` is one of the family's."""

    def __init__(self, processor: Any, family: Family = QWEN2_5_VL) -> None:
        self.processor = processor
        self.family = family
        self.tokenizer = processor.tokenizer
        self.image_id = family.image_id(processor)
        self.merge = family.merge(processor)
        self.eos_id: int = self.tokenizer.eos_token_id
        self._pixels = Kept(self._preprocess, lambda shown: shown[0].nbytes)
        self._resized = Kept(self._resize, lambda resized: 3 * resized[0].width * resized[0].height)
        # The instruction is the same in every prompt.
        self._ids = lru_cache(maxsize=1024)(self._tokenise)

    def prompt(self, prompt: Prompt) -> tuple[Segment, ...]:
        """The chat template around the prompt, cut into the prompt's segments, each tokenised by itself.

        Raises ValueError where text of the prompt holds image tokens of its own; DocumentError for unreadable pictures.
        """
        pieces = self.rendered(prompt)
        if len(pieces) != len(prompt.segments):
            raise ValueError(f"the text of a prompt holds the cut mark {CUT!r}; pass it through more_r1.reasoning.prompt.plain")
        return tuple(
            self._segment(piece, tuple(part for part in parts if isinstance(part, Picture)))
            for piece, parts in zip(pieces, prompt.segments, strict=True)
        )

    def rendered(self, prompt: Prompt) -> list[str]:
        """The chat template around the prompt, cut at the cut marks; a picture is one image token, and is not read."""
        message = [{"role": "user", "content": self.family.content(prompt)}]
        text = self.processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        return self.family.bordered(text).split(CUT)

    def completion(self, text: str) -> tuple[int, ...]:
        """The ids of a completion, end of sequence included. Raises ValueError if the text holds image tokens."""
        ids = self._tokenise(text)
        if self.image_id in ids:
            raise ValueError(f"a completion holds image tokens; its text must not contain {self.processor.image_token}")
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

    def pixels(self, picture: Picture) -> Shown:
        """Pixel values, rows first, and the grid [3] (time, height, width in patches), as the family has them.

        Raises DocumentError if the picture cannot be read.
        """
        return self._pixels(picture)

    def resized(self, picture: Picture) -> tuple[Image.Image, str]:
        """The picture in the size in which the processor shows it, and a name for it that no other picture has.

        Raises DocumentError if the picture cannot be read.
        """
        return self._resized(picture)

    def positions(self, segment: Segment) -> tuple[Tensor, int]:
        """Positions [axes, tokens] of a segment that begins at 0, and how far it moves on what follows."""
        grids = [self.pixels(picture)[1] for picture in segment.pictures]
        return self.family.positions(segment.ids, self.image_id, grids, self.merge)

    def runs(self, segment: Segment) -> Iterator[tuple[int, int]]:
        """Where in a segment the tokens of each picture are, [first, last)."""
        last = 0
        for picture in segment.pictures:
            first = segment.ids.index(self.image_id, last)
            last = first + self.family.tokens(self.pixels(picture)[1], self.merge)
            yield first, last

    def box_scale(self, picture: Picture) -> tuple[int, int]:
        """The width and height of a picture in what the family was taught to give boxes in.

        Raises ValueError for a family of which that is not known.
        """
        if self.family.boxes is None:
            raise ValueError(f"{self.family.name}: it is not known how this family gives boxes; have others propose objects")
        if self.family.boxes == "thousandths":
            return 1000, 1000
        return self._size(picture)

    def forget(self) -> None:
        """Let go of the pictures that are kept for prompts to come; a server would keep those of strangers, files and all."""
        self._pixels.forget()
        self._resized.forget()

    def _preprocess(self, picture: Picture) -> Shown:
        image = picture.load()
        try:
            return self.family.show(self.processor, image, picture.pixels)
        except ValueError as error:
            name = "image" if isinstance(picture.source, bytes) else picture.source
            raise DocumentError(f"{name}: cannot be prepared for the model ({error})") from error

    def _resize(self, picture: Picture) -> tuple[Image.Image, str]:
        image = picture.load().resize(self._size(picture), Image.Resampling.BICUBIC)
        return image, sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()

    def _size(self, picture: Picture) -> tuple[int, int]:
        # The grid counts patches: the picture as the model sees it, resized to whole ones.
        _, rows, columns = self.pixels(picture)[1].tolist()
        patch: int = self.processor.image_processor.patch_size
        return columns * patch, rows * patch

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
            count = self.family.tokens(self.pixels(next(rest))[1], self.merge) if id == self.image_id else 1
            expanded += [id] * count
        return Segment(tuple(expanded), pictures)
