"""Model folders: read those of any family, write folders that stock transformers reads, complete or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText
from transformers.utils import logging as transformers_logging

from more_r1.models.attention import ATTENTION
from more_r1.models.lora import merged
from more_r1.models.manner import FORM_FILE, Manner, ModelError, load_manner, unusable, write_schema
from more_r1.models.processor import Encoder
from more_r1.reasoning.prompt import PromptForm
from more_r1.schema import Schema

# Only the text model attends along a forest; the vision tower stays as it is.
ATTENTIONS = {"": "sdpa", "text_config": ATTENTION, "vision_config": "sdpa"}


@dataclass
class Backbone:
    """A model, what turns prompts into its inputs, the form in which it is to be asked, the temperature of its confidence
    (1 where it was not calibrated), and the relations that it was trained for."""

    model: Any
    encoder: Encoder
    form: PromptForm
    temperature: float = 1.0
    schema: Schema = field(default_factory=Schema.more)


def load_backbone(
    name_or_dir: str | Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> Backbone:
    """A model of one of the families (models/families) from a local folder, the model hub or, by one of the names in SHIPPED,
    the package; in evaluation mode.

    `device` defaults to the GPU if there is one; `dtype` to float32 on the CPU and to what is stored elsewhere. Weights are
    read from safetensors only, for other formats can run code, and code that a folder brings is never run. Raises ModelError
    for what is missing, broken or another model, a classification head among it.
    """
    return with_weights(load_manner(name_or_dir).worded(), device, dtype)


def with_weights(manner: Manner, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Backbone:
    """The model of this manner, whose head, if it has one, is not looked at; as `load_backbone`."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if dtype is None and device.type == "cpu":
        dtype = torch.float32
    try:
        with _unreported():
            model, read = AutoModelForImageTextToText.from_pretrained(
                manner.name,
                dtype=dtype or "auto",
                attn_implementation=ATTENTIONS,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:
        raise unusable(manner.name, error) from error
    # transformers fills them with random numbers. It has left out what it ties, and buffers that are never stored.
    lacking = sorted(read["missing_keys"] | {name for name, *_ in read["mismatched_keys"]})
    if lacking:
        raise ModelError(
            f"{manner.name}: {len(lacking)} of its tensors are missing or of another size than its config.json says "
            f"({lacking[0]}); copy or download the folder anew"
        )
    if foreign := sorted(read["unexpected_keys"]):
        # Folders of the hub may hold what no part of the model asks for.
        told = f"{manner.name}: {len(foreign)} tensors are left out, which its config.json has no place for ({foreign[0]})"
        logging.getLogger(__name__).warning(told)
    return Backbone(model.to(device).eval(), manner.encoder, manner.form, manner.temperature, manner.schema)


def save_backbone(
    backbone: Backbone,
    folder: str | Path,
    dtype: torch.dtype | None = None,
    also: Callable[[Path], None] | None = None,
) -> None:
    """Write weights (safetensors, in `dtype` if given), processor, prompt form and schema; the folder is complete or absent.

    Adapters are merged into the weights. `also` writes what else belongs into the folder. An older one of that name is
    replaced, its calibration with it.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model = backbone.model
        weights = merged(model, dtype)
        stored = model.config.dtype
        model.config.dtype = dtype or stored
        try:
            model.save_pretrained(partial, state_dict=weights)
        finally:
            model.config.dtype = stored
        backbone.encoder.processor.save_pretrained(partial)
        (partial / FORM_FILE).write_text(json.dumps(backbone.form.model_dump(), indent=2) + "\n", encoding="utf-8")
        write_schema(backbone.schema, partial)
        if also is not None:
            also(partial)
        # mkdtemp and safetensors make private what others may read.
        partial.chmod(0o755)
        for file in partial.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)
        if folder.exists():
            shutil.rmtree(folder)
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def fingerprint(backbone: Backbone) -> str:
    """A hash of weights and form: what a model's answers depend on, wherever it comes from."""
    digest = hashlib.sha256(backbone.form.model_dump_json().encode())
    for name, weights in sorted(backbone.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weights.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _unreported() -> Iterator[None]:
    """Without what transformers prints of the tensors that it finds and misses."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
