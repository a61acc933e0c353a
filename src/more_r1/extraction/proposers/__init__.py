"""Who proposes entities and objects of a raw picture and text: small functions of a document, chosen by name.

A choice is written NAME or NAME:ARGUMENT, as in `gazetteer:names.tsv`. A maker gets the argument ("" for none) and the model
that is to be asked, and returns the proposer; what it needs is loaded once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TypeVar

from more_r1.document import Document, Entity, Object
from more_r1.extraction.proposers import detector, embedded, faces, gazetteer, lvlm, spacy
from more_r1.extraction.proposers.errors import ProposerError
from more_r1.models.engine import Model
from more_r1.models.manner import SHIPPED

EntityProposer = Callable[[Document], Sequence[Entity]]
ObjectProposer = Callable[[Document], Sequence[Object]]
Proposer = TypeVar("Proposer")

ENTITIES: Mapping[str, Callable[[str, Model], EntityProposer]] = {
    "gazetteer": gazetteer.entities,
    "lvlm": lvlm.entities,
    "spacy": spacy.entities,
}
OBJECTS: Mapping[str, Callable[[str, Model], ObjectProposer]] = {
    "detector": detector.objects,
    "embedded": embedded.objects,
    "faces": faces.objects,
    "lvlm": lvlm.objects,
}


def usual(model: str) -> tuple[str, str]:
    """Who proposes entities and objects for a model unless the user says so: the embedded world's own for the shipped
    models, for others the model itself."""
    return ("gazetteer", "embedded") if model in SHIPPED else ("lvlm", "lvlm")


def entity_proposer(choice: str, model: Model) -> EntityProposer:
    """The proposer of that name. Raises ProposerError for an unknown one, and for what it needs and does not find."""
    return _made(choice, ENTITIES, model, "entities")


def object_proposer(choice: str, model: Model) -> ObjectProposer:
    """As `entity_proposer`, for objects."""
    return _made(choice, OBJECTS, model, "objects")


def propose(document: Document, *, entities: EntityProposer, objects: ObjectProposer) -> Document:
    """The document with objects and entities; what it has already stays.

    Raises DocumentError if the picture cannot be read, even if nothing is to be proposed.
    """
    document.open_image()
    update: dict[str, object] = {}
    if not document.entities:
        update["entities"] = tuple(entities(document))
    if not document.objects:
        update["objects"] = tuple(objects(document))
    return document.model_copy(update=update)


def _made(choice: str, makers: Mapping[str, Callable[[str, Model], Proposer]], model: Model, of: str) -> Proposer:
    name, _, argument = choice.partition(":")
    if name not in makers:
        near = get_close_matches(name, makers, 1)
        mend = f"did you mean {near[0]}?" if near else f"there are {', '.join(makers)}"
        raise ProposerError(f"no proposer {name!r} of {of}; {mend}")
    return makers[name](argument, model)


__all__ = [
    "ENTITIES",
    "OBJECTS",
    "EntityProposer",
    "ObjectProposer",
    "ProposerError",
    "entity_proposer",
    "object_proposer",
    "propose",
    "usual",
]
