"""config.json as the hub's folders of Qwen2-VL and Qwen2.5-VL have it: flat, as transformers has long ceased to write it."""

from __future__ import annotations

import json
from pathlib import Path


def flatten_config(folder: Path) -> None:
    """Put the fields of the text model at the top, under the names of those days."""
    config = json.loads((folder / "config.json").read_text())
    text, vision = config.pop("text_config"), config.pop("vision_config")
    rope = text.pop("rope_parameters")
    text |= {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}}
    del text["model_type"], text["layer_types"], vision["model_type"]
    config["torch_dtype"] = config.pop("dtype")
    (folder / "config.json").write_text(json.dumps(text | config | {"vision_config": vision}))
