"""Relations that stage 1 never saw: what the model makes of them when they are asked for, as in docs/relations.md.

    more-r1 data synth data/embedded
    python studies/held_out.py --jobs 2

Two models learn from the same traces, one of them without the pairs of four labels (in train and in valid); these labels stay
in its prompt and in what step 5 lists, as those of any schema do. Both are asked about the whole test split with the full
schema, and F1 on the four labels is set beside F1 on the others. With `--trained MODEL` that model stands for the one that
learned all. Runs are resumed, and finished ones are left alone. About 25 minutes of one core a model.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from more_r1.formats.paths import replacing
from more_r1.schema import NONE

HELD_OUT = ("/per/per/opponent", "/per/org/member_of", "/per/loc/place_of_residence", "/per/misc/awarded")
RECIPE = "recipes/tiny-sft.yaml"
MORE_R1 = [sys.executable, "-m", "more_r1"]


def main() -> None:
    """Train, evaluate and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/embedded"))
    parser.add_argument("--out", type=Path, default=Path("runs/held-out"))
    parser.add_argument("--held-out", nargs="+", default=list(HELD_OUT), metavar="LABEL")
    parser.add_argument("--trained", help="a model that learned all labels, in place of training one")
    parser.add_argument("--limit", type=int, help="only so many documents of test")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="recipe fields of both models")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    options = parser.parse_args()
    without(options.data, options.out / "data", options.held_out)
    arms = {"held out": options.out / "data", "trained": options.data}
    with ThreadPoolExecutor(options.jobs) as pool:
        metrics = dict(zip(arms, pool.map(lambda arm: run(arm, arms[arm], options), arms), strict=True))
    text = table(metrics, options.held_out)
    (options.out / "results.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def without(data: Path, folder: Path, labels: list[str]) -> None:
    """The same benchmark without the pairs of some labels in train and valid; pictures and boxes are linked."""
    (folder / "txt").mkdir(parents=True, exist_ok=True)
    for name in ["img_org", "rel2id.json", *(path.name for path in data.glob("ent_*_dict.pth")), "txt/test.txt"]:
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(data / name, link.parent))
    for split in ("train", "valid"):
        lines = (data / "txt" / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        keep(folder / "txt" / f"{split}.txt", [line for line in lines if ast.literal_eval(line)["relation"] not in labels])
    traces = (data / "oracle" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    keep(folder / "oracle" / "train.jsonl", [line for line in traces if json.loads(line)["label"] not in labels])


def keep(path: Path, lines: list[str]) -> None:
    """Write lines, whole or not at all."""
    with replacing(path) as fresh:
        fresh.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def run(arm: str, data: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Stage 1 on some data, then the test split of the whole benchmark: figures by label."""
    out = options.out / arm.replace(" ", "-")
    model = options.trained if arm == "trained" and options.trained else str(out / "best")
    commands = []
    if model != options.trained:
        commands.append(["sft", RECIPE, f"data={data}", f"out={out}", "threads=1", *options.set])
    if not (out / "test" / "metrics.json").is_file():
        limit = [] if options.limit is None else ["--limit", str(options.limit)]
        whole = ["--data", str(options.data), "--split", "test", "--out", str(out / "test"), "--threads", "1"]
        commands.append(["evaluate", "--model", model, *whole, *limit])
    with (options.out / f"{out.name}.txt").open("a", encoding="utf-8") as log:
        for command in commands:
            subprocess.run([*MORE_R1, *command], check=True, stdout=log, stderr=log)
    found: dict[str, dict[str, float]] = json.loads((out / "test" / "metrics.json").read_text(encoding="utf-8"))["labels"]
    return found


def table(metrics: dict[str, dict[str, dict[str, float]]], labels: list[str]) -> str:
    """F1 in percent by model, on each of the labels, on them together and on the others, as Markdown."""
    others = sorted({label for found in metrics.values() for label in found} - {*labels, NONE})
    columns = {**{label: [label] for label in labels}, f"these {len(labels)}": labels, "the others": others}
    lines = [f"| model | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for arm, found in metrics.items():
        lines.append(f"| {arm} | {' | '.join(f'{100 * f1(found, part):.1f}' for part in columns.values())} |")
    return "\n".join(lines)


def f1(found: dict[str, dict[str, float]], labels: list[str]) -> float:
    """Micro-F1 over some labels: 2 x right / (gold + predicted)."""
    kept = [found[label] for label in labels if label in found]
    right = sum(scores["recall"] * scores["support"] for scores in kept)
    count = sum(scores["support"] + scores["predicted"] for scores in kept)
    return 2 * right / count if count else 0.0


if __name__ == "__main__":
    main()
