"""Stage 1 on the embedded benchmark: reasoning against answers alone, over seeds, as in the README.

    more-r1 data synth data/embedded
    python studies/stage1.py --seeds 0 1 2 --jobs 2

Every seed has a draw of pairs of its own, the same for both arms; epochs are equal. The best checkpoint is picked on valid and
evaluated once on test and test_new. Runs are resumed, and finished ones are left alone. About 35 minutes of one core a seed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

ARMS = {"reasoning": "recipes/tiny-sft.yaml", "answer only": "recipes/tiny-answer.yaml"}
SPLITS = ("test", "test_new")
MORE_R1 = [sys.executable, "-m", "more_r1"]


def main() -> None:
    """Run both arms for every seed and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--data", type=Path, default=Path("data/embedded"))
    parser.add_argument("--out", type=Path, default=Path("runs/stage1"))
    options = parser.parse_args()
    runs = [(arm, seed) for seed in options.seeds for arm in ARMS]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda run: train(*run, options.data, options.out), runs))
    results = {
        arm: {split: [figures(options.out / slug(arm, seed) / split) for seed in options.seeds] for split in SPLITS}
        for arm in ARMS
    }
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(results))


def slug(arm: str, seed: int) -> str:
    """The folder of a run."""
    return f"{arm.replace(' ', '-')}-{seed}"


def train(arm: str, seed: int, data: Path, out: Path) -> None:
    """One run: fine-tune, then evaluate the best checkpoint."""
    run = out / slug(arm, seed)
    sft = ["sft", ARMS[arm], f"seed={seed}", f"draw_seed={seed}", f"out={run}", f"data={data}", "threads=1"]
    commands = [sft]
    for split in SPLITS:
        if not (run / split / "metrics.json").is_file():
            model = ["--model", str(run / "best"), "--data", str(data), "--threads", "1"]
            commands.append(["evaluate", *model, "--split", split, "--out", str(run / split)])
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{run.name}.txt").open("a", encoding="utf-8") as log:
        for command in commands:
            subprocess.run([*MORE_R1, *command], check=True, stdout=log, stderr=log)


def figures(folder: Path) -> dict[str, float]:
    """What the table shows of one evaluation."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    found = {name: metrics[name] for name in ("accuracy", "precision", "recall", "f1", "macro_f1", "broken")}
    # Pairs without relation have no hops, so there is no precision by hop.
    return found | {f"recall, {hops} hops": part["recall"] for hops, part in metrics["hops"].items()}


def table(results: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """Mean and standard deviation over the seeds, in percent, as Markdown."""
    names = list(next(iter(results.values()))["test"][0])
    lines = [f"| model | split | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for arm, splits in results.items():
        for split, seeds in splits.items():
            cells = []
            for name in names:
                values = [100 * seed[name] for seed in seeds]
                cells.append(f"{mean(values):.1f} ± {stdev(values) if len(values) > 1 else 0:.1f}")
            lines.append(f"| {arm} | {split} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
