"""Objects by a zero-shot detector of transformers, as `detector:google/owlv2-base-patch16-ensemble`."""

from __future__ import annotations

from typing import Any

import torch

from more_r1.document import Box, Document, Object
from more_r1.extraction.proposers.boxes import Scored, objects_of
from more_r1.extraction.proposers.errors import ProposerError
from more_r1.models.engine import Model
from more_r1.models.load import Backbone

# What is looked for, and the type of what is found.
QUERIES = {
    "a person": "per", "a logo": "org", "a sign": "org", "a flag": "misc", "a landmark": "loc", "a building": "loc",
    "a trophy": "misc",
}  # fmt: skip
THRESHOLD = 0.15


def objects(argument: str, model: Model) -> Detector:
    """The proposer by the detector of that folder or hub name. Raises ProposerError if it cannot be used."""
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    if not argument:
        raise ProposerError("detector: name a model, as in detector:google/owlv2-base-patch16-ensemble")
    try:
        processor = AutoProcessor.from_pretrained(argument, trust_remote_code=False)
        found = AutoModelForZeroShotObjectDetection.from_pretrained(argument, trust_remote_code=False, use_safetensors=True)
    except Exception as error:  # a stranger's folder fails in many ways
        reason = " ".join(str(error).split())[:300]
        raise ProposerError(f"detector:{argument}: cannot be loaded as a zero-shot detector ({reason})") from error
    # Another engine keeps the GPU's memory to itself.
    device = model.model.device if isinstance(model, Backbone) else "cpu"
    return Detector(found.to(device).eval(), processor)


class Detector:
    """Finds what QUERIES name, the surest first. `threshold` is the least score that counts, 0 to 1."""

    def __init__(self, model: Any, processor: Any, threshold: float = THRESHOLD) -> None:
        self._model, self._processor, self._threshold = model, processor, threshold

    @torch.inference_mode()
    def __call__(self, document: Document) -> tuple[Object, ...]:
        image = document.open_image()
        queries = list(QUERIES)
        inputs = self._processor(images=image, text=[queries], return_tensors="pt").to(self._model.device)
        found = self._processor.post_process_grounded_object_detection(
            self._model(**inputs), threshold=self._threshold, target_sizes=[(image.height, image.width)], text_labels=[queries]
        )[0]
        boxes = zip(found["scores"].tolist(), found["boxes"].tolist(), found["text_labels"], strict=True)
        return objects_of(_scored(score, corners, label, image.width, image.height) for score, corners, label in boxes)


def _scored(score: float, corners: list[float], label: str, width: int, height: int) -> Scored:
    left, top, right, bottom = corners
    return score, Box.from_pixels(left, top, right, bottom, width=width, height=height), QUERIES.get(label)
