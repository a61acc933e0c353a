"""Document and pair -> prompt: three segments, ordered from what is shared to what is the pair's own.

The root (instruction and labels) is the same everywhere, the document's segment (whole picture and headline) is the same
for all its pairs, the pair's segment (crop and marked entity) is its own. Whoever runs the model may compute each segment
once; see models/forest.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from more_r1.document import Box, Document, Pair, crop, open_image
from more_r1.schema import NONE, Schema

# Where one segment ends and the next begins, in the rendered chat template. A private-use character: data cannot hold it.
CUT = "\ue000"


class PromptForm(BaseModel):
    """How a model is asked. Saved beside its weights, so that it is always asked as it was trained.

    The paper leaves the order of the parts, the resolution and the use of box coordinates open; the defaults are ours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: Literal["shared", "paper"] = "shared"
    """`shared`: from shared to own, see above. `paper`: both pictures first, then all of the text."""
    wording: Literal["full", "short"] = "full"
    """`full`: the steps explained and every label with its meaning. `short`: one sentence and the labels."""
    reasoning: Literal["steps", "none"] = "steps"
    """`steps`: six steps, then the answer. `none`: the answer alone, the paper's baseline."""
    coordinates: bool = False
    """Whether the box is also given in words, as thousandths of width and height."""
    whole_pixels: int = Field(default=1024 * 28 * 28, ge=56 * 56)
    """Most pixels of the whole picture; Qwen2.5-VL makes one token of 28 x 28 of them."""
    crop_pixels: int = Field(default=256 * 28 * 28, ge=56 * 56)
    """Most pixels of the object's crop."""

    def over(self, other: PromptForm) -> PromptForm:
        """This form in the fields that were given, `other` in the rest."""
        return other.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})


@dataclass(frozen=True)
class Picture:
    """A picture to be shown: the whole of `source`, or the part under `box`, with at most `pixels` pixels."""

    source: Path | bytes
    box: Box | None
    pixels: int

    def load(self) -> Image.Image:
        """The picture at its own resolution, RGB; DocumentError if it cannot be read."""
        image = _decoded(self.source)
        return image if self.box is None else crop(image, self.box)


Part = str | Picture


@dataclass(frozen=True)
class Prompt:
    """What a model is shown, as segments from shared to own; each is a run of texts and pictures."""

    segments: tuple[tuple[Part, ...], ...]

    @property
    def pictures(self) -> list[Picture]:
        """All pictures in the order in which they are shown."""
        return [part for segment in self.segments for part in segment if isinstance(part, Picture)]

    def messages(self, cut: str = "") -> list[dict[str, Any]]:
        """The chat messages that transformers, TRL and vLLM take; `cut` is put between the segments."""
        content: list[dict[str, Any]] = []
        for index, segment in enumerate(self.segments):
            if index and cut:
                content.append({"type": "text", "text": cut})
            for part in segment:
                if isinstance(part, Picture):
                    content.append({"type": "image", "image": part.load()})
                else:
                    content.append({"type": "text", "text": part})
        return [{"role": "user", "content": content}]


def build_prompt(document: Document, pair: Pair, schema: Schema, form: PromptForm) -> Prompt:
    """Ask for the relation of one pair. Words of document and schema cannot pass for tags or special tokens."""
    entity = document.entity(pair.entity)
    box = document.object(pair.object).box
    whole = Picture(document.image, None, form.whole_pixels)
    part = Picture(document.image, box, form.crop_pixels)
    headline = f"Headline: {plain(document.text)}\n"
    question = f"Entity: {plain(document.name(entity))}{_which(document, pair)}"
    if form.coordinates:
        question = "Box: {}, {}, {}, {}\n".format(*box.thousandths) + question
    task = _instruction(schema, form)
    if form.order == "shared":
        return Prompt(((task,), (whole, headline), (part, question)))
    return Prompt(((), (whole,), (part, task + headline + question)))


def plain(text: str) -> str:
    """Text of a stranger with all that could act as markup made harmless: our tags, special tokens, cuts, control codes.

    No `<` is left: our tags and the special tokens of every tokenizer of Qwen's kind begin with it. Lone surrogates, which
    JSON can hold and no tokenizer takes, go too.
    """
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ue000\ud800-\udfff]+", " ", text).replace("<", "‹")
    return re.sub(r"\bStep(\s+\d+\s*):", r"Step\1 -", text)


def _which(document: Document, pair: Pair) -> str:
    """Which mention is meant, where the headline has the entity's words more than once."""
    entity = document.entity(pair.entity)
    words = document.tokens[entity.span.start : entity.span.end]
    size = len(words)
    starts = [i for i in range(len(document.tokens) - size + 1) if document.tokens[i : i + size] == words]
    if len(starts) < 2:
        return ""
    return f" (mention {starts.index(entity.span.start) + 1} of {len(starts)})"


def _instruction(schema: Schema, form: PromptForm) -> str:
    labels = " ".join(schema.labels)
    if form.wording == "short":
        what = "Reason in six steps, then answer" if form.reasoning == "steps" else "Answer"
        return f"How does the object in the crop relate to the entity? {what} with one label: {labels}\n"
    meanings = "\n".join(f"{relation.label}: {plain(relation.meaning)}{relation.rules}" for relation in schema.relations)
    task = (
        "You see a picture that was published with a headline, and a crop of it that shows one object. One entity of the "
        "headline is named. Decide how the object relates to the entity.\n\n"
        "Objects and entities are of four types: per (a person), org (an organisation, also by its logo or sign), loc (a "
        "place), misc (anything else: an event, a work, an award, a party, a nationality). A label reads "
        "/object type/entity type/relation.\n\nThe labels:\n"
        f"{meanings}\n{NONE}: none of these holds\n\n"
    )
    if form.reasoning == "none":
        return task + "Answer in this form and write nothing else: <answer>LABEL</answer>\n\n"
    return task + (
        "Think in six steps:\n"
        "Step 1: Say what the picture and the crop show, and what part the crop plays in the whole. A blurred, unrecognisable "
        f"or trivial object points to {NONE}.\n"
        f"Step 2: Say whether the picture is about what the headline says, and why. If it is not, the answer is {NONE}.\n"
        "Step 3: Say which entity of the headline the object is or belongs to, if any, and how that entity stands to the one "
        "asked about.\n"
        "Step 4: Say of which type the object and the entity are, each type in brackets, as in (per) and (org); an object that "
        "cannot be recognised is (misc).\n"
        f"Step 5: List the labels that these two types allow, and {NONE}.\n"
        "Step 6: Decide among them.\n\n"
        "Answer in this form and write nothing else: <think> Step 1: ... Step 6: ... </think><answer>LABEL</answer>\n\n"
    )


@lru_cache(maxsize=2)  # one may take 600 MB
def _decoded(source: Path | bytes) -> Image.Image:
    """The pairs of a document come one after another: its picture is decoded once."""
    return open_image(source)
