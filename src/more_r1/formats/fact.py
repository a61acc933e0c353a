"""One line of the benchmark's txt files: one pair, as a Python literal."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from more_r1.document import Box
from more_r1.formats.fault import Place, quoted

# The headlines of MORE make lines of about 1,000 characters. Parsing takes some hundred times a line's size in memory.
MAX_LINE = 100_000
_KEYS = "token, h, t, img_id and relation"


@dataclass(frozen=True, slots=True)
class Fact:
    """One pair as the line has it; `box` is the line's own, the .pth may know better."""

    tokens: tuple[str, ...]
    name: str
    span: tuple[int, int]
    object: str
    box: Box
    img_id: str
    relation: str

    @property
    def title(self) -> str:
        return f"{quoted(self.img_id)}, object {quoted(self.object)}, entity {quoted(self.name)}"

    def render(self) -> str:
        """The line. The authors' loader asks for the box under `box`, their dataset class also for `pos`: give both."""
        box = (self.box.cx, self.box.cy, self.box.w, self.box.h)
        line = {
            "token": list(self.tokens),
            "h": {"name": self.name, "pos": list(self.span)},
            "t": {"name": self.object, "pos": [repr(value) for value in box], "box": list(box)},
            "img_id": self.img_id,
            "relation": self.relation,
        }
        return repr(line)


def parse_fact(raw: bytes, place: Place) -> Fact:
    """Read a line. Raises FormatError where it is no literal or lacks a key; whether it is sound is not asked here."""
    if len(raw) > MAX_LINE:
        place.refuse(f"malformed line: {len(raw)} bytes long", "write one pair a line, as a short dict")
    try:
        text = raw.decode("utf-8").strip("\r\n")
        place = Place(place.file, place.line, quoted(text))
        data = ast.literal_eval(text)
    except UnicodeDecodeError:
        place.refuse("malformed line: not UTF-8", "save the file as UTF-8")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        place.refuse("malformed line: not a Python literal", f"write one dict a line, with the keys {_KEYS}")
    if not isinstance(data, dict):
        place.refuse(f"malformed line: a {type(data).__name__}, not a dict", f"write a dict with the keys {_KEYS}")
    if isinstance(data.get("img_id"), str):
        place = Place(place.file, place.line, quoted(data["img_id"]))
    head, tail = _get(data, "h", dict, place), _get(data, "t", dict, place)
    tokens, span = _get(data, "token", list, place), _get(head, "pos", (list, tuple), place, "h.")
    if not tokens or not all(isinstance(token, str) for token in tokens):
        place.refuse("malformed line: token is not a list of words", "give the headline's words as strings")
    if len(span) != 2 or not all(type(edge) is int for edge in span):
        place.refuse(f"malformed line: h.pos is {quoted(span)}", "give [start, end) as two whole numbers of tokens")
    box = tail.get("box", tail.get("pos"))
    if box is None:
        place.refuse("malformed line: no 'box' in t", "give the object's box as cx, cy, w, h")
    fact = Fact(
        tokens=tuple(tokens),
        name=_get(head, "name", str, place, "h."),
        span=(span[0], span[1]),
        object=_get(tail, "name", str, place, "t."),
        box=read_box(box, place),
        img_id=_get(data, "img_id", str, place),
        relation=_get(data, "relation", str, place),
    )
    if not all(map(is_text, (*tokens, fact.name, fact.object))):
        place.refuse("malformed line: half a character (a lone surrogate)", "write the character itself, in UTF-8")
    return fact


def read_box(values: object, place: Place) -> Box:
    """A box from four numbers, or from four strings as older dumps have them. Raises FormatError."""
    if isinstance(values, Sequence) and len(values) == 4 and all(type(value) in (int, float, str) for value in values):
        try:
            cx, cy, w, h = (float(value) for value in values)
            return Box(cx=cx, cy=cy, w=w, h=h)
        except (ValueError, OverflowError, ValidationError):
            pass
    place.refuse(f"malformed box {quoted(values)}", "give cx, cy, w, h as four numbers, fractions of the image")


def is_text(text: str) -> bool:
    """Whether a file can hold the string; Python's own may have halves of characters, as the literal '\\ud800' does."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _get(data: dict[Any, Any], key: str, kind: type | tuple[type, ...], place: Place, of: str = "") -> Any:
    if key not in data:
        place.refuse(f"malformed line: no key '{of}{key}'", f"a line needs {_KEYS}; h and t need name and pos or box")
    if not isinstance(data[key], kind):
        names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        place.refuse(f"malformed line: '{of}{key}' is a {type(data[key]).__name__}", f"make it a {names}")
    return data[key]
