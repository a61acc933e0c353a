from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from more_r1.document import Box, Document, DocumentError, Entity, Object, Pair, Span
from more_r1.models.load import Backbone
from more_r1.models.tiny import build_tiny
from more_r1.models.vllm.prompt import vllm_prompt
from more_r1.reasoning.prompt import CUT, Picture, Prompt, PromptForm, build_prompt
from more_r1.schema import Schema


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return build_tiny(["how", "see"], seed=0)


def png(size: tuple[int, int], colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def document(id: str, tokens: tuple[str, ...]) -> Document:
    objects = tuple(Object(id=name, box=Box(cx=x, cy=0.5, w=0.4, h=0.5)) for name, x in (("a", 0.3), ("b", 0.6)))
    entity = Entity(id="0-1", span=Span(start=0, end=1))
    pairs = tuple(Pair(object=name, entity="0-1") for name in "ab")
    return Document(id=id, image=png((140, 112)), tokens=tokens, objects=objects, entities=(entity,), pairs=pairs)


@pytest.mark.parametrize("order", ["shared", "paper"])
def test_segments_are_the_whole_prompt_as_the_processor_has_it(tiny: Backbone, order: str) -> None:
    form = PromptForm.model_validate({"order": order, "whole_pixels": 112 * 112, "crop_pixels": 56 * 56})
    shown = document("1", ("Ann", "wins"))
    prompt = build_prompt(shown, shown.pairs[0], Schema.more(), form)
    segments = tiny.encoder.prompt(prompt)

    processor = tiny.encoder.processor
    text = processor.apply_chat_template(prompt.messages(), tokenize=False, add_generation_prompt=True)
    sizes = [(tuple(picture.load().size), picture.pixels) for picture in prompt.pictures]
    assert sizes == [((140, 112), 112 * 112), ((56, 56), 56 * 56)]
    whole = processor(
        text=[text],
        images=[picture.load() for picture in prompt.pictures],
        size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112},
        return_tensors="pt",
    )
    assert [id for segment in segments for id in segment.ids] == whole["input_ids"][0].tolist()
    pictures = [picture for segment in segments for picture in segment.pictures]
    assert pictures == prompt.pictures
    assert torch.equal(torch.cat([tiny.encoder.pixels(picture)[0] for picture in pictures]), whole["pixel_values"])
    assert torch.equal(torch.stack([tiny.encoder.pixels(picture)[1] for picture in pictures]), whole["image_grid_thw"])
    images = torch.tensor([int(id == tiny.encoder.image_id) for segment in segments for id in segment.ids])
    assert torch.equal(whole["mm_token_type_ids"][0], images)
    assert images.sum() == whole["image_grid_thw"].prod(-1).sum() // 4


def test_pairs_of_a_document_share_what_is_not_their_own(tiny: Backbone) -> None:
    one, other = document("1", ("Ann", "wins")), document("2", ("Bob", "wins"))
    a, b = (tiny.encoder.prompt(build_prompt(one, pair, Schema.more(), PromptForm())) for pair in one.pairs)
    c = tiny.encoder.prompt(build_prompt(other, other.pairs[0], Schema.more(), PromptForm()))
    assert a[:2] == b[:2] and a[2] != b[2]
    assert a[0] == c[0] and a[1] != c[1]


def test_processor_pads_left(tiny: Backbone) -> None:
    batch = tiny.encoder.processor(text=["how see how", "how"], padding=True, return_tensors="pt")
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert batch["mm_token_type_ids"].shape == (2, 3)


def test_completion_ends_and_decodes(tiny: Backbone) -> None:
    text = "<think> how  é\n see</think>"
    ids = tiny.encoder.completion(text)
    assert ids[-1] == tiny.encoder.eos_id
    assert tiny.encoder.decode(ids) == tiny.encoder.decode([*ids, 5, 6]) == text


@pytest.mark.parametrize("text", ["<|image_pad|>", f"a {CUT} b"])
def test_text_cannot_pass_for_pictures_or_cuts(tiny: Backbone, text: str) -> None:
    with pytest.raises(ValueError, match="plain"):
        tiny.encoder.prompt(Prompt(((text,), ("how",))))


def test_completion_cannot_hold_pictures(tiny: Backbone) -> None:
    with pytest.raises(ValueError, match="image"):
        tiny.encoder.completion("<think><|image_pad|>")


@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (2, 3000), (57, 200)])
def test_any_crop_can_be_shown(tiny: Backbone, size: tuple[int, int]) -> None:
    values, grid = tiny.encoder.pixels(Picture(png(size), None, 56 * 56))
    assert len(values) == grid.prod() > 0 and not (grid[1:] % 2).any()


def test_unreadable_pictures_are_named(tiny: Backbone, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(DocumentError, match=r"broken\.png"):
        tiny.encoder.prompt(Prompt(((Picture(broken, None, 56 * 56),),)))


def test_vllm_is_shown_the_picture_that_pairs_share_made_once_until_it_is_forgotten(tiny: Backbone) -> None:
    one = document("1", ("Ann", "wins"))
    prompts = [build_prompt(one, pair, Schema.more(), PromptForm()) for pair in one.pairs]
    (whole, crop), (again, _) = (vllm_prompt(tiny.encoder, prompt).pictures for prompt in prompts)
    assert again is whole
    for picture, seen in zip(prompts[0].pictures, (whole, crop), strict=True):
        _, rows, columns = tiny.encoder.pixels(picture)[1].tolist()
        assert seen.size == (14 * columns, 14 * rows)
    names = vllm_prompt(tiny.encoder, prompts[0]).names
    tiny.encoder.forget()
    fresh = vllm_prompt(tiny.encoder, prompts[0])
    assert fresh.pictures[0] is not whole and fresh.names == names and len(set(names)) == 2


def test_pixels_are_kept_within_bounds(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [Picture(png((56, 56), colour), None, 56 * 56) for colour in ("red", "blue", "green")]
    size = tiny.encoder.pixels(pictures[0])[0].nbytes
    monkeypatch.setattr("more_r1.models.kept.MOST_BYTES", 2 * size)
    first = [tiny.encoder.pixels(picture)[0] for picture in pictures]
    assert tiny.encoder.pixels(pictures[2])[0] is first[2]
    again = tiny.encoder.pixels(pictures[0])[0]
    assert again is not first[0] and torch.equal(again, first[0])
