"""Settings of a recipe.yaml in a run folder, which a stranger may have written."""

from __future__ import annotations

import yaml

from more_r1.schema import Schema, SchemaError


def setting(recipe: str | None, key: str) -> str | None:
    """The value of `key` at the top of a recipe, if it is a plain one; None where there is none or the YAML is broken."""
    node = _node(recipe, key)
    return node.value if isinstance(node, yaml.ScalarNode) else None


def relations(recipe: str | None) -> Schema:
    """The schema that a run's recipe holds; MORE's where it holds none that can be used."""
    node = _node(recipe, "schema")
    if not isinstance(node, yaml.MappingNode):
        return Schema.more()
    try:
        return Schema.parse(yaml.serialize(node, Dumper=yaml.SafeDumper), "recipe.yaml")
    except (SchemaError, yaml.YAMLError, RecursionError):
        return Schema.more()


def _node(recipe: str | None, key: str) -> yaml.Node | None:
    """What stands under `key` at the top. Nothing is constructed from the YAML: nested merges could fill the memory."""
    if recipe is None:
        return None
    try:
        node = yaml.compose(recipe, yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return None
    if not isinstance(node, yaml.MappingNode):
        return None
    values = [value for name, value in node.value if name.value == key]
    return values[-1] if values else None
