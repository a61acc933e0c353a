"""The closed set of relations: what may hold between a seen object and a named entity.

A label is written `/OBJECT_TYPE/ENTITY_TYPE/name`; `none` is part of every schema. The order of a schema is the
order of its ids, `none` being 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

NONE = "none"
# The name, whatever the types, of the relation that says that what is seen *is* what is named.
SAME = "alternate_names"
TYPES = ("per", "org", "loc", "misc")
_LABEL = re.compile(r"/([a-z]+)/([a-z]+)/([a-z][a-z0-9_]*)")
_KEYS = ("meaning", "symmetric", "inverse", "at_most_one")


class SchemaError(ValueError):
    """A schema that cannot be used; the message names the file, the label and the mend."""


class Relation(BaseModel):
    """One label and what it means, in one line; and, for the joint reading of a document (reasoning/joint.py), its rules."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    meaning: str
    symmetric: bool = False
    """If A has it to B, B has it to A."""
    inverse: str | None = None
    """The label that B has to A where A has this one to B; never both ways at once, in contrast to `symmetric`."""
    at_most_one: bool = False
    """In one document an object has it to at most one name, and a name has it from at most one object; mentions of the same
    words are one name."""

    @property
    def object_type(self) -> str:
        return self.label.split("/")[1]

    @property
    def entity_type(self) -> str:
        return self.label.split("/")[2]

    @property
    def rules(self) -> str:
        """The rules in brackets, to follow the meaning; empty where there are none."""
        inverse = [] if self.inverse is None else [f"the inverse of {self.inverse}"]
        said = [*["holds both ways"] * self.symmetric, *inverse, *["at most one"] * self.at_most_one]
        return f" ({'; '.join(said)})" if said else ""

    @property
    def same(self) -> bool:
        """Whether it says that the object is the entity."""
        return self.label.split("/")[3] == SAME


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

    @property
    def plain(self) -> dict[str, Any]:
        """As plain data that `of` reads back."""
        fields = {r.label: r.model_dump(exclude={"label"}, exclude_defaults=True) for r in self.relations}
        return {"relations": {label: own["meaning"] if len(own) == 1 else own for label, own in fields.items()}}

    def render(self) -> str:
        """The YAML file that `load` reads back."""
        return yaml.safe_dump(self.plain, sort_keys=False, allow_unicode=True, width=10**6)

    @classmethod
    def more(cls) -> Schema:
        """The 21 labels of the MORE benchmark, with the ids of its `rel2id.json`."""
        return _more()

    @classmethod
    def load(cls, path: str | Path) -> Schema:
        """Read a schema from YAML: `relations:` followed by `label: one-line meaning` entries, or
        `label: {meaning: one-line meaning, symmetric: true, inverse: LABEL, at_most_one: true}` with the rules that hold.

        An inverse need be named on one side only. Raises SchemaError for what is not such a mapping, malformed labels, unknown
        types and keys, double labels, an inverse that is no label, and rules that contradict each other or the types.
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
        return cls.of(data, source)

    @classmethod
    def of(cls, data: Any, source: str) -> Schema:
        """As `parse`, from what the YAML text says."""
        entries = data.get("relations") if isinstance(data, dict) else None
        if not isinstance(entries, dict) or not entries:
            raise SchemaError(f"{source}: expected `relations:` with one `label: meaning` a line")
        return cls(relations=_with_inverses([_relation(label, entry, source) for label, entry in entries.items()], source))


class _LabelOnceLoader(yaml.SafeLoader):
    """YAML lets a later key replace an earlier one in silence; a label written twice is an error here.

    So is a merge: nested ones could fill the memory, and a stranger's model folder may have a schema.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("`<<` is not read here; write each label out")
        super().flatten_mapping(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # A node tagged !!map may be none; the parent says so.
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        keys = [key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"{twice!r} is there twice; keep one of them")
        return super().construct_mapping(node, deep)


def _relation(label: object, entry: object, source: str) -> Relation:
    match = _LABEL.fullmatch(label) if isinstance(label, str) else None
    if match is None:
        hint = "`none` is part of every schema; leave it out" if label == NONE else "write /object_type/entity_type/name"
        raise SchemaError(f"{source}: malformed label {label!r}; {hint}")
    for name in match.groups()[:2]:
        if name not in TYPES:
            raise SchemaError(f"{source}: {label}: unknown type {name!r}; the types are {', '.join(TYPES)}")
    fields = entry if isinstance(entry, dict) else {"meaning": entry}
    if unknown := [key for key in fields if key not in _KEYS]:
        raise SchemaError(f"{source}: {label}: unknown key {unknown[0]!r}; the keys are {', '.join(_KEYS)}")
    meaning, inverse = fields.get("meaning"), fields.get("inverse")
    if not isinstance(meaning, str) or len(meaning.strip().splitlines()) != 1:
        raise SchemaError(f"{source}: {label}: give its meaning in one line of text")
    for key in ("symmetric", "at_most_one"):
        if not isinstance(fields.get(key, False), bool):
            raise SchemaError(f"{source}: {label}: {key} is {_said(fields[key])}; give true or false")
    if inverse is not None and not isinstance(inverse, str):
        raise SchemaError(f"{source}: {label}: inverse is {_said(inverse)}; give a label of this schema")
    return Relation.model_validate({**fields, "label": label, "meaning": meaning.strip()})


def _said(value: object) -> str:
    """A plain value as it stands, any other by its kind: a few lines of YAML can nest what would fill the memory."""
    return repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _with_inverses(relations: Sequence[Relation], source: str) -> tuple[Relation, ...]:
    """The same, each inverse told to the other side, too."""
    known = {relation.label: relation for relation in relations}
    inverses: dict[str, str] = {}
    for relation in relations:
        label, inverse = relation.label, relation.inverse
        if relation.symmetric and relation.object_type != relation.entity_type:
            raise SchemaError(f"{source}: {label}: symmetric, but its two types differ; name an inverse instead")
        if inverse is None:
            continue
        if inverse not in known:
            raise SchemaError(f"{source}: {label}: the inverse {inverse!r} is no label of this schema; add it or leave it out")
        other = known[inverse]
        if inverse == label or relation.symmetric or other.symmetric:
            raise SchemaError(f"{source}: {label}: a symmetric relation is its own inverse; write `symmetric: true` alone")
        if (other.object_type, other.entity_type) != (relation.entity_type, relation.object_type):
            raise SchemaError(f"{source}: {label}: the types of its inverse {inverse} do not mirror its own; turn them round")
        for one, two in ((label, inverse), (inverse, label)):
            if inverses.setdefault(one, two) != two:
                raise SchemaError(f"{source}: {one}: both {inverses[one]} and {two} are its inverse; keep one of them")
    return tuple(relation.model_copy(update={"inverse": inverses.get(relation.label)}) for relation in relations)


@cache
def _more() -> Schema:
    file = resources.files("more_r1") / "assets" / "more.yaml"
    return Schema.parse(file.read_text(encoding="utf-8"), "more.yaml")
