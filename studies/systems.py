"""All systems on the embedded benchmark, on the same footing, over seeds, as in docs/results.md.

    more-r1 data synth data/embedded
    python studies/systems.py --seeds 0 1 2 --jobs 2                  # 25 % of the pairs: some six hours of one core
    python studies/systems.py --seeds 0 1 2 --jobs 2 --share 0.05     # some three hours

All begin from the embedded base. Zero-shot, it is asked as it is. Every seed has a draw of pairs of its own, the same for
answers alone, the classification head and the six steps; epochs are equal: 8 of 25 % of the pairs, the paper's share, or 20 of
5 %, where stage 1 is about as good as the paper's is on MORE; that one and what follows from it are runs of studies/mixing.py.
Stage 2 goes on from that seed's stage 1 on the pairs that it left. The best checkpoint is picked on valid and evaluated once on
test and test_new. Runs are resumed, and finished ones are left alone; `--systems` runs some of them, the tables show what is
there: means and deviations over seeds, and the difference in F1 by a paired bootstrap over documents.
"""

from __future__ import annotations

import argparse
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mixing

from more_r1.evaluation.compare import compare, markdown

BASE = "tiny-base"
ZERO, STAGE1, STAGE2 = "zero-shot", "reasoning", "stage 2"
# By system: its recipe. The names are those of the folders, too.
SFT = {"answer only": "recipes/tiny-answer.yaml", "head": "recipes/tiny-head.yaml", STAGE1: "recipes/tiny-sft.yaml"}
SYSTEMS = [ZERO, *SFT, STAGE2]
# What studies/mixing.py calls them.
ARMS = {"answer only": mixing.ANSWERS1, STAGE1: mixing.STAGE1, STAGE2: "progressive, stratified"}

# Of 25 %: nine pairs of ten are right then. What there is to learn from are those that are right now and then, so that they are
# told apart by four answers and drawn by their pass rate; pairs that are right in two of four count as hard, too.
MEASURE = ["samples=4", "share=0.25", "threshold=0.75"]
TEACH = ["mixing={preset: progressive, weighting: pass_rate}", "group=8", "lr=5e-5", "beta=0", "epochs=4", "most_steps=null"]
TEACH += ["validate_every=33", "valid_pairs=1700"]


def main() -> None:
    """Run what is missing, then write a table for each split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time, one thread each")
    parser.add_argument("--share", type=float, choices=[mixing.SHARE, 0.25], default=0.25, help="of the train pairs")
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--data", type=Path, default=Path("data/embedded"))
    parser.add_argument("--out", type=Path, default=Path("runs/stage1"))
    options = parser.parse_args()
    study = Study(options.data, options.out, few=options.share == mixing.SHARE)
    if ZERO in options.systems:
        study.run(ZERO, 0)
    trained = [system for system in options.systems if system != ZERO]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda seed: [study.run(system, seed) for system in trained], options.seeds))
    for split in mixing.SPLITS:
        print(f"{split}\n\n{study.table(options.seeds, split)}\n")


class Study:
    """The folders of the study, and what is run in them. `few`: of 5 % of the pairs."""

    def __init__(self, data: Path, out: Path, few: bool) -> None:
        self.data, self.out, self.few = data, out, few
        self.mixing = mixing.Study(data, Path("runs/mixing"))

    def folder(self, system: str, seed: int) -> Path:
        """The run of a system. Zero-shot nothing is drawn, so that all seeds are one run."""
        if system == ZERO:
            return self.out / ZERO
        if self.few and system in ARMS:
            return self.mixing.folder(ARMS[system], seed)
        return self.out / (f"{system}-few-{seed}" if self.few else f"{system.replace(' ', '-')}-{seed}")

    def run(self, system: str, seed: int) -> None:
        """Train, then evaluate the best checkpoint."""
        run = self.folder(system, seed)
        if self.few and system in ARMS:
            if system == STAGE2:
                self.mixing.run(mixing.STAGE1, seed)
                self.mixing.measure("greedy", seed)
            self.mixing.run(ARMS[system], seed)
            return
        common = [f"seed={seed}", f"draw_seed={seed}", f"data={self.data}", "threads=1"]
        if system in SFT:
            few = [f"share={mixing.SHARE}", f"epochs={mixing.EPOCHS}"] if self.few else []
            self.more_r1(run, "sft", SFT[system], *common, f"out={run}", *few)
        elif system == STAGE2:
            self.run(STAGE1, seed)
            before, measured = self.folder(STAGE1, seed) / "best", self.out / f"difficulty-{seed}"
            given = [f"model={before}", f"out={measured}", *MEASURE]
            self.more_r1(run, "difficulty", "recipes/tiny-difficulty.yaml", *common, *given)
            given = [f"model={before}", f"difficulty={measured}", f"out={run}", *TEACH]
            self.more_r1(run, "grpo", "recipes/tiny-grpo.yaml", *common, *given)
        model = BASE if system == ZERO else str(run / "best")
        for command in mixing.evaluations(model, self.data, run):
            self.more_r1(run, *command)

    def more_r1(self, run: Path, *arguments: str) -> None:
        """Run the command, its output to a file beside the run."""
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / f"{run.name}.txt").open("a", encoding="utf-8") as log:
            subprocess.run([*mixing.MORE_R1, *arguments], check=True, stdout=log, stderr=log)

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
