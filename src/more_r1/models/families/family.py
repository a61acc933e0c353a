"""What differs between families of models, in one place: how pictures become tokens, positions and arguments of `forward`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from more_r1.reasoning.prompt import CUT, Picture, Prompt

Shown = tuple[Tensor, Tensor]
"""A picture as a model takes it: pixel values, rows first, and the grid [3] (time, height, width) of its patches."""


@dataclass(frozen=True)
class Family(ABC):
    """A family whose text model counts every token on, and which takes each picture as one square of a fixed size.

    `processor` in what follows is one that `load` gave.
    """

    name: str
    marks: tuple[str, ...]
    """Where the configuration has the ids of the tokens for pictures and their borders, the picture's own first."""
    text: str | None = None
    """The kind of text model, by `model_type`, where a family may have several."""
    boxes: Literal["pixels", "thousandths"] | None = None
    """In what the family was taught to give boxes: pixels of the picture as it is shown, or thousandths of its sides; None if
    that is not known."""
    axes: int = 1
    """Of positions."""
    plain: bool = False
    """Whether its text model is built as Qwen2.5-VL's, see models/step.py."""

    both_ways: bool = False
    """Whether the tokens of a picture see those behind them, too."""

    @abstractmethod
    def load(self, name: str) -> Any:
        """The processor of a folder or hub name: pictures by PIL, even where torchvision is, which resizes otherwise."""

    def image_id(self, processor: Any) -> int:
        """The id of the token that stands, as many times as it has tokens, for a picture."""
        return int(processor.image_token_id)

    def merge(self, processor: Any) -> int:
        """How many patches make a token, along each side."""
        return 1

    def content(self, prompt: Prompt) -> list[dict[str, str]]:
        """What the chat template is given: texts, the places of pictures, and CUT between the segments.

        The template only needs to know where the pictures stand; they need not be decoded for it.
        """
        content: list[dict[str, str]] = []
        for index, parts in enumerate(prompt.segments):
            if index:
                content.append({"type": "text", "text": CUT})
            content += [{"type": "image"} if isinstance(p, Picture) else {"type": "text", "text": p} for p in parts]
        return content

    def bordered(self, text: str) -> str:
        """What the template made, with the marks that go around each picture."""
        return text

    @abstractmethod
    def show(self, processor: Any, image: Image.Image, pixels: int) -> Shown:
        """A picture's pixel values, [1, channels, height, width], and its grid in tokens. `pixels`: the most, where it can be
        said."""

    def tokens(self, grid: Tensor, merge: int) -> int:
        """How many tokens a picture is."""
        return int(grid.prod()) // merge**2

    def positions(self, ids: Sequence[int], image_id: int, grids: Sequence[Tensor], merge: int) -> tuple[Tensor, int]:
        """Positions [axes, tokens] of a segment that begins at 0, and how far it moves on what follows."""
        return torch.arange(len(ids)).expand(self.axes, -1), len(ids)

    def rows(self, grids: Tensor) -> Tensor:
        """From the grids of pictures [pictures, 3] to how many rows the pixel values of each have."""
        return torch.ones(len(grids), dtype=torch.long)

    @abstractmethod
    def arguments(self, pixels: Tensor, grids: Tensor) -> dict[str, Tensor]:
        """The pixel values of some pictures and their grids, as `forward` and `get_image_features` want them."""

    def pictures(self, pixel_values: Tensor, given: Tensor | None) -> list[Shown]:
        """The other way round: picture by picture, from the first two of `arguments`."""
        alone = torch.ones(3, dtype=torch.long)
        return [(one, alone) for one in pixel_values.flatten(0, -4).split(1)]  # type: ignore[no-untyped-call]

    def features(self, pictures: Sequence[Tensor]) -> Any:
        """What the tower made of some pictures, [tokens, width] each, put together as `get_image_features` does."""
        return tuple(pictures)
