"""The chat template of a model folder: a stranger's program, which is tried out before any document is put to it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from more_r1.models.processor import Encoder
from more_r1.reasoning.prompt import Picture, Prompt

# Trying takes milliseconds, and templates add some hundred characters.
_SECONDS = 10.0
_CHARACTERS = 20_000
_WORDS = ("instruction", "headline", "question")


def try_template(encoder: Encoder) -> None:
    """Put a question with two pictures into the template.

    Raises what the template raises, and ValueError for one that loses text or pictures, says too much or does not end. Loops
    are stopped wherever they are; a huge value made in one step (`'x' * 10**10`) is not, for nothing here sees it coming.
    """
    picture = Picture(b"", None, 1)  # never decoded: the template only says where it stands
    first, second, third = _WORDS
    with _ending():
        pieces = encoder.rendered(Prompt(((first,), (picture, second), (picture, third))))
    if (size := sum(map(len, pieces))) > _CHARACTERS:
        raise ValueError(f"it makes {size} characters of a short question")
    if len(pieces) != len(_WORDS) or any(piece.count(word) != 1 for piece, word in zip(pieces, _WORDS, strict=True)):
        raise ValueError("it does not say each part of a question once")
    found = [encoder.tokenizer(piece, add_special_tokens=False)["input_ids"].count(encoder.image_id) for piece in pieces]
    if found != [0, 1, 1]:
        raise ValueError("it does not put each picture where it belongs")


@contextmanager
def _ending() -> Iterator[None]:
    """Raises ValueError in what runs for too long, at its next line. Jinja's sandbox bounds a loop, not loops in loops."""
    last, before = time.monotonic() + _SECONDS, sys.gettrace()

    def check(*_: Any) -> Any:
        if time.monotonic() > last:
            raise ValueError(f"it does not end within {_SECONDS:.0f} seconds")
        return check

    sys.settrace(check)
    try:
        yield
    finally:
        sys.settrace(before)
