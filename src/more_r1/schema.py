"""The closed set of relations: what may hold between a seen object and a named entity.

A label is written `/OBJECT_TYPE/ENTITY_TYPE/name`; `none` is part of every schema. The order of a schema is the
order of its ids, `none` being 0.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

NONE = "none"
TYPES = ("per", "org", "loc", "misc")
_LABEL = re.compile(r"/([a-z]+)/([a-z]+)/([a-z][a-z0-9_]*)")


class SchemaError(ValueError):
    """A schema that cannot be used; the message names the file, the label and the mend."""


class Relation(BaseModel):
    """One label and what it means, in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    meaning: str

    @property
    def object_type(self) -> str:
        return self.label.split("/")[1]

    @property
    def entity_type(self) -> str:
        return self.label.split("/")[2]


class Schema(BaseModel):
    """A closed set of relations; `none` is implied and has id 0."""

    model_config = ConfigDict(frozen=True)

    relations: tuple[Relation, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels in the order of their ids, `none` first."""
        return (NONE, *(relation.label for relation in self.relations))

    def candidates(self, object_type: str, entity_type: str) -> tuple[str, ...]:
        """The labels that this pair of types allows, then `none`. Raises SchemaError on an unknown type."""
        for name in (object_type, entity_type):
            if name not in TYPES:
                raise SchemaError(f"unknown type {name!r}; the types are {', '.join(TYPES)}")
        pair = (object_type, entity_type)
        return (*(r.label for r in self.relations if (r.object_type, r.entity_type) == pair), NONE)

    @classmethod
    def more(cls) -> Schema:
        """The 21 labels of the MORE benchmark, with the ids of its `rel2id.json`."""
        return _more()

    @classmethod
    def load(cls, path: str | Path) -> Schema:
        """Read a schema from YAML: `relations:` followed by `label: one-line meaning` entries.

        Raises SchemaError for what is not such a mapping, malformed labels, unknown types and double labels.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SchemaError(f"{path}: cannot be read ({error})") from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, source: str = "schema") -> Schema:
        """As `load`, from the YAML text itself; `source` names it in errors."""
        try:
            data = _LabelOnceLoader(text).get_single_data()
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-13-45
            raise SchemaError(f"{source}: {' '.join(str(error).split())}") from error
        entries = data.get("relations") if isinstance(data, dict) else None
        if not isinstance(entries, dict) or not entries:
            raise SchemaError(f"{source}: expected `relations:` with one `label: meaning` a line")
        return cls(relations=tuple(_relation(label, meaning, source) for label, meaning in entries.items()))


class _LabelOnceLoader(yaml.SafeLoader):
    """YAML lets a later key replace an earlier one in silence; a label written twice is an error here."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # A node tagged !!map may be none; the parent says so.
        keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"{twice!r} is there twice; keep one of them")
        return super().construct_mapping(node, deep)


def _relation(label: object, meaning: object, source: str) -> Relation:
    match = _LABEL.fullmatch(label) if isinstance(label, str) else None
    if match is None:
        hint = "`none` is part of every schema; leave it out" if label == NONE else "write /object_type/entity_type/name"
        raise SchemaError(f"{source}: malformed label {label!r}; {hint}")
    for name in match.groups()[:2]:
        if name not in TYPES:
            raise SchemaError(f"{source}: {label}: unknown type {name!r}; the types are {', '.join(TYPES)}")
    if not isinstance(meaning, str) or len(meaning.strip().splitlines()) != 1:
        raise SchemaError(f"{source}: {label}: give its meaning in one line of text")
    return Relation(label=str(label), meaning=meaning.strip())


@cache
def _more() -> Schema:
    file = resources.files("more_r1") / "assets" / "more.yaml"
    return Schema.parse(file.read_text(encoding="utf-8"), "more.yaml")
