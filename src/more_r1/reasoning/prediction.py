"""What a model answered on one pair: one line of predictions.jsonl, and all that is needed to show it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from more_r1.document import Document, Pair
from more_r1.reasoning.prompt import PromptForm
from more_r1.reasoning.trace import Trace, TraceError, parse_trace, read_answer
from more_r1.schema import Schema


class Prediction(BaseModel):
    """A pair of a document with the completion of a model and what it says.

    `predicted` is None where the completion broke the form or the label was withheld (`abstained`), `gold` where the label is
    not known; after joint reading it may be another label than the completion's answer. `confidence` is the probability of
    the label given the trace, by `scores`: the log-probability of each label of the schema, in its order, before calibration.
    `agreement` is the share of sampled traces that end in the label. These are None where they were not asked for;
    joint reading asks for scores and confidence, too. `box` is
    centre and size as fractions of the picture, `span` [start, end) in tokens. `objects` and `entities` count those of the
    document. `image` is None where the picture came as bytes.
    """

    model_config = ConfigDict(frozen=True)

    document: str
    image: str | None
    tokens: tuple[str, ...]
    object: str
    box: tuple[float, float, float, float]
    entity: str
    span: tuple[int, int]
    gold: str | None
    predicted: str | None
    hops: int | None
    objects: int
    entities: int
    completion: str
    confidence: float | None = None
    agreement: float | None = None
    abstained: bool = False
    scores: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """The entity's words."""
        return " ".join(self.tokens[self.span[0] : self.span[1]])

    def trace(self, schema: Schema, form: PromptForm) -> Trace | None:
        """The reasoning and the answer; None where the completion broke the form."""
        try:
            return parse_trace(self.completion, schema, form.reasoning)
        except TraceError:
            return None


def predicted(document: Document, pair: Pair, completion: str, schema: Schema, form: PromptForm) -> Prediction:
    """Read a completion on a pair."""
    box, entity = document.object(pair.object).box, document.entity(pair.entity)
    return Prediction(
        document=document.id,
        image=str(document.image) if isinstance(document.image, Path) else None,
        tokens=document.tokens,
        object=pair.object,
        box=(box.cx, box.cy, box.w, box.h),
        entity=pair.entity,
        span=(entity.span.start, entity.span.end),
        gold=pair.label,
        predicted=read_answer(completion, schema, form.reasoning),
        hops=pair.hops,
        objects=len(document.objects),
        entities=len(document.entities),
        completion=completion,
    )
