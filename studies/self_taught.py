"""A model that teaches itself, on the embedded benchmark: acceptance by round, and the stage 1 that its traces feed.

    more-r1 data synth data/embedded
    python studies/systems.py --seeds 0 1 2 --jobs 2 --systems reasoning       # the oracle-fed stage 1, to compare with
    python studies/self_taught.py --seeds 0 1 2 --jobs 2                       # some 100 minutes of one core a seed

For each seed: `more-r1 annotate recipes/tiny-self-taught.yaml`, then stage 1 (recipes/tiny-sft.yaml) on the last round's
traces, on the same draw of pairs as the oracle-fed stage 1 of studies/systems.py, whose row is there if its runs are. Beside
them the model of round 0, which has learnt from the examples alone. The best checkpoint is picked on valid and evaluated once
on test and test_new. Runs are resumed, and finished ones are left alone. For a smaller try, `--annotate` and `--sft` take
settings.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

import mixing
import yaml

from more_r1.formats.oracle import read_oracle
from more_r1.formats.traces import Key, TraceRecord, read_completions, read_traces
from more_r1.reasoning.trace import Trace, parse_trace
from more_r1.schema import NONE, Schema
from more_r1.synthetic.steps import agreement

EXAMPLES, TAUGHT, ORACLE = "the examples alone", "self-taught traces", "the oracle's traces"
FIGURES = ("accuracy", "precision", "recall", "f1", "broken")


def main() -> None:
    """Run what is missing for every seed, then write the two tables of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time, one thread each")
    parser.add_argument("--data", type=Path, default=Path("data/embedded"))
    parser.add_argument("--out", type=Path, default=Path("runs/self-taught"))
    parser.add_argument("--oracle", type=Path, default=Path("runs/stage1"), help="the runs of studies/systems.py")
    parser.add_argument("--annotate", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the annotation")
    parser.add_argument("--sft", nargs="*", default=[], metavar="KEY=VALUE", help="settings of stage 1")
    options = parser.parse_args()
    study = Study(options.data, options.out, options.oracle)
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda seed: study.run(seed, options.annotate, options.sft), options.seeds))
    print(study.acceptance(options.seeds))
    print()
    print(study.scores(options.seeds))


class Study:
    """The folders of the study, and what is run in them."""

    def __init__(self, data: Path, out: Path, oracle: Path) -> None:
        self.data, self.out, self.oracle = data, out, oracle

    def folder(self, arm: str, seed: int) -> Path:
        """The run folder of a fine-tuning."""
        folders = {
            EXAMPLES: self.out / f"traces-{seed}" / "round-0" / "sft",
            TAUGHT: self.out / f"stage1-{seed}",
            ORACLE: self.oracle / f"reasoning-{seed}",
        }
        return folders[arm]

    def run(self, seed: int, annotate: list[str], sft: list[str]) -> None:
        """Annotate, fine-tune on the traces, evaluate."""
        common, traces = [f"data={self.data}", f"draw_seed={seed}"], self.out / f"traces-{seed}"
        given = [f"expert.seed={seed}", f"expert.examples={self.data / 'oracle' / 'train.jsonl'}", f"out={traces}", *annotate]
        self._more_r1(seed, "annotate", "recipes/tiny-self-taught.yaml", *common, *given)
        given = [f"seed={seed}", f"traces={traces / 'traces.jsonl'}", f"out={self.folder(TAUGHT, seed)}", "threads=1", *sft]
        self._more_r1(seed, "sft", "recipes/tiny-sft.yaml", *common, *given)
        for arm in (EXAMPLES, TAUGHT):
            run = self.folder(arm, seed)
            for command in mixing.evaluations(str(run / "best"), self.data, run):
                self._more_r1(seed, *command)

    def _more_r1(self, seed: int, *arguments: str) -> None:
        """Run the command, its output to a file."""
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / f"{seed}.txt").open("a", encoding="utf-8") as log:
            subprocess.run([*mixing.MORE_R1, *arguments], check=True, stdout=log, stderr=log)

    def acceptance(self, seeds: list[int]) -> str:
        """By round, in percent of the pairs that were no examples, as Markdown: right by themselves, or with the gold shown.

        Examples are learnt by heart and would flatter round 0. `sound` is the share of the accepted traces of which every step
        says what the oracle's says.
        """
        names = ("right by itself", "more with the gold shown", "accepted", "of `none`", "of the others", "sound")
        lines = [f"| round | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        truth = {
            (fact.img_id, fact.object, fact.span): fact.completion for fact in read_oracle(self.data / "oracle/train.jsonl")
        }
        for number in range(max(len(self._rounds(seed)) for seed in seeds)):
            rows = [_acceptance(self._asked(seed, number), self._tries(seed), truth) for seed in seeds]
            lines.append(f"| {number} | {' | '.join(map(_cell, zip(*rows, strict=True)))} |")
        return "\n".join(lines)

    def _asked(self, seed: int, number: int) -> list[TraceRecord]:
        """The last call of each pair that was no example."""
        examples = read_completions(self.out / f"traces-{seed}" / "round-0" / "examples.jsonl")
        records = read_traces(self._rounds(seed)[number])
        return [record for record in records if record.final and record.key not in examples]

    def _tries(self, seed: int) -> int:
        recipe = yaml.safe_load((self.out / f"traces-{seed}" / "recipe.yaml").read_text(encoding="utf-8"))
        return int(recipe["expert"]["tries"])

    def _rounds(self, seed: int) -> list[Path]:
        return sorted((self.out / f"traces-{seed}").glob("round-*/traces.jsonl"), key=lambda file: int(file.parent.name[6:]))

    def scores(self, seeds: list[int]) -> str:
        """Stage 1 by what it learnt from, in percent, as Markdown."""
        lines = [f"| stage 1 on | split | {' | '.join(FIGURES)} |", f"|---|---|{'---|' * len(FIGURES)}"]
        for arm in (EXAMPLES, TAUGHT, ORACLE):
            for split in mixing.SPLITS:
                files = [self.folder(arm, seed) / split / "metrics.json" for seed in seeds]
                found = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
                rows = [[metrics[name] for name in FIGURES] for metrics in found]
                if not rows:
                    continue
                lines.append(f"| {arm} | {split} | {' | '.join(map(_cell, zip(*rows, strict=True)))} |")
        return "\n".join(lines)


def _acceptance(final: list[TraceRecord], tries: int, truth: dict[Key, str | None]) -> tuple[float, ...]:
    accepted = [record for record in final if record.accepted]
    own = sum(record.attempt <= tries for record in accepted)
    none = [record.accepted for record in final if record.label == NONE]
    others = [record.accepted for record in final if record.label != NONE]
    sound = [_sound(record, truth.get(record.key)) for record in accepted]
    shares = own / len(final), (len(accepted) - own) / len(final), len(accepted) / len(final)
    return *shares, _share(none), _share(others), _share(sound)


def _sound(record: TraceRecord, told: str | None) -> bool:
    return told is not None and all(agreement(_read(record.completion), _read(told)))


def _read(completion: str) -> Trace:
    return parse_trace(completion, Schema.more())


def _share(flags: list[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0


def _cell(values: tuple[float, ...]) -> str:
    """Mean and standard deviation over the seeds."""
    percents = [100 * value for value in values]
    return f"{mean(percents):.1f} ± {stdev(percents) if len(percents) > 1 else 0:.1f}"


if __name__ == "__main__":
    main()
