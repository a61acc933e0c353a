"""A whole step of GRPO (rollout, rewards, reference, training): ours against stock TRL's GRPOTrainer, same model, one run.

    python benchmarks/grpo.py

A case is prompt/completion/group/pairs: tokens of a prompt and of a completion, completions of a pair, pairs of one document.
Prompts have two pictures, in the proportions that MORE's have with Qwen2.5-VL. Every completion is as long as it may be, for
the weights are random and the end of sequence is never drawn, so that both sides have the same number of tokens.

The model has 8 million parameters: 3 layers of width 320 in the proportions of Qwen2.5-VL-7B (an MLP 5.3 times as wide, 64 a
head, one head of keys for five of queries where the 7B has one for seven), 4064 tokens, a vision tower of 4 blocks.

Both sides draw their own completions at temperature 1, reward them by the same functions, run a frozen copy of the model for
the divergence (beta 0.001), and train all but the vision encoder by AdamW, in float32, on as many threads. On TRL's side
transformers generates, and a micro-batch is one group. Off there is what would slow it down here (bfloat16, gradient
checkpointing) and what is not in GRPO as published (its weighting of the divergence by the ratio). The two take turns, step by
step; printed are medians. CPU time is the figure to trust where other things run on the machine.

Peak memory is that of one first step in a fresh process, above what the process had once the models were loaded (Linux only).
The recursive form runs one completion at a time. The floor is the arithmetic of the forest's tokens, by the formulas of
training/cost.py, at the rate of a product of two 2048 x 2048 matrices here and now.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grpo_sides import Case, Ours, Question, Seconds, Theirs, questions, recipe, write_model

from more_r1.models.load import load_backbone
from more_r1.models.processor import Encoder, Segment
from more_r1.training.plan.cost import Level, forward, training
from more_r1.training.plan.shape import read_shape

CASES = ["200/100/8", "900/300/8", "900/300/16", "900/300/8/5"]
PHASES = ("rollout", "reference", "training")
SIDES = ("stock", "packed", "recursive")


def compare(case: Case, folder: str, repeats: int, rate: float) -> None:
    """Time both sides and print it. Raises SystemExit where they do not do the same work."""
    encoder = load_backbone(folder, device="cpu").encoder
    batches = [questions(case, encoder, seed) for seed in range(repeats)]
    ours, theirs = Ours(folder, recipe(case)), Theirs(folder, case, batches)
    runs: list[tuple[Seconds, Seconds]] = []

    def between(step: int, peer: Seconds | None) -> None:
        if peer is not None:
            runs.append((ours.step(batches[step - 1], step), peer))

    same(case, ours.events, theirs.run(between))
    mine, peer = np.median(np.array(runs), axis=0)
    # Ratios of steps that stood side by side.
    ratios = np.array([theirs.sum(0) / ours.sum(0) for ours, theirs in runs])
    cpu, wall = np.median(ratios, axis=0)
    spread = f"{ratios[:, 0].min():.2f} to {ratios[:, 0].max():.2f}"
    least = floor(case, folder, batches[0], encoder) / rate
    print(f"{case}: {case.rows * (case.prompt + case.completion)} tokens a step on both sides, median of {repeats} steps")
    print(f"  CPU s   ours {mine[:, 0].sum():.2f}, TRL {peer[:, 0].sum():.2f}, ratio {cpu:.2f} ({spread})")
    print(f"  wall s  ours {mine[:, 1].sum():.2f}, TRL {peer[:, 1].sum():.2f}, ratio {wall:.2f}")
    parts = (f"{name} {a:.2f} of {b:.2f}" for name, a, b in zip(PHASES, mine[:, 0], peer[:, 0], strict=True))
    print(f"  CPU s   {', '.join(parts)}")
    print(f"  floor   {least:.2f} s, {least / mine[:, 0].sum():.0%} of our CPU time", flush=True)


def same(case: Case, ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> None:
    """Both sides drew as many tokens, from distributions as wide, and their gradients are of one size."""
    tokens = case.rows * (case.prompt + case.completion)
    counts = np.diff([0, *(event["num_tokens"] for event in theirs)])
    if {event["repeated_tokens"] for event in ours} | {float(count) for count in counts} != {float(tokens)}:
        raise SystemExit(f"{case}: not {tokens} tokens a step: {[event['repeated_tokens'] for event in ours]}, {counts}")
    for name, off in (("entropy", 0.01), ("grad_norm", 1.0)):
        mine, peer = (np.median([event[name] for event in events]) for events in (ours, theirs))
        if abs(np.log(mine / peer)) > off:
            raise SystemExit(f"{case}: {name} is {mine:.3g} here and {peer:.3g} there")


def floor(case: Case, folder: str, asked: Sequence[Question], encoder: Encoder) -> float:
    """Operations of a step if nothing shared is computed twice; matrix products only."""
    shape = read_shape(folder)
    first, document, pair = encoder.prompt(asked[0].asked)

    def pictures(segment: Segment) -> tuple[float, ...]:
        return tuple(float(encoder.pixels(picture)[1].prod()) / encoder.merge**2 for picture in segment.pictures)

    shared = Level(1, len(first.ids) + len(document.ids), 0, pictures(document))
    own = Level(case.pairs, len(pair.ids), shared.tokens, pictures(pair))
    # Nothing follows the last token of a completion.
    drawn = Level(case.rows, case.completion - 1, case.prompt)
    rollout = forward(shape, [shared, own, drawn], case.rows * case.completion)
    taught = training(shape, rollout, recomputed=False, adapters=False, frozen_vision=True)
    # The reference computes what the rollout does; the features of pictures, from a frozen tower, are the same in all three.
    return 2 * rollout.total + taught.total - 2 * rollout.vision


def matrix_rate(size: int = 2048) -> float:
    """Operations a second of CPU time in a product of two square matrices, the best of ten."""
    one, other = torch.randn(2, size, size)
    times = []
    for _ in range(10):
        start = time.process_time()
        one @ other
        times.append(time.process_time() - start)
    return 2 * size**3 / min(times)


def memory(case: Case, folder: str, threads: int) -> None:
    """Peaks of all forms, each in a process of its own."""
    peaks: dict[str, float] = {}
    print(f"{case}: peak memory of a step above the loaded models")
    for side in SIDES:
        command = [sys.executable, __file__, "--peak", side, folder, str(case), "--threads", str(threads)]
        told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        peaks[side] = told["bytes"]
        share = f", {peaks[side] / peaks['stock']:.2f} of stock's" if side != "stock" else ""
        print(f"  {side:<9} {peaks[side] / 2**20:.0f} MiB{share}; {told['cpu']:.2f} s of CPU time", flush=True)


def peak(side: str, folder: str, case: Case) -> dict[str, float]:
    """One step of one side: its peak in bytes above the level before it, and its CPU time."""
    batch = questions(case, load_backbone(folder, device="cpu").encoder, 0)
    level, cpu = 0, 0.0

    def between(step: int, spent: Seconds | None) -> None:
        nonlocal level, cpu
        if spent is None:
            level = _status("VmRSS")
        else:
            cpu = float(spent[:, 0].sum())

    if side == "stock":
        Theirs(folder, case, [batch]).run(between)
    else:
        forms = {"packed": recipe(case), "recursive": recipe(case, "recursive", chunk_tokens=case.completion)}
        ours = Ours(folder, forms[side])
        between(0, None)
        between(1, ours.step(batch, 1))
    return {"bytes": _status("VmHWM") - level, "cpu": cpu}


def _status(name: str) -> int:
    """A figure of this process in bytes. Not `getrusage`: that begins with the parent's peak."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Case.read, nargs="*", default=[Case.read(case) for case in CASES])
    parser.add_argument("--memory", type=Case.read, nargs="*", default=[Case.read("900/300/8")], help="cases to take peaks of")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", nargs=3, metavar=("SIDE", "MODEL", "CASE"), help="one step of one side; what --memory calls")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # of TRL's use of transformers
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        side, folder, case = arguments.peak
        print(json.dumps(peak(side, folder, Case.read(case))))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_model(f"{folder}/model")
        rate = matrix_rate()
        print(f"{arguments.threads} threads, {rate / 1e9:.0f} GFLOP a second of CPU time in a matrix product", flush=True)
        for case in arguments.cases:
            compare(case, f"{folder}/model", arguments.repeats, rate)
        for case in arguments.memory:
            memory(case, f"{folder}/model", arguments.threads)


if __name__ == "__main__":
    main()
