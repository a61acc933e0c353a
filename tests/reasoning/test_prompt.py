"""What a model is shown: the order of the parts, and that no text of a document acts as markup."""

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from more_r1.document import Box, Document, DocumentError, Entity, Object, Pair, Span
from more_r1.reasoning.prompt import CUT, Picture, Prompt, PromptForm, build_prompt, plain
from more_r1.schema import Relation, Schema

SCHEMA = Schema.more()
TAGS = ["<think>", "</think>", "<answer>", "</answer>", "<ANSWER>", "<image>", "<tool_call>", "</tool_call>", "<start_of_turn>"]
TOKENS = ["im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad", "endoftext", "box_start", "quad_start"]
CODES = ["< think >", "<\n/answer>", "Step 1:", "Step  2 :", CUT, "\x00", "\x1b[2J", "\u2028", "\x85", "\ud800"]
MARKUP = [*TAGS, *(f"<|{name}|>" for name in TOKENS), *CODES]
hostile = st.lists(st.sampled_from(MARKUP) | st.text(st.characters(exclude_categories=[]), max_size=6), max_size=8).map("".join)


def png(size: tuple[int, int] = (10, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    return file.getvalue()


def document(tokens: tuple[str, ...] = ("Maya", "joins", "the", "Gulls"), span: tuple[int, int] = (3, 4)) -> Document:
    return Document(
        id="d",
        image=png(),
        tokens=tokens,
        objects=(Object(id="o", box=Box.from_corners(0.2, 0.25, 0.6, 0.75)),),
        entities=(Entity(id="e", span=Span(start=span[0], end=span[1])),),
        pairs=(Pair(object="o", entity="e"),),
    )


def ask(asked: Document, **form: object) -> Prompt:
    return build_prompt(asked, asked.pairs[0], SCHEMA, PromptForm.model_validate(form))


def text(prompt: Prompt) -> str:
    return "".join(part for segment in prompt.segments for part in segment if isinstance(part, str))


def test_shared_order_goes_from_shared_to_own() -> None:
    root, shared, own = ask(document()).segments
    assert len(root) == 1 and isinstance(root[0], str) and "Gulls" not in root[0]
    assert isinstance(shared[0], Picture) and shared[0].box is None and shared[1] == "Headline: Maya joins the Gulls\n"
    assert isinstance(own[0], Picture) and own[0].box is not None and own[1] == "Entity: Gulls"


def test_paper_order_shows_both_pictures_first() -> None:
    first, whole, own = ask(document(), order="paper").segments
    assert first == () and len(whole) == 1
    assert (
        isinstance(own[0], Picture)
        and isinstance(own[1], str)
        and own[1].endswith("Headline: Maya joins the Gulls\nEntity: Gulls")
    )


def test_both_orders_say_and_show_the_same() -> None:
    shared, paper = ask(document()), ask(document(), order="paper")
    assert text(shared) == text(paper) and shared.pictures == paper.pictures


@pytest.mark.parametrize("wording", ["full", "short"])
@pytest.mark.parametrize("reasoning", ["steps", "none"])
def test_every_label_is_in_the_instruction(wording: str, reasoning: str) -> None:
    task = text(ask(document(), wording=wording, reasoning=reasoning))
    assert all(label in task for label in SCHEMA.labels)
    assert ("Step 6:" in task) is (wording == "full" and reasoning == "steps")
    assert ("six steps" in task) is (reasoning == "steps")


def test_coordinates_are_given_in_words_where_asked_for() -> None:
    assert "Box: 200, 250, 600, 750\n" in text(ask(document(), coordinates=True))
    assert "Box:" not in text(ask(document()))


def test_the_mention_is_told_where_there_are_several() -> None:
    tokens = ("Gulls", "beat", "Gulls", "B", ",", "Gulls", "say")
    assert text(ask(document(tokens, (2, 3)))).endswith("Entity: Gulls (mention 2 of 3)")
    assert text(ask(document(tokens, (2, 4)))).endswith("Entity: Gulls B")


@given(st.lists(hostile, min_size=1, max_size=4), st.data())
def test_no_headline_forges_a_tag_a_special_token_a_step_or_a_cut(tokens: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(tokens) - 1))
    asked = document(tuple(tokens), (start, data.draw(st.integers(start + 1, len(tokens)))))
    _, shared, own = ask(asked).segments
    for part in (shared[1], own[1]):
        assert isinstance(part, str)
        assert "<" not in part and CUT not in part and not re.search(r"\bStep \d+:", part)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", part)
        part.encode("utf-8")
    # A line break would begin a line of ours, such as a second `Entity:`.
    assert str(shared[1]).count("\n") == 1 and "\n" not in str(own[1])


@given(hostile)
def test_plain_has_nothing_left_to_do_a_second_time(headline: str) -> None:
    assert plain(plain(headline)) == plain(headline)


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"], exclude_characters="<"), max_size=50))
def test_plain_leaves_a_plain_headline_alone(headline: str) -> None:
    if not re.search(r"\bStep\s+\d+\s*:", headline):
        assert plain(headline) == headline


def test_messages_hold_parts_in_order_with_cuts_between_segments() -> None:
    (message,) = ask(document()).messages(CUT)
    content = message["content"]
    assert message["role"] == "user"
    assert [part["type"] for part in content] == ["text", "text", "image", "text", "text", "image", "text"]
    assert [index for index, part in enumerate(content) if part.get("text") == CUT] == [1, 4]
    assert [part["image"].size for part in content if part["type"] == "image"] == [(10, 8), (4, 4)]
    assert CUT not in str(ask(document()).messages())


def test_pictures_keep_their_bounds_and_say_what_is_missing(tmp_path: Path) -> None:
    whole, part = ask(document(), whole_pixels=4000, crop_pixels=3136).pictures
    assert (whole.pixels, part.pixels) == (4000, 3136)
    with pytest.raises(DocumentError, match="no such image"):
        Picture(tmp_path / "gone.png", None, 4000).load()


@pytest.mark.parametrize(
    "wrong", [{"order": "any"}, {"wording": ""}, {"reasoning": "more"}, {"crop_pixels": 100}, {"colour": 1}]
)
def test_forms_that_do_not_exist_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PromptForm.model_validate(wrong)


def test_a_form_is_saved_and_read_as_json() -> None:
    form = PromptForm(order="paper", coordinates=True, crop_pixels=5000)
    assert PromptForm.model_validate_json(form.model_dump_json()) == form


def test_rules_follow_the_meaning() -> None:
    own = Schema.parse(
        "relations: {/per/per/a: {meaning: x, inverse: /per/per/b}, /per/per/b: y, "
        "/per/per/c: {meaning: z, symmetric: true, at_most_one: true}, /per/per/d: w}"
    )
    asked = build_prompt(document(), document().pairs[0], own, PromptForm()).segments[0][0]
    assert isinstance(asked, str)
    wanted = [
        "a: x (the inverse of /per/per/b)",
        "b: y (the inverse of /per/per/a)",
        "c: z (holds both ways; at most one)",
        "d: w",
    ]
    assert "".join(f"/per/per/{line}\n" for line in wanted) in asked


@given(hostile)
def test_no_meaning_acts_as_markup(meaning: str) -> None:
    """A schema may come with a stranger's model."""

    def task(meaning: str) -> str:
        schema = Schema(relations=(Relation(label="/per/per/friend", meaning=meaning),))
        return text(build_prompt(document(), document().pairs[0], schema, PromptForm()))

    marks = (*TAGS, *(f"<|{name}|>" for name in TOKENS), CUT)
    assert [task(meaning).count(mark) for mark in marks] == [task("").count(mark) for mark in marks]


def test_the_meanings_of_more_are_as_they_stand() -> None:
    assert all(plain(relation.meaning) == relation.meaning for relation in SCHEMA.relations)
