"""What may be asked, as pydantic models: they check a request's body and describe it in /openapi.json."""

from __future__ import annotations

from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from more_r1.document import Document, Entity, Object, Pair
from more_r1.extraction.captions import MAX_TEXT, raw_document
from more_r1.formats.fault import FormatError, Place
from more_r1.formats.record import from_record
from more_r1.models.predict import Reading
from more_r1.serve.errors import RequestError

MAX_NAME = 200
"""Characters of an id, a type or a label; each comes back with every pair."""
MAX_THINGS = 64
MAX_PAIRS = MAX_THINGS * MAX_THINGS
MAX_SAMPLES = 16
MAX_DOCUMENTS = 1000
DEFAULT_ID = "document"
_TEXT = "Soccer star Ada Lopez joins Vale Rovers"
_URI = "data:image/png;base64,iVBORw0KGgo..."

Given = TypeVar("Given", bound="Checked")


class Checked(BaseModel):
    """Fields that are not known are an error, so that a slip of the pen is not passed over."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Words(Checked):
    """A text that is to be cut into tokens."""

    text: str = Field(max_length=MAX_TEXT, examples=[_TEXT])


class Described(Checked):
    """A document without its picture: `text` or `tokens`, and what is known of objects, entities and pairs."""

    id: str = Field(default=DEFAULT_ID, max_length=MAX_NAME, description="Comes back in the answer")
    text: str | None = Field(default=None, max_length=MAX_TEXT, description="Cut into tokens here", examples=[_TEXT])
    tokens: tuple[str, ...] | None = Field(
        default=None, max_length=MAX_TEXT, description="In place of `text`: as they are to be"
    )
    objects: tuple[Object, ...] | None = Field(
        default=None, max_length=MAX_THINGS, description="Boxes in fractions of the picture; proposed where there are none"
    )
    entities: tuple[Entity, ...] | None = Field(
        default=None, max_length=MAX_THINGS, description="Spans [start, end) of tokens; proposed where there are none"
    )
    pairs: tuple[Pair, ...] | None = Field(
        default=None,
        max_length=MAX_PAIRS,
        description="What is asked, by ids; all objects with all entities where there are none",
    )

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        names = [name for object in self.objects or () for name in (object.id, object.type)]
        names += [name for entity in self.entities or () for name in (entity.id, entity.type)]
        names += [name for pair in self.pairs or () for name in (pair.object, pair.entity, pair.label)]
        if any(len(name) > MAX_NAME for name in names if name is not None):
            raise ValueError(f"ids, types and labels have at most {MAX_NAME} characters")
        if (self.text is None) == (self.tokens is None):
            raise ValueError("give either text or tokens")
        if self.tokens is not None and len(" ".join(self.tokens)) > MAX_TEXT:
            raise ValueError(f"the tokens have more than {MAX_TEXT} characters; shorten them")
        return self

    def document(self, image: bytes) -> Document:
        """As a document with that picture, which is not opened. Raises RequestError."""
        place = Place("")
        try:
            tokens = self.tokens if self.text is None else raw_document(self.id, image, self.text, place).tokens
            if not tokens:
                place.refuse("no text", "give the picture its caption")
            given = {"objects": self.objects, "entities": self.entities, "pairs": self.pairs}
            known = {name: value for name, value in given.items() if value}
            return from_record({"id": self.id, "tokens": tokens, **known}, image, place)
        except FormatError as error:
            raise RequestError(422, str(error)) from error


class Pictured(Described):
    """A document with its picture."""

    image: str = Field(description="The picture as a data URI: PNG, JPEG, WebP, GIF, BMP or TIFF", examples=[_URI])


class Question(Described):
    """What is to be asked about a picture that comes as a file: the field `document` of a form."""

    joint: bool = Field(default=False, description="Read the pairs together, under the rules of the schema")
    types: bool = Field(default=False, description="Answer only what the types of step 4 allow")
    samples: int = Field(default=0, ge=0, le=MAX_SAMPLES, description="Draw so many traces more of each pair: `agreement`")
    min_confidence: float = Field(default=0.0, ge=0, le=1, description="Withhold labels that are less probable")

    @property
    def reading(self) -> Reading:
        """How it is to be read; confidence is always said."""
        return Reading(self.types, True, self.samples, self.joint, self.min_confidence)


class Asked(Question, Pictured):
    """A document with its picture, and how it is to be read."""


class Concluded(Checked):
    """One prediction of an answer of /extract, maybe corrected. What is not listed here is found in the document."""

    model_config = ConfigDict(extra="ignore")

    object: str
    entity: str
    label: str | None
    abstained: bool = False
    confidence: float | None = Field(default=None, ge=0, le=1)
    agreement: float | None = Field(default=None, ge=0, le=1)
    completion: str = ""


class Answered(Checked):
    """An answer of /extract as it came, or with labels corrected."""

    document: Described
    predictions: tuple[Concluded, ...] = Field(max_length=MAX_PAIRS)


class Graphed(Checked):
    """Answers of which a graph is to be made."""

    documents: tuple[Answered, ...] = Field(min_length=1, max_length=MAX_DOCUMENTS)


class Exported(Checked):
    """Documents that are to be written as files; the labels of their pairs are gold."""

    documents: tuple[Pictured, ...] = Field(min_length=1, max_length=MAX_DOCUMENTS)


MODELS: tuple[type[Checked], ...] = (Words, Pictured, Question, Asked, Graphed, Exported)
"""Those that a whole body is one of."""


def parsed(raw: bytes) -> dict[str, Any]:
    """The JSON object. Raises RequestError, with 400."""
    try:
        given = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise RequestError(400, f"not JSON ({error}); send one JSON object in UTF-8") from error
    if not isinstance(given, dict):
        raise RequestError(400, "JSON, but no object; send one JSON object")
    return given


def checked(given: dict[str, Any], model: type[Given]) -> Given:
    """As that model. Raises RequestError, with 422, naming the first field that is wrong."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part)[:60] for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise RequestError(422, f"{field}: {what}; see /openapi.json" if field else what) from error
