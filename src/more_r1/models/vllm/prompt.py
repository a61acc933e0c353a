"""Prompts as vLLM takes them: our tokens, and pictures that have already the size in which our processor would show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from PIL import Image

from more_r1.models.processor import Encoder
from more_r1.reasoning.prompt import Prompt


@dataclass(frozen=True)
class VllmPrompt:
    """A prompt; its pictures have names, for vLLM would else compute names of its own, for every request."""

    ids: tuple[int, ...]
    """Our tokens, which must be what vLLM reads."""
    single: tuple[int, ...]
    """The same with one token for each picture: vLLM multiplies them itself."""
    pictures: tuple[Image.Image, ...]
    names: tuple[str, ...]

    def request(self, behind: Sequence[int] = ()) -> dict[str, Any]:
        """As `LLM.generate` takes it, with the beginning of a completion behind it."""
        tokens = {"prompt_token_ids": [*self.single, *behind]}
        if not self.pictures:
            return tokens
        data = {"multi_modal_data": {"image": list(self.pictures)}, "multi_modal_uuids": {"image": list(self.names)}}
        return {**tokens, **data}


def vllm_prompt(encoder: Encoder, prompt: Prompt) -> VllmPrompt:
    """Raises as Encoder.prompt does."""
    ids = tuple(id for segment in encoder.prompt(prompt) for id in segment.ids)
    single = tuple(one for id, run in groupby(ids) for one in ([id] if id == encoder.image_id else run))
    shown = [encoder.resized(picture) for picture in prompt.pictures]
    return VllmPrompt(ids, single, tuple(image for image, _ in shown), tuple(name for _, name in shown))
