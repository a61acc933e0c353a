"""What is read: a picture, its text, the objects seen, the entities named, and the pairs asked about.

Everything here is frozen and free of torch. Boxes are fractions of the picture; every other convention is converted
here and nowhere else.
"""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import Self

from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, model_validator

# A picture from a stranger may claim any size; beyond this it is refused before it is decoded (2 x 10^8 is a 200 MP photo).
MAX_PIXELS = 200_000_000


class DocumentError(ValueError):
    """A document that cannot be read; the message names the place and the mend."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Box(_Frozen):
    """A box by its centre and size, as fractions of the picture's width and height (the convention of MORE)."""

    cx: float
    cy: float
    w: float
    h: float

    @model_validator(mode="after")
    def _finite(self) -> Self:
        if not all(math.isfinite(value) for value in (self.cx, self.cy, self.w, self.h)):
            raise ValueError("a box needs four finite numbers")
        return self

    def fault(self, tolerance: float = 1e-3) -> str | None:
        """What is wrong with the box: empty or outside of the picture by more than `tolerance`; None if it is sound."""
        if self.w <= 0 or self.h <= 0:
            return f"empty box (width {self.w:g}, height {self.h:g})"
        left, top, right, bottom = self.corners
        if min(left, top) < -tolerance or max(right, bottom) > 1 + tolerance:
            return f"box outside the image (corners {left:.4g}, {top:.4g}, {right:.4g}, {bottom:.4g} of 0..1)"
        return None

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom as fractions."""
        return (self.cx - self.w / 2, self.cy - self.h / 2, self.cx + self.w / 2, self.cy + self.h / 2)

    @classmethod
    def from_corners(cls, left: float, top: float, right: float, bottom: float) -> Box:
        """From left, top, right, bottom as fractions."""
        return cls(cx=(left + right) / 2, cy=(top + bottom) / 2, w=right - left, h=bottom - top)

    @classmethod
    def from_pixels(cls, left: float, top: float, right: float, bottom: float, *, width: int, height: int) -> Box:
        """From absolute corners in a picture of `width` x `height` pixels (Qwen2.5-VL's: those after its resizing)."""
        return cls.from_corners(left / width, top / height, right / width, bottom / height)

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The smallest rectangle of whole pixels (left, top, right, bottom) that covers the box, clipped to the picture.

        At least one pixel wide and high, so that a crop is never empty.
        """
        left, top, right, bottom = self.corners
        # Rounding to 1e-6 first: 0.3 * 10 is 3.0000000000000004 and must not cost a pixel.
        x0 = min(max(math.floor(round(left * width, 6)), 0), width - 1)
        y0 = min(max(math.floor(round(top * height, 6)), 0), height - 1)
        x1 = max(min(math.ceil(round(right * width, 6)), width), x0 + 1)
        y1 = max(min(math.ceil(round(bottom * height, 6)), height), y0 + 1)
        return x0, y0, x1, y1

    @classmethod
    def from_thousandths(cls, left: float, top: float, right: float, bottom: float) -> Box:
        """From corners on Qwen2-VL's scale of 0 to 1000."""
        return cls.from_corners(left / 1000, top / 1000, right / 1000, bottom / 1000)

    @property
    def thousandths(self) -> tuple[int, int, int, int]:
        """Corners on Qwen2-VL's scale of 0 to 1000, rounded and clipped."""
        left, top, right, bottom = (min(max(round(value * 1000), 0), 1000) for value in self.corners)
        return left, top, right, bottom


class Span(_Frozen):
    """Tokens [start, end) of a document's text."""

    start: int
    end: int


class Object(_Frozen):
    """Something seen: its id is unique within the document."""

    id: str
    box: Box
    type: str | None = None


class Entity(_Frozen):
    """Something named: its id is unique within the document."""

    id: str
    span: Span
    type: str | None = None


class Pair(_Frozen):
    """An object and an entity of one document, by id, with the gold label if it is known.

    `hops` counts the pieces of evidence that the label rests on, where a benchmark knows it (None for `none`).
    """

    object: str
    entity: str
    label: str | None = None
    hops: int | None = None


class Document(_Frozen):
    """A picture and its text, with what is seen and named in them.

    `image` is a path or the encoded bytes. The ids of `pairs` refer to `objects` and `entities`; a raw captioned
    picture has none of the three.
    """

    id: str
    image: Path | bytes
    tokens: tuple[str, ...]
    objects: tuple[Object, ...] = ()
    entities: tuple[Entity, ...] = ()
    pairs: tuple[Pair, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for kind, ids in (("object", [o.id for o in self.objects]), ("entity", [e.id for e in self.entities])):
            if len(set(ids)) < len(ids):
                raise ValueError(f"document {self.id}: two of its {kind} ids are the same")
        objects, entities = {o.id for o in self.objects}, {e.id for e in self.entities}
        for pair in self.pairs:
            if pair.object not in objects or pair.entity not in entities:
                raise ValueError(f"document {self.id}: pair {pair.object!r}, {pair.entity!r} names what is not there")
        for entity in self.entities:
            if not 0 <= entity.span.start < entity.span.end <= len(self.tokens):
                raise ValueError(
                    f"document {self.id}: entity {entity.id!r} spans tokens [{entity.span.start}, {entity.span.end}) "
                    f"of {len(self.tokens)}"
                )
        return self

    @property
    def text(self) -> str:
        return " ".join(self.tokens)

    def object(self, id: str) -> Object:
        """The object of that id; KeyError if there is none."""
        for found in self.objects:
            if found.id == id:
                return found
        raise KeyError(id)

    def entity(self, id: str) -> Entity:
        """The entity of that id; KeyError if there is none."""
        for found in self.entities:
            if found.id == id:
                return found
        raise KeyError(id)

    def name(self, entity: Entity) -> str:
        """The entity's words as they stand in the text."""
        return " ".join(self.tokens[entity.span.start : entity.span.end])

    def open_image(self) -> Image.Image:
        """The picture, upright and RGB; DocumentError if it is missing or unreadable."""
        return open_image(self.image)


def open_image(source: Path | bytes) -> Image.Image:
    """Decode a picture, turn it upright by its EXIF and make it RGB, transparent parts white.

    Raises DocumentError for what is missing, broken, no picture, or larger than MAX_PIXELS.
    """
    name = "image" if isinstance(source, bytes) else str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DocumentError(f"{name}: {image.width} x {image.height} pixels are too many; scale it down")
                upright = ImageOps.exif_transpose(image)
                if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
                    # Sixteen-bit greyscale: Pillow's own conversion would clip it to white.
                    upright = upright.convert("F").point(lambda value: value / 257.0).convert("L")
                if upright.has_transparency_data:
                    upright = upright.convert("RGBA")
                    upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
                return upright.convert("RGB")
    except DocumentError:
        raise
    except FileNotFoundError as error:
        raise DocumentError(f"{name}: no such image") from error
    except Exception as error:  # Pillow's decoders raise many kinds; a stranger's file must cost one clear line
        raise DocumentError(f"{name}: not a readable image ({error})") from error


def crop(image: Image.Image, box: Box) -> Image.Image:
    """The part of the picture under the box, in whole pixels as `Box.pixels` has them."""
    return image.crop(box.pixels(*image.size))
