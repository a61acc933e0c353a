"""All that decides what an extraction answers, as plain values: to be written down, compared, and sent to another machine."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from more_r1.extraction.archive import Worker
from more_r1.extraction.extract import extract
from more_r1.extraction.proposers import entity_proposer, object_proposer, propose, usual
from more_r1.extraction.raw import Source, open_source
from more_r1.models.classifier import load_model
from more_r1.models.engine import Model
from more_r1.models.manner import read_schema
from more_r1.schema import Schema


class Job(BaseModel):
    """What is read, by which model, with what proposed and what asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Path
    split: str | None = None
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many records."""
    model: str = "tiny"
    engine: Literal["local", "vllm"] = "local"
    """Who computes: this process by PyTorch, or vLLM, see models/vllm/engine.py."""
    relations: Schema | None = None
    """None for those that the model was trained for."""
    entities: str | None = None
    """Who proposes entities, see proposers/; None for what is usual with the model."""
    objects: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    """Keywords of `extract`."""

    def open(self) -> Source:
        """The records. Raises FormatError."""
        source = open_source(self.source, self.split)
        return source if self.limit is None else replace(source, size=min(source.size, self.limit))

    def identity(self, source: Source) -> dict[str, Any]:
        """Equal for two runs whose parts may be mixed: the job, and marks of the files that it reads."""
        folder = Path(self.model)
        files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]) if folder.is_dir() else []
        marks = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
        relations = (self.relations or read_schema(self.model)).model_dump(mode="json")
        return {**self.model_dump(mode="json"), "relations": relations, "records": source.stamp, "model files": marks}

    def load(self) -> Model:
        """What is asked. Raises ModelError and EngineError."""
        if self.engine == "local":
            return load_model(self.model)
        from more_r1.models.vllm.engine import load_vllm

        return load_vllm(self.model)

    def worker(self, model: Model) -> Worker:
        """What answers the records. Raises ProposerError."""
        entities, objects = usual(self.model)
        find = partial(
            propose,
            entities=entity_proposer(self.entities or entities, model),
            objects=object_proposer(self.objects or objects, model),
        )
        return Worker(find, partial(extract, model, schema=self.relations, **self.options))

    def start(self) -> Worker:
        """As `worker`, with the model loaded here. Raises ModelError, EngineError and ProposerError."""
        return self.worker(self.load())
