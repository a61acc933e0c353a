"""Boxes in every convention, and pictures of every kind: upright, RGB, and right to the pixel."""

import io
import math
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from more_r1.document import Box, Document, DocumentError, Entity, Object, Pair, Span, crop, open_image

sides = st.integers(1, 5000)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    left, right = sorted(draw(st.tuples(*[st.floats(0, 1)] * 2)))
    top, bottom = sorted(draw(st.tuples(*[st.floats(0, 1)] * 2)))
    assume(right - left > 1e-6 and bottom - top > 1e-6)
    return Box.from_corners(left, top, right, bottom)


@given(boxes(), sides, sides)
def test_corners_and_pixels_come_back(box: Box, width: int, height: int) -> None:
    left, top, right, bottom = box.corners
    again = Box.from_pixels(left * width, top * height, right * width, bottom * height, width=width, height=height)
    for other in (again, Box.from_corners(*box.corners)):
        assert other.corners == pytest.approx(box.corners, abs=1e-12)
    assert box.fault() is None


@given(st.integers(0, 999), st.integers(0, 999), st.data())
def test_thousandths_come_back_exactly(left: int, top: int, data: st.DataObject) -> None:
    corners = (left, top, data.draw(st.integers(left + 1, 1000)), data.draw(st.integers(top + 1, 1000)))
    assert Box.from_thousandths(*corners).thousandths == corners


@given(sides, sides, st.data())
def test_whole_pixels_come_back_exactly(width: int, height: int, data: st.DataObject) -> None:
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    corners = (left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height)))
    assert Box.from_pixels(*corners, width=width, height=height).pixels(width, height) == corners


@given(boxes(), sides, sides)
def test_pixels_cover_the_box_and_no_pixel_more(box: Box, width: int, height: int) -> None:
    x0, y0, x1, y1 = box.pixels(width, height)
    left, top, right, bottom = box.corners
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    for low, high, start, end, size in ((x0, x1, left, right, width), (y0, y1, top, bottom, height)):
        assert low <= start * size + 1e-5 and end * size <= high + 1e-5
        assert start * size < low + 1 + 1e-5 and (high - 1 < end * size + 1e-5 or high == low + 1)


@given(st.builds(Box, **dict.fromkeys(("cx", "cy", "w", "h"), st.floats(-3, 3))), sides, sides)
def test_a_crop_of_any_box_lies_in_the_picture(box: Box, width: int, height: int) -> None:
    x0, y0, x1, y1 = box.pixels(width, height)
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    assert all(0 <= value <= 1000 for value in box.thousandths)


def test_centre_and_size_are_those_of_more() -> None:
    box = Box(cx=0.5, cy=0.25, w=0.2, h=0.1)
    assert box.corners == pytest.approx((0.4, 0.2, 0.6, 0.3))
    assert box.thousandths == (400, 200, 600, 300)


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        (Box(cx=0.5, cy=0.5, w=0, h=0.1), "empty box (width 0, height 0.1)"),
        (Box(cx=0.5, cy=0.5, w=0.1, h=-0.2), "empty box (width 0.1, height -0.2)"),
        (Box(cx=0.9, cy=0.5, w=0.4, h=0.1), "box outside the image (corners 0.7, 0.45, 1.1, 0.55 of 0..1)"),
        (Box(cx=250, cy=300, w=100, h=50), "box outside the image (corners 200, 275, 300, 325 of 0..1)"),
        (Box(cx=0.05, cy=0.5, w=0.2, h=0.1), "box outside the image (corners -0.05, 0.45, 0.15, 0.55 of 0..1)"),
        (Box(cx=0.5, cy=0.5, w=1.001, h=1), None),
    ],
)
def test_faulty_boxes_say_what_is_wrong(box: Box, fault: str | None) -> None:
    assert box.fault() == fault


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "wide", None])
def test_a_box_needs_four_finite_numbers(value: object) -> None:
    with pytest.raises(ValidationError):
        Box.model_validate({"cx": 0.5, "cy": 0.5, "w": value, "h": 0.5})


def test_a_document_finds_its_parts() -> None:
    gulls = Entity(id="3-5", span=Span(start=3, end=5), type="org")
    person = Object(id="o", box=Box(cx=0.5, cy=0.5, w=1, h=1))
    found = Document(id="d", image=b"x", tokens=("a", "b", "c", "New", "Gulls"), objects=(person,), entities=(gulls,))
    assert found.text == "a b c New Gulls" and found.name(gulls) == "New Gulls"
    assert found.object("o") is person and found.entity("3-5") is gulls
    for look in (found.object, found.entity):
        with pytest.raises(KeyError, match="nobody"):
            look("nobody")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"objects": ["o", "o"]}, "two of its object ids are the same"),
        ({"entities": [("e", 0, 1), ("e", 1, 2)]}, "two of its entity ids are the same"),
        ({"pairs": [("o", "nobody")]}, "pair 'o', 'nobody' names what is not there"),
        ({"pairs": [("nothing", "e")]}, "pair 'nothing', 'e' names what is not there"),
        ({"entities": [("e", 1, 1)]}, r"entity 'e' spans tokens \[1, 1\) of 2"),
        ({"entities": [("e", -1, 1)]}, r"spans tokens \[-1, 1\) of 2"),
        ({"entities": [("e", 0, 3)]}, r"spans tokens \[0, 3\) of 2"),
    ],
)
def test_a_document_that_contradicts_itself_is_refused(change: dict[str, list[object]], fault: str) -> None:
    parts = {"objects": ["o"], "entities": [("e", 0, 1)], "pairs": []} | change
    with pytest.raises(ValidationError, match=f"document d: .*{fault}"):
        Document.model_validate(
            {
                "id": "d",
                "image": "a.png",
                "tokens": ["a", "b"],
                "objects": [{"id": id, "box": {"cx": 0.5, "cy": 0.5, "w": 1, "h": 1}} for id in parts["objects"]],
                "entities": [{"id": id, "span": {"start": s, "end": e}} for id, s, e in parts["entities"]],  # type: ignore[misc]
                "pairs": [{"object": o, "entity": e} for o, e in parts["pairs"]],  # type: ignore[misc]
            }
        )


def test_an_image_is_a_path_or_bytes() -> None:
    assert Document.model_validate({"id": "d", "image": "a.png", "tokens": []}).image == Path("a.png")
    assert Document(id="d", image=b"\xff\x00", tokens=()).image == b"\xff\x00"


def test_documents_are_frozen_and_know_no_other_fields() -> None:
    pair = Pair(object="o", entity="e")
    with pytest.raises(ValidationError):
        pair.label = "none"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Pair.model_validate({"object": "o", "entity": "e", "confidence": 1})


def encoded(image: Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Four pixels in reading order."""
    assert image.mode == "RGB" and image.size == (2, 2)
    return [image.getpixel((x, y)) for y in (0, 1) for x in (0, 1)]  # type: ignore[misc]


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_rotations_are_turned_upright_before_the_crop(turn: int) -> None:
    upright = Image.new("RGB", (40, 24))
    upright.paste((200, 30, 30), (10, 6, 20, 12))
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for step in undo.get(turn, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = turn
    image = open_image(encoded(stored, "PNG", exif=exif))
    assert image.size == (40, 24) and image.tobytes() == upright.tobytes()
    part = crop(image, Box.from_pixels(10, 6, 20, 12, width=40, height=24))
    assert part.size == (10, 6) and part.getcolors() == [(60, (200, 30, 30))]


def test_a_rotated_jpeg_of_a_phone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.new("RGB", (64, 32), "white")
    stored.paste("black", (0, 0, 32, 32))
    image = open_image(encoded(stored, "JPEG", exif=exif, quality=95))
    assert image.size == (32, 64)
    assert max(image.getpixel((16, 8))) < 20 and min(image.getpixel((16, 56))) > 235  # type: ignore[type-var, arg-type]


def test_greyscale() -> None:
    image = Image.frombytes("L", (2, 2), bytes((0, 80, 160, 255)))
    assert corners(open_image(encoded(image))) == [(v, v, v) for v in (0, 80, 160, 255)]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind: str) -> None:
    image = Image.frombytes("I;16", (2, 2), struct.pack("<4H", 0, 80 * 257, 160 * 257, 65535))
    assert corners(open_image(encoded(image, kind))) == [(v, v, v) for v in (0, 80, 160, 255)]


def test_a_palette_with_transparency_lies_on_white() -> None:
    image = Image.frombytes("P", (2, 2), bytes((0, 1, 2, 1)))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert corners(open_image(encoded(image))) == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 255, 0)]
    assert corners(open_image(encoded(image, transparency=1))) == [(255, 0, 0), (255, 255, 255), (0, 0, 255), (255, 255, 255)]


def test_half_transparent_pixels_are_blended_with_white() -> None:
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 51))
    assert corners(open_image(encoded(image))) == [(0, 0, 0), (204, 204, 204), (255, 255, 255), (255, 255, 255)]
    grey = Image.new("LA", (2, 2), (0, 51))
    assert corners(open_image(encoded(grey))) == [(204, 204, 204)] * 4


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk(kind: str) -> None:
    image = open_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), kind))
    red, green, blue = image.getpixel((4, 4))  # type: ignore[misc]
    assert image.mode == "RGB" and red > 245 and green < 10 and blue < 10


def test_black_and_white_and_the_first_frame_of_a_film() -> None:
    assert corners(open_image(encoded(Image.new("1", (2, 2), 1)))) == [(255, 255, 255)] * 4
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    assert corners(open_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))) == [(255, 0, 0)] * 4


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("side", [15_000, 60_000])
def test_a_picture_that_claims_too_many_pixels_is_refused_unread(side: int) -> None:
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    with pytest.raises(DocumentError, match=r"too many|decompression bomb"):
        open_image(bomb)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    whole = encoded(Image.effect_noise((64, 64), 80))
    for content in (b"", b"no picture", whole[: len(whole) // 2], b"<svg xmlns='http://www.w3.org/2000/svg'/>"):
        file.write_bytes(content)
        with pytest.raises(DocumentError, match=r"a\.png: not a readable image"):
            open_image(file)
        with pytest.raises(DocumentError, match=r"^image: not a readable image"):
            open_image(content)
    with pytest.raises(DocumentError, match=r"gone\.png: no such image"):
        Document(id="d", image=tmp_path / "gone.png", tokens=()).open_image()
    with pytest.raises(DocumentError, match="not a readable image"):
        open_image(tmp_path)
