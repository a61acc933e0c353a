"""What an expert is asked: a pair with its gold types and label, to be reasoned out as if nobody had told them.

The text goes from what all pairs share to what is the pair's own, so that a provider that caches prompts caches most of it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from more_r1.reasoning.prompt import Part, Picture, PromptForm, build_prompt, plain
from more_r1.schema import NONE, Schema
from more_r1.training.samples import Sample

# Vision models refuse pictures smaller than one of their patches, or longer than 200 times their width.
_LEAST_SIDE = 28
_MOST_ASPECT = 200
_MOST_REASON = 300


def ask_parts(sample: Sample, schema: Schema, whole_pixels: int, crop_pixels: int, reason: str = "") -> tuple[Part, ...]:
    """The texts and pictures that an expert is shown. With a `reason`, why an earlier answer of its was rejected."""
    form = PromptForm(wording="short", whole_pixels=whole_pixels, crop_pixels=crop_pixels)
    _, document, own = build_prompt(sample.document, sample.pair, schema, form).segments
    again = (
        f"\n\nAn earlier text of yours was rejected: {_one_line(reason)}. Write a new one without this fault." if reason else ""
    )
    return (_instruction(schema), *document, *own, "\n\n" + _gold(sample) + again)


def known_types(sample: Sample) -> tuple[str | None, str | None]:
    """The gold types of object and entity: the label's, else the document's, None where nobody knows."""
    if sample.label != NONE:
        _, object_type, entity_type, _ = sample.label.split("/")
        return object_type, entity_type
    pair = sample.pair
    return sample.document.object(pair.object).type, sample.document.entity(pair.entity).type


def chat_messages(parts: Sequence[Part], detail: str | None = None) -> list[dict[str, Any]]:
    """The messages of the OpenAI protocol, pictures as data URIs. Raises DocumentError if a picture cannot be read."""
    content: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, Picture):
            image = {"url": _data_uri(part)} | ({} if detail is None else {"detail": detail})
            content.append({"type": "image_url", "image_url": image})
        else:
            content.append({"type": "text", "text": part})
    return [{"role": "user", "content": content}]


def fingerprint(body: Mapping[str, Any]) -> str:
    """The sha256 of a request's body: model, settings, texts and pictures."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def shown(messages: Sequence[Mapping[str, Any]]) -> str:
    """Messages as text to read, each picture as its kind and size."""
    texts = []
    for part in messages[0]["content"]:
        if part["type"] == "text":
            texts.append(part["text"])
        else:
            kind, _, data = part["image_url"]["url"].partition(";base64,")
            raw = base64.b64decode(data)
            with Image.open(io.BytesIO(raw)) as image:
                texts.append(f"\n[{kind.removeprefix('data:')}, {image.width} x {image.height} pixels, {len(raw):,} bytes]\n")
    return "".join(texts)


def _data_uri(picture: Picture) -> str:
    image = picture.load()
    width, height = image.size
    scale = min(1.0, math.sqrt(picture.pixels / (width * height)))
    # A sliver is stretched just enough to be let in.
    least = max(_LEAST_SIDE, math.ceil(max(width, height) * scale / _MOST_ASPECT))
    size = max(least, math.floor(width * scale)), max(least, math.floor(height * scale))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    # Colours at full resolution: a crest or a flag may be a few pixels wide.
    image.save(file, "JPEG", quality=92, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _one_line(text: str) -> str:
    text = " ".join(text.split())[:_MOST_REASON]
    return "".join(character for character in text if character.isprintable()).rstrip(".")


def _gold(sample: Sample) -> str:
    object_type, entity_type = known_types(sample)
    types = [f"the object is ({object_type})"] if object_type else []
    types += [f"the entity is ({entity_type})"] if entity_type else []
    where = f"{' and '.join(types)}, and the label is " if types else "the label is "
    return (
        f"For you alone, where the reasoning must arrive: {where}{sample.label}. Lead there by what can be seen and read, and "
        "let nothing show that you were told."
    )


def _instruction(schema: Schema) -> str:
    meanings = "\n".join(f"{relation.label}: {plain(relation.meaning)}" for relation in schema.relations)
    return (
        "You write model solutions from which a smaller model will learn to reason. The task: a picture was published with a "
        "headline; a crop of the picture shows one object; one entity of the headline is named. How does the object relate to "
        "the entity? The answer is one label.\n\n"
        "Objects and entities are of four types: per (a person), org (an organisation, also by its logo or sign), loc (a "
        "place), misc (anything else: an event, a work, an award, a party, a nationality). A label reads /object type/entity "
        f"type/relation.\n\nThe labels:\n{meanings}\n{NONE}: none of these holds\n\n"
        "Write six steps, each of one to three sentences, each adding something that the others do not say:\n"
        "Step 1: What the whole picture and the crop show, and what part the crop plays in the whole. A blurred, "
        f"unrecognisable or trivial object points to {NONE}.\n"
        f"Step 2: Whether the picture is about what the headline says, and why. If it is not, that points to {NONE}.\n"
        "Step 3: Which entity of the headline, if any, the object is or belongs to, and how that entity stands to the one "
        "asked about; this decides.\n"
        "Step 4: Of which type the object is and of which type the entity asked about, from picture and text, in this order, "
        "each type once and in brackets, as in: the object is (per), the entity is (org). An object that cannot be recognised "
        "is (misc). Write no other type in brackets here.\n"
        f"Step 5: The labels that remain: all labels of exactly these two types, written out in full, and {NONE}. Name no "
        "other label here, not even to drop it.\n"
        "Step 6: Decide among the labels that remain, and say what decides.\n\n"
        "Answer in this form and write nothing before, between or after:\n"
        "<think> Step 1: ... Step 2: ... Step 3: ... Step 4: ... Step 5: ... Step 6: ... </think><answer>LABEL</answer>\n\n"
        "At the end you are told where the reasoning must arrive. The smaller model is told nothing of it, so write as one who "
        "sees only pictures, headline and entity and finds out: never say or hint that a label, a type or an answer was given, "
        "known, expected or is to be justified, and decide nothing before step 6. Real people may be identified by what the "
        "headline says of them and by what is to be seen, such as a name, a number or a sign; nothing else is asked.\n\n"
    )
