"""All systems on the embedded benchmark, on the same footing, over seeds, as in the README.

    more-r1 data synth data/embedded
    python studies/systems.py --seeds 0 1 2 --jobs 2

All begin from the embedded base. Zero-shot, it is asked as it is. Every seed has a draw of 25 % of the pairs of its own, the
same for answers alone, the classification head and the six steps; epochs are equal. Stage 2 goes on from that seed's stage 1
on 4,000 of the pairs that it left, by the pass rates of four drawn answers each. The best checkpoint is picked on valid and
evaluated once on test and test_new. Runs are resumed, and finished ones are left alone; `--systems` runs some of them, the
tables show what is there: means and deviations over seeds, and the difference in F1 by a paired bootstrap over documents.

A seed takes about 35 minutes of one core for answers alone and six steps, 10 for the head, and more than an hour for stage 2.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from more_r1.evaluation.compare import compare, markdown

MORE_R1 = [sys.executable, "-m", "more_r1"]
SPLITS = ("test", "test_new")
BASE = "tiny-base"
ZERO, STAGE1, STAGE2 = "zero-shot", "reasoning", "stage 2"
# By system: its recipe. The names are those of the folders, too.
SFT = {"answer only": "recipes/tiny-answer.yaml", "head": "recipes/tiny-head.yaml", STAGE1: "recipes/tiny-sft.yaml"}
SYSTEMS = [ZERO, *SFT, STAGE2]
# Stage 1 knows most pairs here, so that pairs which are right by chance are what there is to learn from.
MEASURE = ["samples=4", "share=0.25", "limit=4000"]
TEACH = ["mixing={preset: raw, weighting: pass_rate}", "group=8", "batch_pairs=64", "lr=5e-5", "beta=0", "most_steps=75"]
TEACH += ["epochs=99", "validate_every=25", "valid_pairs=1000", "checkpoint_every=10"]


def main() -> None:
    """Run what is missing, then write a table for each split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--data", type=Path, default=Path("data/embedded"))
    parser.add_argument("--out", type=Path, default=Path("runs/stage1"))
    options = parser.parse_args()
    study = Study(options.data, options.out)
    runs = [(system, seed) for seed in options.seeds for system in options.systems]
    with ThreadPoolExecutor(options.jobs) as pool:
        first = [(STAGE1, seed) for seed in options.seeds if STAGE2 in options.systems]  # where stage 2 begins
        list(pool.map(lambda run: study.run(*run), first))
        list(pool.map(lambda run: study.run(*run), [run for run in runs if run not in first]))
    for split in SPLITS:
        print(f"{split}\n\n{study.table(options.seeds, split)}\n")


class Study:
    """The folders of the study, and what is run in them."""

    def __init__(self, data: Path, out: Path) -> None:
        self.data, self.out = data, out

    def folder(self, system: str, seed: int) -> Path:
        """The run of a system. Zero-shot nothing is drawn, so that all seeds are one run."""
        return self.out / (ZERO if system == ZERO else f"{system.replace(' ', '-')}-{seed}")

    def run(self, system: str, seed: int) -> None:
        """Train, then evaluate the best checkpoint."""
        run = self.folder(system, seed)
        common = [f"seed={seed}", f"draw_seed={seed}", f"data={self.data}", "threads=1"]
        if system in SFT:
            self.more_r1(run, "sft", SFT[system], *common, f"out={run}")
        elif system == STAGE2:
            before, measured = self.folder(STAGE1, seed) / "best", self.out / f"difficulty-{seed}"
            given = [f"model={before}", f"out={measured}", *MEASURE]
            self.more_r1(run, "difficulty", "recipes/tiny-difficulty.yaml", *common, *given)
            given = [f"model={before}", f"difficulty={measured}", f"out={run}", *TEACH]
            self.more_r1(run, "grpo", "recipes/tiny-grpo.yaml", *common, *given)
        model = BASE if system == ZERO else str(run / "best")
        for split in SPLITS:
            if not (run / split / "metrics.json").is_file():
                asked = ["--data", str(self.data), "--split", split, "--out", str(run / split), "--threads", "1"]
                self.more_r1(run, "evaluate", "--model", model, *asked)

    def more_r1(self, run: Path, *arguments: str) -> None:
        """Run the command, its output to a file beside the run."""
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / f"{run.name}.txt").open("a", encoding="utf-8") as log:
            subprocess.run([*MORE_R1, *arguments], check=True, stdout=log, stderr=log)

    def table(self, seeds: list[int], split: str) -> str:
        """What is there of all systems on a split, as Markdown, in percent."""
        found = {}
        for system in SYSTEMS:
            folders = dict.fromkeys(self.folder(system, seed) / split for seed in seeds)
            there = [folder for folder in folders if (folder / "metrics.json").is_file()]
            if there:
                found[system] = there
        against = STAGE1 if STAGE1 in found else next(iter(found))
        return markdown(compare(found, against), against)


if __name__ == "__main__":
    main()
