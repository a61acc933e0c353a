"""MORE-R1: how what is seen relates to what is named, with the reasoning that led there.

The public verbs and nouns are imported on first use, so that `import more_r1` is quick and brings no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from more_r1.document import Box, Document, Entity, Object, Pair, Span
    from more_r1.evaluation.evaluate import evaluate
    from more_r1.extraction.extract import document_of, extract
    from more_r1.formats import load_documents
    from more_r1.models.load import load_backbone
    from more_r1.reasoning.prediction import Prediction
    from more_r1.reasoning.trace import Trace, parse_trace
    from more_r1.schema import Relation, Schema

_HOME = {
    "Box": "document",
    "Document": "document",
    "Entity": "document",
    "Object": "document",
    "Pair": "document",
    "Prediction": "reasoning.prediction",
    "Relation": "schema",
    "Schema": "schema",
    "Span": "document",
    "Trace": "reasoning.trace",
    "document_of": "extraction.extract",
    "evaluate": "evaluation.evaluate",
    "extract": "extraction.extract",
    "load_backbone": "models.load",
    "load_documents": "formats",
    "parse_trace": "reasoning.trace",
}

__all__ = [
    "Box",
    "Document",
    "Entity",
    "Object",
    "Pair",
    "Prediction",
    "Relation",
    "Schema",
    "Span",
    "Trace",
    "document_of",
    "evaluate",
    "extract",
    "load_backbone",
    "load_documents",
    "parse_trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
