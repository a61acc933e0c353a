"""The paper's table on your own machines: all systems of a recipe of `more-r1 train`, over seeds, beside the published figures.

    python studies/paper.py recipes/more-qwen2.5-vl-7b.yaml --seeds 0 1 2 \\
        --launch "accelerate launch --config_file recipes/accelerate/fsdp2.yaml --num_processes 8"
    python studies/paper.py recipes/tiny.yaml --seeds 0         # the same in small, on the embedded benchmark

Settings as KEY=VALUE behind the recipe go into every run. The systems:

- zero-shot: the recipe's model as it is, asked for the six steps;
- answers: fine-tuned on the labels alone, with the settings of stage 1;
- head: a classification head on pooled states, likewise; not for recipes with adapters, for it trains all weights;
- stage 1 and stage 2: `more-r1 train` of the recipe. Traces are asked for once: seeds share the draw of pairs.

Labels cost nothing, so answers and head learn from all training pairs, as in the paper; `--share` gives them fewer. The best
checkpoint is picked on valid and evaluated once on the recipe's test split. What is there already is left alone, so that a
stopped study goes on. The table, OUT/table.md, has means and deviations over seeds, and the difference in F1 to stage 2 by a
paired bootstrap over documents.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

from more_r1.evaluation.compare import compare, markdown
from more_r1.evaluation.published import PUBLISHED
from more_r1.pipeline import TrainRecipe
from more_r1.training.recipe import load_recipe

ZERO, ANSWERS, HEAD, STAGE1, STAGE2 = SYSTEMS = ["zero-shot", "answers", "head", "stage 1", "stage 2"]


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--share", type=float, default=1.0, help="of the training pairs, for answers and head")
    parser.add_argument("--launch", default="", help="what starts a training on several processes")
    parser.add_argument("--out", type=Path, default=Path("runs/paper"))
    options = parser.parse_intermixed_args()
    paper = Paper(options.recipe, options.settings, options.share, options.launch, options.out)
    for seed in options.seeds:
        for system in options.systems:
            paper.run(system, seed)
    paper.out.mkdir(parents=True, exist_ok=True)
    table = paper.table(options.seeds)
    (paper.out / "table.md").write_text(table, encoding="utf-8")
    print(table)


class Paper:
    """The folders of the study, and what is run in them."""

    def __init__(self, recipe: Path, settings: list[str], share: float, launch: str, out: Path) -> None:
        self.file, self.settings, self.share, self.launch, self.out = recipe, settings, share, shlex.split(launch), out

    def given(self, seed: int) -> list[str]:
        """The settings of a seed's run of all stages; the traces are those of all seeds."""
        own = [*self.settings, f"seed={seed}", f"out={self.out / f'more-r1-{seed}'}"]
        asks = load_recipe(self.file, own, TrainRecipe).annotate is not None
        return own + [f"annotate.out={self.out / 'annotate'}"] * asks

    def recipe(self, seed: int) -> TrainRecipe:
        """The recipe of a seed."""
        return load_recipe(self.file, self.given(seed), TrainRecipe)

    def evaluated(self, system: str, seed: int) -> Path:
        """Where a system's predictions on the test split are. Zero-shot nothing is drawn, so that all seeds are one run."""
        run = self.out / f"more-r1-{seed}"
        own = {ZERO: self.out / ZERO, STAGE1: run / "sft" / "test", STAGE2: run / "grpo"}
        return own.get(system, self.out / f"{system}-{seed}" / "test")

    def run(self, system: str, seed: int) -> None:
        """Train, then evaluate the best checkpoint."""
        recipe, folder = self.recipe(seed), self.evaluated(system, seed)
        if (folder / "metrics.json").is_file():
            return
        if system == HEAD and recipe.sft.lora is not None:
            print("head: left out, it trains all weights and the recipe trains adapters")
            return
        model = recipe.model
        if system in (ANSWERS, HEAD):
            model = str(folder.parent / "best")
            self.more_r1("sft", str(self.baseline(system, recipe, folder.parent)), launch=True)
        elif system in (STAGE1, STAGE2):
            model = str(recipe.sft.out / "best")
            if recipe.annotate is not None:
                self.more_r1("train", str(self.file), *self.given(seed), "--until", "annotate")
            ends = ["--until", "sft"] if system == STAGE1 else []
            self.more_r1("train", str(self.file), *self.given(seed), *ends, launch=True)
        if system != STAGE2:  # which is evaluated by `train`
            where = ["--model", model, "--data", str(recipe.data), "--split", recipe.test, "--out", str(folder)]
            threads = [] if recipe.threads is None else ["--threads", str(recipe.threads)]
            self.more_r1("evaluate", *where, *threads, "--max-new-tokens", str(recipe.grpo.max_new_tokens))

    def baseline(self, system: str, recipe: TrainRecipe, run: Path) -> Path:
        """The recipe of a system without reasoning: stage 1's, but for what it learns."""
        stage = recipe.sft.model_dump(mode="json")
        stage |= {"out": str(run), "share": self.share, "traces": "oracle", "head": system == HEAD}  # no trace is read
        stage["form"] |= {"reasoning": "none"}
        file = run.with_name(f"{run.name}.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(stage, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return file

    def more_r1(self, *arguments: str, launch: bool = False) -> None:
        """Run the command, on all processes where that is wanted."""
        start = [*self.launch, "-m"] if launch and self.launch else [sys.executable, "-m"]
        print(shlex.join([*start, "more_r1", *arguments]), flush=True)
        subprocess.run([*start, "more_r1", *arguments], check=True)

    def table(self, seeds: list[int]) -> str:
        """What is there, in percent; and what was published, on MORE's test split."""
        found = {}
        for system in SYSTEMS:
            folders = dict.fromkeys(self.evaluated(system, seed) for seed in seeds)
            if there := [folder for folder in folders if (folder / "metrics.json").is_file()]:
                found[system] = there
        if not found:
            return "Nothing was evaluated yet.\n"
        against = STAGE2 if STAGE2 in found else next(iter(found))
        published = [
            " | ".join([f"| {name}", *(f"{value:.2f}" for value in figures), ""]).rstrip() for name, *figures in PUBLISHED
        ]
        heads = ["Published, on the test split of MORE:", "", "| system | Acc | P | R | F1 |", "|---|---|---|---|---|"]
        return "\n".join([markdown(compare(found, against), against), "", *heads, *published, ""])


if __name__ == "__main__":
    main()
