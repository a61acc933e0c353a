"""Do completions that are held to the form end in a label, whatever is drawn? As in docs/relations.md.

    python studies/constrained.py --model tiny --data data/embedded --completions 10000

Each is drawn at temperature 2 with a seed of its own, about the pairs of a split in turn. The share of free completions that
do is drawn beside them, from fewer. With `--types` the answer must also be one that the types of step 4 allow.
"""

from __future__ import annotations

import argparse
from collections import Counter
from itertools import cycle, islice
from pathlib import Path

import torch

from more_r1.formats import load_documents
from more_r1.models.generate import generate
from more_r1.models.load import load_backbone
from more_r1.models.sampling import Sampling, rollout_seed
from more_r1.reasoning.prompt import build_prompt
from more_r1.reasoning.trace import TraceError, parse_trace
from more_r1.schema import Schema

CHUNK = 250


def main() -> None:
    """Draw, parse, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--data", type=Path, default=Path("data/embedded"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--schema", type=Path, help="by default MORE's")
    parser.add_argument("--completions", type=int, default=10_000)
    parser.add_argument("--free", type=int, default=250)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--max-new-tokens", type=int, default=112)
    parser.add_argument("--types", action="store_true")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    schema = Schema.more() if options.schema is None else Schema.load(options.schema)
    for held, count in ((False, options.free), (True, options.completions)):
        print(counted(options, schema, held, count), flush=True)


def counted(options: argparse.Namespace, schema: Schema, held: bool, count: int) -> str:
    """How many of so many completions parse, and how many of those that name types answer what these allow."""
    backbone = load_backbone(options.model)
    pairs = [(d, p) for d in load_documents(options.data, options.split)[:CHUNK] for p in d.pairs]
    asked = islice(cycle(pairs), count)
    label, typed, fit = 0, 0, 0
    faults: Counter[str] = Counter()
    for start in range(0, count, CHUNK):
        prompts = [build_prompt(d, p, schema, backbone.form) for d, p in islice(asked, CHUNK)]
        texts = generate(
            backbone,
            prompts,
            options.max_new_tokens,
            keep_form=schema if held else None,
            types=options.types,
            sampling=Sampling(temperature=options.temperature),
            seeds=[rollout_seed(0, 0, "constrained", start + number) for number in range(len(prompts))],
        )
        for text in texts:
            try:
                trace = parse_trace(text, schema, backbone.form.reasoning)
            except TraceError as error:
                faults[str(error)[:40]] += 1
                continue
            label += 1
            if trace.types is not None:
                typed += 1
                fit += trace.answer in schema.candidates(*trace.types)
    how = "held to the form" if held else "free"
    common = "".join(f"; {fault} ({number})" for fault, number in faults.most_common(3))
    return f"{how}: {label} of {count} end in a label; of {typed} that name types {fit} answer what these allow{common}"


if __name__ == "__main__":
    main()
