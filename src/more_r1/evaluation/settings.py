"""One setting of a recipe.yaml in a run folder, which a stranger may have written."""

from __future__ import annotations

import yaml


def setting(recipe: str | None, key: str) -> str | None:
    """The value of `key` at the top of a recipe, if it is a plain one; None where there is none or the YAML is broken.

    Nothing is constructed from the YAML: nested merges could fill the memory.
    """
    if recipe is None:
        return None
    try:
        node = yaml.compose(recipe, yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return None
    if not isinstance(node, yaml.MappingNode):
        return None
    values = [value.value for name, value in node.value if name.value == key and isinstance(value, yaml.ScalarNode)]
    return values[-1] if values else None
