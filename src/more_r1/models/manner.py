"""All of a model folder but its weights: how a model is asked, what it was trained for, how its confidence is read."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Self

from huggingface_hub.errors import LocalEntryNotFoundError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import AutoConfig
from transformers.utils import cached_file

from more_r1.formats.paths import replacing
from more_r1.models.families import family_of
from more_r1.models.processor import Encoder
from more_r1.models.template import try_template
from more_r1.reasoning.prompt import PromptForm
from more_r1.schema import Schema, SchemaError

FORM_FILE = "more_r1.json"
CALIBRATION_FILE = "calibration.json"
HEAD_FILE = "head.safetensors"
# The relations that the model was trained for, where they are not MORE's.
SCHEMA_FILE = "more_r1_schema.yaml"
_MAX_SCHEMA = 100_000
# The models that come with the package: after both stages, and the base that it began from.
SHIPPED = ("tiny", "tiny-base")


class ModelError(ValueError):
    """A model that cannot be used; the message names the folder and the mend."""


class Calibration(BaseModel):
    """What `more-r1 calibrate` writes beside the weights: what the log-probabilities of labels are to be divided by, so that
    confidence is what it says, and on how many pairs of which data that was fitted. It holds for those weights alone."""

    model_config = ConfigDict(frozen=True)

    temperature: float = Field(gt=0, le=1000)
    pairs: int = Field(ge=1)
    data: str
    nll_before: float
    """Mean negative log-probability of the gold label in nats, at temperature 1."""
    nll_after: float


@dataclass(frozen=True)
class Manner:
    """All of a model but its weights: how it is asked, and how its confidence is read."""

    name: str
    """Its folder, or its name on the hub."""
    config: Any
    encoder: Encoder
    form: PromptForm
    temperature: float
    head: str | None
    """The file of its classification head, which answers in place of words; see models/classifier.py."""
    schema: Schema
    """The relations that it was trained for; MORE's where its folder names no others."""

    def worded(self) -> Self:
        """The same. Raises ModelError for a model with a head."""
        if self.head is not None:
            raise ModelError(
                f"{self.name}: has a classification head and writes no words; it can be asked by the local engine, but not be "
                "trained or drawn from: give the model that it was trained from"
            )
        return self


def load_manner(name_or_dir: str | Path) -> Manner:
    """As `load_backbone`, without the weights. Raises ModelError."""
    name = _located(name_or_dir)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        try:
            family = family_of(config)
        except ValueError as error:
            raise ModelError(f"{name}: {error}") from error
        encoder = Encoder(family.load(name), family)
        try:
            try_template(encoder)
        except Exception as error:
            raise ModelError(f"{name}: its chat template cannot be used ({' '.join(str(error).split())[:300]})") from error
        form, calibration, head, schema = (
            _beside(name, file) for file in (FORM_FILE, CALIBRATION_FILE, HEAD_FILE, SCHEMA_FILE)
        )
    except ModelError:
        raise
    except Exception as error:
        raise unusable(name, error) from error
    return Manner(name, config, encoder, _read_form(form), _read_temperature(calibration), head, _read_schema(schema))


def read_form(name_or_dir: str | Path) -> PromptForm:
    """How a model folder, or a shipped model, is asked, without reading its weights. Raises ModelError."""
    folder = Path(folder_of(name_or_dir))
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no model folder (it has no config.json)")
    file = folder / FORM_FILE
    return _read_form(str(file) if file.is_file() else None)


def read_schema(name_or_dir: str | Path) -> Schema:
    """The relations that a model was trained for, without reading its weights. Raises ModelError."""
    name = _located(name_or_dir)
    try:
        file = _beside(name, SCHEMA_FILE)
    except Exception as error:
        raise unusable(name, error) from error
    return _read_schema(file)


def write_schema(schema: Schema, folder: Path) -> None:
    """Write it beside the weights, where it is not MORE's."""
    if schema != Schema.more():
        (folder / SCHEMA_FILE).write_text(schema.render(), encoding="utf-8")


def save_calibration(calibration: Calibration, name_or_dir: str | Path) -> Path:
    """Write it into a model's folder, whole or not at all. Raises ModelError for a model that is no folder here."""
    folder = Path(folder_of(name_or_dir))
    if not (folder / "config.json").is_file():
        raise ModelError(f"{name_or_dir}: no model folder; a calibration is kept beside the weights, so give a local copy")
    with replacing(folder / CALIBRATION_FILE) as fresh:
        fresh.write_text(calibration.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return folder / CALIBRATION_FILE


def unusable(name: str, error: Exception) -> ModelError:
    """A stranger's folder fails in many ways, each must cost one clear line."""
    if isinstance(error.__cause__, LocalEntryNotFoundError):
        return ModelError(f"{name}: the hub cannot be reached, and the model is not kept here; give a folder")
    return ModelError(f"{name}: cannot be loaded ({' '.join(str(error).split())[:300]})")


def folder_of(name_or_dir: str | Path) -> str:
    """The folder of a shipped model; any other name as it is."""
    name = str(name_or_dir)
    if name in SHIPPED and not Path(name).exists():
        return str(resources.files("more_r1") / "assets" / name)
    return name


def _located(name_or_dir: str | Path) -> str:
    """A model's folder, or its name on the hub. Raises ModelError for a folder that is no model's."""
    name = folder_of(name_or_dir)
    local = Path(name).exists() or Path(name).is_absolute() or name.count("/") > 1  # a hub name is OWNER/NAME
    if local and not (Path(name) / "config.json").is_file():
        raise ModelError(f"{name}: no model folder (it has no config.json)")
    return name


def _beside(name: str, file: str) -> str | None:
    """A file beside the weights, from the hub, too; None where there is none."""
    found: str | None = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
    return found


def _read_temperature(file: str | None) -> float:
    if file is None:
        return 1.0
    try:
        return Calibration.model_validate_json(Path(file).read_bytes()).temperature
    except ValidationError as error:
        fault = " ".join(str(error).split())[:300]
        raise ModelError(f"{file}: not a calibration ({fault}); write it anew with `more-r1 calibrate`") from error


def _read_form(file: str | None) -> PromptForm:
    if file is None:
        return PromptForm()
    try:
        return PromptForm.model_validate_json(Path(file).read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise ModelError(f"{file}: not a prompt form ({' '.join(str(error).split())[:300]})") from error


def _read_schema(file: str | None) -> Schema:
    if file is None:
        return Schema.more()
    try:
        if Path(file).stat().st_size > _MAX_SCHEMA:
            raise SchemaError(f"{file}: larger than any schema; put the right one there")
        return Schema.load(file)
    except (SchemaError, OSError) as error:
        raise ModelError(" ".join(str(error).split())[:300]) from error
