"""Persons by their faces: OpenCV's Haar cascade for frontal ones (Viola and Jones 2001). It sees no other objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from more_r1.document import Box, Document, Object
from more_r1.extraction.proposers.boxes import Scored, objects_of
from more_r1.extraction.proposers.errors import ProposerError, extra_missing, takes_no_argument
from more_r1.models.engine import Model

# What identifies a person is more than the face: the box is widened to head and shoulders, in sizes of the face.
_ASIDE, _ABOVE, _BELOW = 0.5, 0.5, 1.0
# The cascade works on grey pixels, and in time that grows with their number.
_LONGEST = 1024
_LEAST_FACE = 1 / 24  # of the shorter side


def objects(argument: str, _: Model) -> Faces:
    """The proposer. Raises ProposerError for an argument, and if OpenCV, or the cascade that it ships, is missing."""
    takes_no_argument("faces", argument)
    try:
        import cv2
    except ImportError as error:
        extra_missing("faces", error)
    file = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
    if not file.is_file():
        raise ProposerError(f"faces: OpenCV {cv2.__version__} has no {file.name}; pip install 'opencv-python-headless<5'")
    return Faces(cv2.CascadeClassifier(str(file)), cv2.CASCADE_SCALE_IMAGE)


class Faces:
    """Finds faces, the surest first; each is a person."""

    def __init__(self, cascade: Any, flags: int) -> None:
        self._cascade, self._flags = cascade, flags

    def __call__(self, document: Document) -> tuple[Object, ...]:
        image = document.open_image().convert("L")
        image.thumbnail((_LONGEST, _LONGEST))
        least = max(round(min(image.size) * _LEAST_FACE), 24)
        found, _, weights = self._cascade.detectMultiScale3(
            *(np.asarray(image), 1.1, 6, self._flags, (least, least)), outputRejectLevels=True
        )
        return objects_of(_person(face, float(weight), *image.size) for face, weight in zip(found, weights, strict=True))


def _person(face: Any, weight: float, width: int, height: int) -> Scored:
    x, y, w, h = (float(value) for value in face)
    left, top, right, bottom = x - _ASIDE * w, y - _ABOVE * h, x + (1 + _ASIDE) * w, y + (1 + _BELOW) * h
    return weight, Box.from_pixels(left, top, right, bottom, width=width, height=height), "per"
