"""Stage 2 on the embedded benchmark: what mixing easy and hard pairs does, beside controls of equal compute, over seeds.

    more-r1 data synth data/embedded
    python studies/mixing.py --seeds 0 1 2 --jobs 2

Stage 1 has traces of 5 % of the training pairs. With the paper's 25 % it is too good here for stage 2 to teach much
(F1 78; 82 with traces of all pairs); with 5 % it is about as good as the paper's is on MORE.

Seed by seed all arms of GRPO begin from the same stage-1 model, have the same pool of pairs that stage 1 left, and draw as many
rollouts; the controls take about the same CPU time. The best checkpoint is picked on valid and evaluated once on test and
test_new. Runs are resumed, and finished ones are left alone; `--arms` runs some of them, the table shows what is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

from more_r1.evaluation.curves import read_log
from more_r1.formats.oracle import read_oracle
from more_r1.reasoning.trace import STEPS, Trace, TraceError, parse_trace
from more_r1.schema import Schema
from more_r1.synthetic.steps import agreement

MORE_R1 = [sys.executable, "-m", "more_r1"]
SPLITS = ("test", "test_new")
# Stage 1: its share of the pairs, for the paper's number of epochs.
SHARE, EPOCHS = 0.05, 20
STAGE1, ANSWERS1 = "stage 1 only", "answers only"
POOL = 4000  # pairs of those that stage 1 left
STEPS_EACH = 140  # of 32 groups of 4 rollouts: four progressive epochs of this pool
# Settings of recipes/tiny-grpo.yaml by arm; what the epochs have beyond STEPS_EACH is cut off.
ARMS = {
    "raw": ["mixing={preset: raw}"],
    "hard only": ["mixing={preset: hard_only}"],
    "fixed": ["mixing={preset: fixed}"],
    "progressive": ["mixing={preset: progressive}"],
    "fixed, stratified": ["mixing={preset: fixed, stratified: true}"],
    "progressive, stratified": ["mixing={preset: progressive, stratified: true}"],
    "fixed, stratified, remeasured": ["mixing={preset: fixed, stratified: true, remeasure: true}"],
    "by pass rate": ["mixing={preset: raw, weighting: pass_rate}"],
}
# Trains as long as stage 1 and GRPO take together, on stage 1's pairs.
LONGER, LONGER_EPOCHS = "longer stage 1", 40
# The same rewards without reasoning. Short completions: as many steps as take the time of STEPS_EACH with long ones.
ANSWERS, ANSWER_STEPS = "answers only, fixed, stratified", 600
# What the pool is measured by, if not by one greedy answer of the reasoning model.
MEASURED = {"by pass rate": "sampled", ANSWERS: "answers"}
# What is drawn of each step, by its key in log.jsonl.
COURSES = {
    "reward_answer": "Answer reward of the rollouts", "valid_f1": "F1 on valid, greedy",
    "accuracy_easy": "Right rollouts on easy pairs", "accuracy_hard": "Right rollouts on hard pairs",
}  # fmt: skip
COARSE = 10


def main() -> None:
    """Run what is missing, then write the table of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--arms", nargs="*", default=[*ARMS, LONGER, ANSWERS], help="beside stage 1")
    parser.add_argument("--data", type=Path, default=Path("data/embedded"))
    parser.add_argument("--out", type=Path, default=Path("runs/mixing"))
    parser.add_argument("--picture", type=Path, help="draw rewards and validation by step into this file (needs matplotlib)")
    options = parser.parse_args()
    study = Study(options.data, options.out)
    runs = [(arm, seed) for seed in options.seeds for arm in options.arms]
    measures = sorted({(MEASURED.get(arm, "greedy"), seed) for arm, seed in runs if arm != LONGER})
    with ThreadPoolExecutor(options.jobs) as pool:
        # Arms share their stage 1 and what was measured, so these come before all of them.
        first = sorted({(began(arm), seed) for arm, seed in runs} | {(STAGE1, seed) for seed in options.seeds})
        list(pool.map(lambda run: study.run(*run), first))
        list(pool.map(lambda measure: study.measure(*measure), measures))
        list(pool.map(lambda run: study.run(*run), runs))
    print(study.table([STAGE1, *ARMS, LONGER, ANSWERS1, ANSWERS], options.seeds))
    if options.picture:
        study.draw([*ARMS], options.seeds, options.picture)


def began(arm: str) -> str:
    """The stage 1 that an arm, or a way to measure the pool, begins from."""
    return ANSWERS1 if arm in (ANSWERS, ANSWERS1, "answers") else STAGE1


class Study:
    """The folders of the study, and what is run in them."""

    def __init__(self, data: Path, out: Path) -> None:
        self.data, self.out = data, out

    def more_r1(self, log: str, *arguments: str) -> None:
        """Run the command, its output to a file."""
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / f"{log}.txt").open("a", encoding="utf-8") as file:
            subprocess.run([*MORE_R1, *arguments], check=True, stdout=file, stderr=file)

    def measure(self, kind: str, seed: int) -> None:
        """Ask the stage-1 model about the pool: once and greedily, or four times for a pass rate."""
        settings = [f"model={self.folder(began(kind), seed) / 'best'}", f"data={self.data}", f"draw_seed={seed}"]
        settings += [f"share={SHARE}", f"limit={POOL}"] + (["samples=4"] if kind == "sampled" else [])
        self.more_r1(f"{kind}-{seed}", "difficulty", "recipes/tiny-difficulty.yaml", *settings, f"out={self.out / kind}-{seed}")

    def run(self, arm: str, seed: int) -> None:
        """Train, then evaluate the best checkpoint."""
        run = self.folder(arm, seed)
        common = [f"seed={seed}", f"draw_seed={seed}", f"out={run}", f"data={self.data}", "threads=1"]
        if arm in (STAGE1, ANSWERS1, LONGER):
            recipe = "recipes/tiny-answer.yaml" if arm == ANSWERS1 else "recipes/tiny-sft.yaml"
            settings = [f"share={SHARE}", f"epochs={LONGER_EPOCHS if arm == LONGER else EPOCHS}", "validate_every=2"]
            self.more_r1(run.name, "sft", recipe, *common, *settings, "valid_pairs=500")
        else:
            kind = MEASURED.get(arm, "greedy")
            before = [f"model={self.folder(began(arm), seed) / 'best'}", f"difficulty={self.out / kind}-{seed}"]
            settings = [*ARMS.get(arm, ARMS["fixed, stratified"]), "epochs=99"]
            settings += [f"most_steps={ANSWER_STEPS if arm == ANSWERS else STEPS_EACH}"]
            self.more_r1(run.name, "grpo", "recipes/tiny-grpo.yaml", *common, *before, *settings)
        for command in evaluations(str(run / "best"), self.data, run):
            self.more_r1(run.name, *command)

    def folder(self, arm: str, seed: int) -> Path:
        """The run of an arm."""
        return self.out / f"{arm.replace(',', '').replace(' ', '-')}-{seed}"

    def figures(self, arm: str, seed: int, split: str) -> dict[str, float]:
        """What the table shows of one evaluation; by hops it is recall, since pairs without relation have none."""
        folder = self.folder(arm, seed) / split
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        found = {name: metrics[name] for name in ("accuracy", "precision", "recall", "f1")}
        found |= {f"{hops} hops": part["recall"] for hops, part in metrics["hops"].items()}
        return found | self.steps(folder / "predictions.jsonl", split)

    def steps(self, predictions: Path, split: str) -> dict[str, float]:
        """The share of predictions whose step says what the oracle's does, for each of the six; nothing without steps."""
        schema = Schema.more()
        gold = {(fact.img_id, fact.object, fact.span): fact.completion for fact in read_oracle(self.oracle(split))}
        counts, pairs = [0] * STEPS, 0
        for record in map(json.loads, predictions.read_text(encoding="utf-8").splitlines()):
            completion = gold[record["document"], record["object"], (record["span"][0], record["span"][1])]
            if completion is None or "<think>" not in record["completion"]:
                continue
            pairs += 1
            right = agreement(_trace(record["completion"], schema), parse_trace(completion, schema))
            counts = [count + said for count, said in zip(counts, right, strict=True)]
        return {f"step {number}": count / pairs for number, count in enumerate(counts, 1) if pairs}

    def oracle(self, split: str) -> Path:
        """The file of the gold traces."""
        return self.data / "oracle" / f"{split}.jsonl"

    def table(self, arms: list[str], seeds: list[int]) -> str:
        """Mean and deviation over the seeds that are there, in percent, as Markdown; gains are over the arm's own stage 1."""
        lines: list[str] = []
        for split in SPLITS:
            headed = False
            for arm in arms:
                done = [seed for seed in seeds if (self.folder(arm, seed) / split / "metrics.json").is_file()]
                if not done:
                    continue
                rows = [self.figures(arm, seed, split) for seed in done]
                before = began(arm)
                for row, seed in zip(rows, done, strict=True):
                    row["gain in F1"] = row["f1"] - self.figures(before, seed, split)["f1"]
                if not headed:
                    headed = True
                    lines = [*lines, "", f"| {split} | seeds | {' | '.join(rows[0])} |", f"|---|---|{'---|' * len(rows[0])}"]
                cells = [_mean([100 * row[name] for row in rows]) if name in rows[0] else "" for name in rows[0]]
                lines.append(f"| {arm} | {len(done)} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def draw(self, arms: list[str], seeds: list[int], file: Path) -> None:
        """The courses of the arms, means over the seeds that are there, one panel for each of COURSES."""
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(2, 2, figsize=(11, 7), sharex=True, layout="constrained")
        for key, title, axis in zip(COURSES, COURSES.values(), axes.flat, strict=True):
            axis.set_title(title, loc="left", fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
            for colour, arm in enumerate(arms):
                logs = [self.folder(arm, seed) / "log.jsonl" for seed in seeds]
                points = _course([read_log(log)[0] for log in logs if log.is_file()], key)
                if points:
                    axis.plot(*zip(*points, strict=True), label=arm, linewidth=1.4, color=f"C{colour}")
        for axis in axes[1]:
            axis.set_xlabel("step")
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(file, dpi=110)


def evaluations(model: str, data: Path, run: Path) -> list[list[str]]:
    """The commands that evaluate a model on each of SPLITS, to folders of the run; none for what is there."""
    missing = [split for split in SPLITS if not (run / split / "metrics.json").is_file()]
    where = ["--model", model, "--data", str(data), "--threads", "1"]
    return [["evaluate", *where, "--split", split, "--out", str(run / split)] for split in missing]


def _course(logs: list[list[dict[str, float]]], key: str) -> list[tuple[float, float]]:
    """What the runs logged under a key: means over runs and, as steps have few pairs, over COARSE neighbouring steps."""
    at: dict[float, list[float]] = defaultdict(list)
    for event in (event for log in logs for event in log if key in event):
        at[event["step"] if key.startswith("valid") else (event["step"] - 1) // COARSE * COARSE + COARSE / 2].append(event[key])
    return [(step, mean(values)) for step, values in sorted(at.items())]


def _mean(values: list[float]) -> str:
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{mean(values):.1f}"


def _trace(completion: str, schema: Schema) -> Trace | None:
    try:
        return parse_trace(completion, schema)
    except TraceError:
        return None


if __name__ == "__main__":
    main()
