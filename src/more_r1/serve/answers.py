"""What is answered, as pydantic models: they also describe it in /openapi.json."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from more_r1.document import Document, Entity, Object, Pair
from more_r1.models.manner import SHIPPED
from more_r1.reasoning.prediction import Prediction
from more_r1.reasoning.prompt import PromptForm
from more_r1.schema import NONE, Schema
from more_r1.serve.desk import Read


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True)


class Problem(_Said):
    """What went wrong, and how to mend it."""

    error: str


class Unanswered(_Said):
    """A line of a batch that has no answer."""

    id: str | None = Field(description="That of the document, or the number of its line; null if the server stopped before it")
    error: str


class Health(_Said):
    status: str
    model: str
    waiting: int = Field(description="Documents that wait to be asked")
    room: int = Field(description="How many may")


class Tokens(_Said):
    tokens: tuple[str, ...]


class Relation(_Said):
    """A label; object and entity are its types, null for `none`, which any two may have."""

    label: str
    object: str | None
    entity: str | None
    description: str
    symmetric: bool
    inverse: str | None
    at_most_one: bool


class Proposers(_Said):
    """Who proposes, by name."""

    objects: str
    entities: str


class Relations(_Said):
    """Who is asked, and what may be answered."""

    relations: tuple[Relation, ...]
    proposers: Proposers
    model: str
    embedded: bool = Field(description="Whether the model is a shipped one, which knows the embedded world only")


class Record(_Said):
    """A document without its picture."""

    id: str
    tokens: tuple[str, ...]
    objects: tuple[Object, ...]
    entities: tuple[Entity, ...]
    pairs: tuple[Pair, ...]


class Example(Record):
    """A document with its picture as a data URI."""

    image: str


class Conclusion(_Said):
    """What the model says of one pair."""

    object: str
    entity: str
    span: tuple[int, int] = Field(description="The entity's tokens, [start, end)")
    name: str = Field(description="The entity's words")
    label: str | None = Field(description="null where it was withheld")
    abstained: bool = Field(description="Whether it was withheld, being less probable than min_confidence")
    confidence: float | None = Field(description="Probability of the label given the trace, calibrated")
    agreement: float | None = Field(description="Share of the sampled traces that end in the label; null without samples")
    answer: str | None = Field(description="The trace's own answer; joint reading may have come to another label")
    steps: tuple[str, ...] | None = Field(description="The six steps; null for a model that answers without")
    completion: str = Field(description="All that the model wrote")


class Answer(_Said):
    """A document as it was asked about, and a prediction for each of its pairs, in their order."""

    document: Record
    predictions: tuple[Conclusion, ...]


def relations(schema: Schema, objects: str, entities: str, model: str) -> Relations:
    """The schema in the order of its labels."""
    none = Relation(
        label=NONE,
        object=None,
        entity=None,
        description="none of these holds",
        symmetric=False,
        inverse=None,
        at_most_one=False,
    )
    rest = [
        Relation(
            label=each.label,
            object=each.object_type,
            entity=each.entity_type,
            description=each.meaning,
            symmetric=each.symmetric,
            inverse=each.inverse,
            at_most_one=each.at_most_one,
        )
        for each in schema.relations
    ]
    proposers = Proposers(objects=objects, entities=entities)
    return Relations(relations=(none, *rest), proposers=proposers, model=model, embedded=model in SHIPPED)


def record(document: Document) -> Record:
    """The document without its picture."""
    return Record(
        id=document.id,
        tokens=document.tokens,
        objects=document.objects,
        entities=document.entities,
        pairs=document.pairs,
    )


def answer(read: Read, schema: Schema, form: PromptForm) -> Answer:
    """What the desk found."""
    return Answer(
        document=record(read.document),
        predictions=tuple(_conclusion(prediction, schema, form) for prediction in read.predictions),
    )


def _conclusion(prediction: Prediction, schema: Schema, form: PromptForm) -> Conclusion:
    trace = prediction.trace(schema, form)
    return Conclusion(
        object=prediction.object,
        entity=prediction.entity,
        span=prediction.span,
        name=prediction.name,
        label=prediction.predicted,
        abstained=prediction.abstained,
        confidence=prediction.confidence,
        agreement=prediction.agreement,
        answer=None if trace is None else trace.answer,
        steps=None if trace is None else trace.steps or None,
        completion=prediction.completion,
    )
