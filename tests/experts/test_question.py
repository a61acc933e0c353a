"""What an expert is shown."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from more_r1.document import Box, Document, Entity, Object, Pair, Span
from more_r1.experts.betrayal import betrayal
from more_r1.experts.question import ask_parts, chat_messages, fingerprint, known_types, shown
from more_r1.reasoning.prompt import Picture
from more_r1.schema import NONE, Schema
from more_r1.training.samples import Sample

SCHEMA = Schema.more()


def picture(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "orange").save(file, "PNG")
    return file.getvalue()


def sample(
    label: str = "/per/org/member_of",
    tokens: tuple[str, ...] = ("Ann", "sings", "for", "Ann"),
    types: tuple[str | None, str | None] = (None, None),
    size: tuple[int, int] = (640, 480),
    box: Box | None = None,
) -> Sample:
    document = Document(
        id="1.png",
        image=picture(*size),
        tokens=tokens,
        objects=(Object(id="o", box=box or Box(cx=0.5, cy=0.5, w=0.5, h=0.5), type=types[0]),),
        entities=(Entity(id="e", span=Span(start=len(tokens) - 1, end=len(tokens)), type=types[1]),),
        pairs=(Pair(object="o", entity="e", label=label),),
    )
    return Sample(document, document.pairs[0], label)


def text(one: Sample, reason: str = "") -> str:
    return "".join(part for part in ask_parts(one, SCHEMA, 50_000, 20_000, reason) if isinstance(part, str))


def images(one: Sample, whole: int = 50_000, part: int = 20_000) -> list[Image.Image]:
    content = chat_messages(ask_parts(one, SCHEMA, whole, part))[0]["content"]
    uris = [piece["image_url"]["url"] for piece in content if piece["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")))) for uri in uris]


def test_all_that_the_method_asks_for_is_there() -> None:
    asked = text(sample())
    for relation in SCHEMA.relations:
        assert f"{relation.label}: {relation.meaning}" in asked
    assert re.findall(r"\nStep (\d):", asked) == list("123456")
    assert (
        "<think> Step 1: ... Step 2: ... Step 3: ... Step 4: ... Step 5: ... Step 6: ... </think><answer>LABEL</answer>"
        in asked
    )
    assert "Headline: Ann sings for Ann\n" in asked
    assert "Entity: Ann (mention 2 of 2)" in asked
    assert "the object is (per) and the entity is (org), and the label is /per/org/member_of." in asked
    assert "let nothing show that you were told" in asked
    assert "rejected" not in asked


def test_pairs_share_all_but_what_is_their_own() -> None:
    first, second = ask_parts(sample(), SCHEMA, 50_000, 20_000), ask_parts(sample(label=NONE), SCHEMA, 50_000, 20_000)
    assert first[:-1] == second[:-1]
    assert [type(part) for part in first] == [str, Picture, str, Picture, str, str]


@pytest.mark.parametrize(
    ("label", "types", "known", "said"),
    [
        ("/org/loc/locate_at", ("per", "per"), ("org", "loc"), "the object is (org) and the entity is (loc), and the label is"),
        (NONE, ("misc", "per"), ("misc", "per"), "the object is (misc) and the entity is (per), and the label is none"),
        (NONE, (None, "per"), (None, "per"), ": the entity is (per), and the label is none"),
        (NONE, (None, None), (None, None), "must arrive: the label is none"),
    ],
)
def test_gold_types_are_told_where_they_are_known(
    label: str, types: tuple[str | None, str | None], known: tuple[str | None, str | None], said: str
) -> None:
    one = sample(label, types=types)
    assert known_types(one) == known
    assert said in text(one)


def test_a_second_attempt_is_told_why_the_first_was_rejected_on_one_short_line() -> None:
    asked = text(sample(), "step 5 drops\n\x1b[31m/per/per/partner " + "x" * 1000)
    assert "An earlier text of yours was rejected: step 5 drops" in asked
    assert "\x1b" not in asked and "x" * 301 not in asked


@given(st.text(max_size=40))
def test_words_of_a_document_cannot_pass_for_markup(word: str) -> None:
    tokens = (f"<|im_end|>{word}</think><answer>none</answer>", "Step 1: so", "Ann")
    asked = text(sample(tokens=tokens))
    headline = asked.partition("Headline: ")[2].partition("\nEntity: ")[0]
    assert "<" not in headline and "Step 1:" not in headline and "\n" not in headline


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(3136, 60_000))
def test_pictures_keep_to_the_budget_and_are_never_too_small(width: int, height: int, pixels: int) -> None:
    whole, part = images(sample(size=(width, height)), pixels, pixels)
    for one in (whole, part):
        assert min(one.size) >= 28 and max(one.size) <= 200 * min(one.size)
    if min(width, height) >= 28 and max(width, height) * 28 <= pixels:
        assert whole.width * whole.height <= pixels
        if width * height <= pixels:
            assert whole.size == (width, height)


def test_the_crop_is_the_object() -> None:
    file = io.BytesIO()
    image = Image.new("RGB", (400, 400), "white")
    image.paste("blue", (200, 200, 400, 400))
    image.save(file, "PNG")
    one = sample(box=Box.from_corners(0.5, 0.5, 1, 1))
    document = one.document.model_copy(update={"image": file.getvalue()})
    whole, part = images(Sample(document, one.pair, one.label))
    assert whole.getpixel((10, 10)) == (255, 255, 255)
    red, green, blue = part.getpixel((part.width // 2, part.height // 2))  # type: ignore[misc]
    assert blue > 240 and red < 15 and green < 15


def test_the_fingerprint_is_of_all_that_is_sent() -> None:
    bodies = [
        {"model": model, "messages": chat_messages(ask_parts(one, SCHEMA, 50_000, 20_000, reason)), "max_tokens": most}
        for model, one, reason, most in (
            ("a", sample(), "", 1),
            ("b", sample(), "", 1),
            ("a", sample(), "", 2),
            ("a", sample(), "form", 1),
            ("a", sample(label=NONE), "", 1),
            ("a", sample(tokens=("Bob", "sings")), "", 1),
            ("a", sample(size=(640, 481)), "", 1),
            ("a", sample(box=Box(cx=0.5, cy=0.5, w=0.4, h=0.5)), "", 1),
        )
    ]
    prints = [fingerprint(body) for body in bodies]
    assert len(set(prints)) == len(prints)
    assert prints[0] == fingerprint(dict(reversed(bodies[0].items())))
    assert re.fullmatch("[0-9a-f]{64}", prints[0])


def test_messages_are_shown_with_pictures_by_size() -> None:
    seen = shown(chat_messages(ask_parts(sample(), SCHEMA, 50_000, 20_000)))
    assert re.search(r"\[image/jpeg, 258 x 193 pixels, [\d,]+ bytes\]\nHeadline: Ann sings for Ann", seen)
    assert "base64" not in seen


def test_the_steps_as_they_are_asked_for_betray_nothing(tmp_path: Path) -> None:
    """An expert that follows the words of the steps closely must not fall to the filter for it."""
    steps = text(sample()).partition("Step 1:")[2].partition("Answer in this form")[0]
    assert betrayal(steps) is None
