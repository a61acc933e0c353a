"""Run folders for the tests of the report."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from more_r1.reasoning.trace import Trace

STEPS = ("seen", "said", "who", "a (per) and an (org)", "/per/org/member_of or none", "so")
HOSTILE = '</script><img src=x onerror="window.pwned=1"><!-- {{ 7*7 }} & \' \u2028 \u2029 \ud800'


def record(number: int, gold: str | None, predicted: str | None, **more: Any) -> dict[str, Any]:
    """A line of predictions.jsonl: two pairs a document."""
    completion = "<think> Step 1: I stop here" if predicted is None else Trace(STEPS, predicted).render()
    return {
        "document": f"d{number // 2}.png",
        "image": f"img/d{number // 2}.png",
        "tokens": ["Maya", "joins", "the", "Gulls"],
        "object": f"person_{number}",
        "box": [0.25, 0.6, 0.5, 0.4],
        "entity": "3-4",
        "span": [3, 4],
        "gold": gold,
        "predicted": predicted,
        "hops": None if gold in (None, "none") else 1 + number % 4,
        "objects": 2,
        "entities": 1,
        "completion": completion,
    } | more


def write(run: Path, records: list[dict[str, Any]]) -> Path:
    (run / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    return run


def draw(run: Path, *numbers: int) -> None:
    (run / "img").mkdir()
    for number in numbers:
        Image.new("RGB", (800, 400), (40 * number % 255, 90, 150)).save(run / "img" / f"d{number}.png")
