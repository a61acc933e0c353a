"""Keys come from the environment only: a recipe that holds one is refused, and what is written or said has none in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from more_r1.training.recipe import RecipeError

# What the keys of known services begin with, and tokens of the usual forms.
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|csk|xai|nvapi)-(?=\S{0,200}?\d)[A-Za-z0-9_-]{16,}|(?:gsk|hf)_[A-Za-z0-9]{20,}|AIza[A-Za-z0-9_-]{30,}"
    r"|eyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_.-]+|[Bb]earer\s+\S{8,})"
)
_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_NAME = re.compile(r"(?i)(api|access|secret|private|auth)?[-_]?(key|token|secret|password|passwd|authorization|credentials?)")
# A part before the host (https://user:secret@host), or a key among the parameters.
_URL = re.compile(r"(?i)https?://[^/\s?#]*@|[?&][a-z_-]*(key|token|secret)=")


def refuse_keys(given: Mapping[str, Any]) -> None:
    """Raise RecipeError, which does not say the key, for a recipe with a field for a key or a value that looks like one."""
    for name, value in _leaves(given):
        field = name.rpartition(".")[2]
        unnamed = field == "key_env" and value is not None and not _VARIABLE.fullmatch(str(value))
        if _NAME.fullmatch(field) or unnamed or (isinstance(value, str) and (_KEY.search(value) or _URL.search(value))):
            raise RecipeError(
                f"{name[:60]}: looks like a key, and a recipe must hold none; "
                "put it into the environment and name the variable: key_env=OPENAI_API_KEY"
            )


def read_key(variable: str | None) -> str | None:
    """The key that the environment has under that name; None if no key is wanted. RecipeError if it is not there."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        # It may be a key that somebody took for its name.
        named = variable if re.fullmatch("[A-Z][A-Z_]*", variable) else "variable of that name"
        raise RecipeError(
            f"expert.key_env: the environment has no {named}; set it, or leave key_env out where no key is needed"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise RecipeError(f"expert.key_env: {variable} holds more than a key; it must be one word of plain characters")
    return key


def scrub(text: str, key: str | None = None) -> str:
    """The text without the key, or any part of it that a server may have quoted, and without what looks like one.

    A key of fewer than 8 characters stays: local servers take "none" or "x" for a key, which keeps nothing safe, and texts are
    full of them.
    """
    if key is not None and len(key) >= 8:
        text = text.replace(key, "[key]")
        # Servers quote a key's beginning or end: "Incorrect API key provided: sk-abcde*****wxyz".
        if len(key) >= 16:
            for part in (key[:8], key[-8:]):
                text = re.sub(r"\S+", partial(_hidden, part), text)
    return _KEY.sub("[key]", text)


def _hidden(part: str, word: re.Match[str]) -> str:
    return "[key]" if part in word[0] else word[0]


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _leaves(part, f"{name}.{number}")
    else:
        yield name, value
