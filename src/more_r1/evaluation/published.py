"""What others reached on the test split of MORE, in percent: the results of arXiv 2603.09478 and arXiv 2312.09753.

None of it was measured here, and none of it on our embedded benchmark.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One system: accuracy, micro precision, recall and F1 in percent."""

    system: str
    accuracy: float
    precision: float
    recall: float
    f1: float


PUBLISHED = (
    Published("BERT+SG", 61.79, 29.61, 41.27, 34.48),
    Published("BERT+SG+Att", 63.74, 31.10, 39.28, 34.71),
    Published("MEGA", 65.97, 33.30, 38.53, 35.72),
    Published("IFAformer", 79.28, 55.13, 54.24, 54.68),
    Published("MKGformer", 80.17, 55.76, 53.74, 54.73),
    Published("VisualBERT", 82.84, 58.18, 61.22, 59.66),
    Published("ViLBERT", 83.50, 62.53, 59.73, 61.10),
    Published("MOREformer", 83.50, 62.18, 63.34, 62.75),
    Published("REMOTE", 83.64, 63.21, 64.63, 63.91),
    Published("Qwen2.5-VL-7B zero-shot, no reasoning", 23.94, 25.81, 23.95, 24.84),
    Published("Qwen2.5-VL-7B SFT on all labels, no reasoning", 82.64, 55.08, 64.84, 59.56),
    Published("MORE-R1, stage 1 only", 83.33, 62.53, 62.84, 62.69),
    Published("MORE-R1", 84.91, 65.88, 69.83, 67.80),
)
