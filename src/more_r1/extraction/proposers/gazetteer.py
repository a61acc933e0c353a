"""Entities by a list of names: the longest that stands in the text, letter for letter.

Without an argument the names are those of the embedded world. A list of one's own is a file: .tsv with one `name` or
`name<TAB>type` a line, .yaml with `name: type` (or nothing after the colon).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from more_r1.document import Document, Entity
from more_r1.extraction.proposers.errors import ProposerError
from more_r1.extraction.words import entity_at, tokenise
from more_r1.models.engine import Model
from more_r1.schema import TYPES
from more_r1.synthetic.world import BY_KIND, EVERYONE

Names = Mapping[tuple[str, ...], str | None]
"""Words of a name -> its type, None where it is not known."""


def entities(argument: str, _: Model) -> Gazetteer:
    """The proposer for the file, or for the embedded world. Raises ProposerError for a file that is no gazetteer."""
    return Gazetteer(read_names(Path(argument)) if argument else embedded_names())


class Gazetteer:
    """Finds names in a text from left to right, the longest first."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._longest = max(map(len, names), default=0)

    def __call__(self, document: Document) -> tuple[Entity, ...]:
        return tuple(self._find(document.tokens))

    def _find(self, tokens: tuple[str, ...]) -> Iterator[Entity]:
        start = 0
        while start < len(tokens):
            for size in range(min(self._longest, len(tokens) - start), 0, -1):
                words = tokens[start : start + size]
                if words in self._names:
                    yield entity_at(start, start + size, self._names[words])
                    break
            else:
                size = 1
            start += size


def embedded_names() -> Names:
    """Names and nicknames of the embedded world, and `CITY side`, as its headlines also call a club."""
    names = {tuple(name.split()): who.type for who in EVERYONE.values() for name in (who.name, who.nickname)}
    return names | {(club.home, "side"): club.type for club in BY_KIND["club"]}


def read_names(path: Path) -> Names:
    """A gazetteer from a .tsv or .yaml file. Raises ProposerError with the line, or the name, that is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix in (".yaml", ".yml"):
            data = yaml.safe_load(text)
        elif path.suffix == ".tsv":
            lines = [line.split("\t") for line in text.splitlines() if line.strip()]
            if (long := next((line for line in lines if len(line) > 2), None)) is not None:
                raise ProposerError(f"{path}: {long[0][:60]!r} has {len(long)} columns; give a name, a tab and a type")
            data = {line[0]: line[1] if len(line) == 2 else None for line in lines}
        else:
            raise ProposerError(f"{path}: unknown kind of gazetteer {path.suffix!r}; give a .tsv or a .yaml file")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, ProposerError):
            raise
        raise ProposerError(f"{path}: cannot be read as a gazetteer ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(data, dict) or not data:
        raise ProposerError(f"{path}: no names in it; give one `name: type` a line")
    return dict(_name(name, type, path) for name, type in data.items())


def _name(name: object, type: object, path: Path) -> tuple[tuple[str, ...], str | None]:
    if not isinstance(name, str) or not (words := tokenise(name)):
        raise ProposerError(f"{path}: {str(name)[:60]!r} is no name; put quotes around what YAML takes for something else")
    type = "" if type is None else type.strip() if isinstance(type, str) else type
    if not isinstance(type, str) or type not in ("", *TYPES):
        # Only a text is shown: a stranger's YAML can hold lists that are endless when written out.
        shown = repr(type[:60]) if isinstance(type, str) else f"({type.__class__.__name__})"
        raise ProposerError(f"{path}: {name[:60]!r} has the unknown type {shown}; the types are {', '.join(TYPES)}")
    return words, type or None
