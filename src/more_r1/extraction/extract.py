"""Pictures with text, objects and entities in; relations with their reasoning out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from more_r1.document import Box, Document, DocumentError, Entity, Object, Pair, Span
from more_r1.extraction.words import tokenise
from more_r1.models.engine import Model
from more_r1.models.predict import MAX_NEW_TOKENS, Reading, predict
from more_r1.reasoning.prediction import Prediction
from more_r1.schema import Schema


def document_of(
    image: str | Path | bytes, text: str, objects: Iterable[str], entities: Iterable[str], id: str = ""
) -> Document:
    """A document from what a person writes: boxes as `cx,cy,w,h` in fractions, entities as they stand in the text.

    Every object is paired with every entity. Raises DocumentError, naming the mend, for a box that is none or outside the
    picture, an entity that the text does not have, and an image that cannot be read.
    """
    document = described(image, text, objects, entities)
    if not document.objects or not document.entities:
        raise DocumentError(f"{document.id}: give at least one object (cx,cy,w,h) and one entity")
    document.open_image()
    return document


def described(image: str | Path | bytes, text: str, objects: Iterable[str], entities: Iterable[str]) -> Document:
    """As `document_of`, for what may lack objects or entities (proposers/ find them); the picture is not opened."""
    tokens = tokenise(text)
    if isinstance(image, str):
        image = Path(image)
    name = image.name if isinstance(image, Path) else "document"
    boxes = tuple(Object(id=f"object_{number}", box=_box(given)) for number, given in enumerate(objects, 1))
    spans = tuple(_entity(given, tokens) for given in entities)
    if len({e.id for e in spans}) < len(spans):
        raise DocumentError(f"{name}: an entity is given twice")
    return all_pairs(Document(id=name, image=image, tokens=tokens, objects=boxes, entities=spans))


def extract(
    model: Model,
    documents: Iterable[Document],
    schema: Schema | None = None,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: Callable[[int], None] | None = None,
    types: bool = False,
    joint: bool = False,
    confidence: bool = False,
    samples: int = 0,
    min_confidence: float = 0.0,
) -> Iterator[Prediction]:
    """The relation of every pair, document by document; a document that names no pairs is asked for all of its objects and
    entities. The labels are those of `schema`, by default those that the model was trained for. Decoding keeps the form by
    force (models/form.py), so that every answer is a label; with `types` it is one that the types of step 4 allow. `progress`
    is told how many pairs are done.

    With `joint` the pairs of a document are read together under the schema's rules (reasoning/joint.py). With `confidence`
    predictions say how probable their label is given the trace, at the temperature of the model's calibration; below
    `min_confidence` the label is withheld: `predicted` is None and `abstained` true. With `samples` so many traces more are
    drawn of each pair, and `agreement` is the share of them that ends in the label.
    """
    reading = Reading(types, confidence, samples, joint, min_confidence)
    asked = [document if document.pairs else all_pairs(document) for document in documents]
    done = 0

    def tell(n: int) -> None:
        if progress is not None:
            progress(done + n)

    for chunk in predict(model, asked, schema or model.schema, max_new_tokens, tell, keep_form=True, reading=reading):
        done += len(chunk)
        yield from chunk


def all_pairs(document: Document) -> Document:
    """The document with every object paired with every entity."""
    pairs = tuple(Pair(object=o.id, entity=e.id) for e in document.entities for o in document.objects)
    return document.model_copy(update={"pairs": pairs})


def _box(given: str) -> Box:
    try:
        cx, cy, w, h = (float(value) for value in given.split(","))
        box = Box(cx=cx, cy=cy, w=w, h=h)
    except ValueError as error:
        raise DocumentError(f"object {given!r}: write cx,cy,w,h as fractions of the picture, as in 0.5,0.5,0.2,0.4") from error
    if (fault := box.fault()) is not None:
        raise DocumentError(f"object {given!r}: {fault}; write cx,cy,w,h as fractions of the picture")
    return box


def _entity(given: str, tokens: tuple[str, ...]) -> Entity:
    words = tokenise(given)
    starts = [i for i in range(len(tokens) - len(words) + 1) if words and tokens[i : i + len(words)] == words]
    if not starts:
        raise DocumentError(f"entity {given!r} is not in the text {' '.join(tokens)!r}; write it as it stands there")
    return Entity(id=f"{starts[0]}-{starts[0] + len(words)}", span=Span(start=starts[0], end=starts[0] + len(words)))
