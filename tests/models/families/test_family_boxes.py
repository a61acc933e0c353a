"""Boxes come back on each family's own scale: what a model would say of a rectangle that it sees is where the rectangle was."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_families import BUDGET, KINDS, Both
from torch import Tensor

from more_r1.document import Box
from more_r1.extraction.proposers.lvlm import Grounding
from more_r1.models.processor import Encoder
from more_r1.reasoning.prompt import Picture

# What its authors say of Qwen2-VL and Qwen2.5-VL (https://github.com/QwenLM/Qwen3-VL/issues/866: within [0, 1000], and absolute
# in the resized picture) and of Qwen3-VL (quoted in /issues/1741: relative, from 0 to 1000, no longer absolute).
TAUGHT = {"qwen2_vl": "thousandths", "qwen2_5_vl": "pixels", "qwen3_vl": "thousandths"}


def seen(encoder: Encoder, picture: Picture) -> Tensor:
    """The picture as the model has it, [height, width]: patches put back to where they were cut out."""
    values, (_, rows, columns) = encoder.pixels(picture)
    size, merge = int((values.shape[1] // 6) ** 0.5), 2
    patches = values.view(rows // merge, columns // merge, merge, merge, 3, 2, size, size)[..., 0, 0, :, :]
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(rows * size, columns * size)


def said(encoder: Encoder, kind: str, picture: Picture) -> tuple[float, ...]:
    """The corners of what is bright, in the numbers that the family was taught."""
    shown = seen(encoder, picture)
    bright = shown > (shown.max() + shown.min()) / 2
    rows, columns = (bright.any(axis).nonzero()[:, 0] for axis in (1, 0))
    height, width = shown.shape
    corners = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    if TAUGHT[kind] == "pixels":
        return corners
    return tuple(round(1000 * value / side) for value, side in zip(corners, (width, height) * 2, strict=True))


@st.composite
def drawn(draw: st.DrawFn) -> tuple[Picture, Box]:
    """A black picture with a white rectangle that is not small."""
    width, height = draw(st.integers(60, 300)), draw(st.integers(60, 300))
    left, top = draw(st.integers(0, width // 2)), draw(st.integers(0, height // 2))
    right, bottom = draw(st.integers(left + width // 4, width)), draw(st.integers(top + height // 4, height))
    image, file = Image.new("RGB", (width, height)), io.BytesIO()
    image.paste("white", (left, top, right, bottom))
    image.save(file, "PNG")
    corners = (left / width, top / height, right / width, bottom / height)
    return Picture(file.getvalue(), None, BUDGET), Box.from_corners(*corners)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shown=drawn())
def test_a_box_is_where_the_model_sees_it(both: Both, shown: tuple[Picture, Box]) -> None:
    encoder, (picture, box) = both.ours.encoder, shown
    if both.kind not in TAUGHT:
        with pytest.raises(ValueError, match="not known how this family gives boxes"):
            encoder.box_scale(picture)
        return
    width, height = encoder.box_scale(picture)
    found = Box.from_pixels(*said(encoder, both.kind, picture), width=width, height=height)
    pixel = 1 / min(seen(encoder, picture).shape)
    torch.testing.assert_close(torch.tensor(found.corners), torch.tensor(box.corners), atol=1.5 * pixel, rtol=0)


@settings(max_examples=200)
@given(
    st.tuples(*[st.floats(0, 0.5)] * 2, *[st.floats(0.01, 0.5)] * 2),
)
def test_thousandths_are_corners_to_a_thousandth(box: tuple[float, float, float, float]) -> None:
    left, top, width, height = box
    there = Box(cx=left + width / 2, cy=top + height / 2, w=width, h=height)
    back = Box.from_thousandths(*there.thousandths)
    for ours, wanted in zip(back.corners, (left, top, left + width, top + height), strict=True):
        assert ours == pytest.approx(wanted, abs=0.5e-3 + 1e-9)


def test_the_proposer_reads_them_on_that_scale(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    image, file = Image.new("RGB", (200, 100)), io.BytesIO()
    image.paste("white", (50, 20, 150, 80))
    image.save(file, "PNG")
    from more_r1.document import Document

    document = Document(id="1", image=file.getvalue(), tokens=("w1",))
    proposer = Grounding(both.ours)
    if both.kind not in TAUGHT:
        with pytest.raises(ValueError, match=both.ours.encoder.family.name):
            proposer(document)
        return
    corners = said(both.ours.encoder, both.kind, Picture(file.getvalue(), None, both.ours.form.whole_pixels))
    answer = f'[{{"bbox_2d": {list(corners)}, "label": "per"}}]'
    monkeypatch.setattr("more_r1.extraction.proposers.lvlm.generate", lambda *_: [answer])
    (found,) = proposer(document)
    assert found.box.corners == pytest.approx((0.25, 0.2, 0.75, 0.8), abs=0.02)


def test_every_family_is_asked_about() -> None:
    assert {*TAUGHT, "idefics3", "llava_onevision", "gemma3"} == set(KINDS)
