"""Run folders for the tests of the report, and its page as a browser would find it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from more_r1.evaluation.report import write_report
from more_r1.reasoning.trace import Trace

LABEL = "/per/org/member_of"
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


def call(number: int, verdict: str = "accepted", final: bool = True, label: str = LABEL, **more: Any) -> dict[str, Any]:
    """A line of traces.jsonl about pair `number`."""
    return {
        "img_id": f"d{number // 2}.png",
        "object": f"per_{number}",
        "span": [0, 1],
        "label": label,
        "expert": "gpt",
        "fingerprint": "0" * 64,
        "attempt": 1,
        "completion": Trace(STEPS, label).render(),
        "verdict": verdict,
        "reason": "" if verdict == "accepted" else f"{verdict} it is",
        "final": final,
    } | more


def annotated(run: Path, calls: list[dict[str, Any]], data: Path | None = None) -> Path:
    run.mkdir(exist_ok=True)
    (run / "traces.jsonl").write_text("".join(json.dumps(line) + "\n" for line in calls))
    if data is not None:
        (run / "recipe.yaml").write_text(yaml.safe_dump({"out": str(run), "data": str(data), "share": 0.25, "draw_seed": 0}))
    return run


class Page(HTMLParser):
    """What a browser would find: elements, texts outside of scripts, and the data block."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self.inside == "script" else self.texts).append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])  # type: ignore[no-any-return]


def page(run: Path, **settings: int) -> Page:
    return Page(write_report(run, **settings).read_text(encoding="utf-8"))
