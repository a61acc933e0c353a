"""Pictures as other trainers get them: PNG files, of the size at which our own model sees them.

Each trainer has one limit of pixels for all pictures, we have two: one for whole pictures, one for crops. So they are made to
size here, to whole patches of 28 x 28: the image processor of a Qwen2.5-VL then leaves them as they are. (Not so with a limit
below four times its least of 56 x 56: it may make them larger.)
"""

from __future__ import annotations

import hashlib
import io
from functools import lru_cache

from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from more_r1.models.families.qwen import MAX_ASPECT, MIN_PIXELS
from more_r1.reasoning.prompt import Picture

_PATCH = 28


# The pairs of a document come one after another and share its picture.
@lru_cache(maxsize=16)
def png(picture: Picture) -> tuple[str, bytes]:
    """A file name and the encoded picture. The name is a hash of the pixels: nothing of a document's id is in it.

    Raises DocumentError if the picture cannot be read.
    """
    image = shown(picture)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)  # a fifth of the time of level 6, an eighth more bytes
    digest = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    return f"{digest[:32]}.png", file.getvalue()


def shown(picture: Picture) -> Image.Image:
    """The picture resized as `models.processor.Encoder` has it, before its colours are normalised."""
    image = picture.load()
    least = -(-max(image.size) // MAX_ASPECT)
    if min(image.size) < least:
        image = image.resize((max(image.width, least), max(image.height, least)), Image.Resampling.BICUBIC)
    height, width = smart_resize(image.height, image.width, _PATCH, MIN_PIXELS, picture.pixels)
    return image.resize((width, height), Image.Resampling.BICUBIC)
