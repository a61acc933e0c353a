"""Text -> tokens, the same way wherever a person or a file gives plain text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from more_r1.document import Entity, Span

# Words with their inner marks (don't, U.S., 3.5) but for a possessive 's, which is no part of a name; and single marks.
_TOKEN = re.compile(r"['’]s\b|\w+(?:(?!['’]s\b)['’.,\-]\w+)*|[^\w\s]")


def tokenise(text: str) -> tuple[str, ...]:
    """Words with their inner marks, and single marks; white space parts them, and a possessive 's stands alone."""
    return tuple(_TOKEN.findall(text))


def mentions(words: Sequence[str], tokens: Sequence[str]) -> list[int]:
    """The tokens at which the words begin, all of them; none for no words."""
    size = len(words)
    return [i for i in range(len(tokens) - size + 1) if size and tuple(tokens[i : i + size]) == tuple(words)]


def entity_at(start: int, end: int, type: str | None = None) -> Entity:
    """The entity of tokens [start, end), its id made of the two as everywhere in the project."""
    return Entity(id=f"{start}-{end}", span=Span(start=start, end=end), type=type)
