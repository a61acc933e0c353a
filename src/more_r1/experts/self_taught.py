"""The expert that needs no other: a model that teaches itself to reason, as STaR does (Zelikman et al. 2022, arXiv 2203.14465).

In each round a model answers the drawn pairs without the gold. What it gets right, by the filter, is kept; where it is wrong it
is shown the gold and must give the reasons (STaR's rationalisation), and the same filter judges. The next round's model is the
original one, fine-tuned on the last round's traces: each is learnt twice, once as the student will be asked and once with the
gold shown, so that the model learns both to answer and to give reasons.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from rich.console import Console

from more_r1.experts.desk import Desk, Request
from more_r1.experts.filter import Bounds, judge_trace
from more_r1.experts.journal import TRACES, Lines
from more_r1.experts.question import known_types
from more_r1.experts.reply import Reply
from more_r1.formats.oracle import OracleFact, write_oracle
from more_r1.formats.traces import Key, TraceRecord, read_completions, read_traces
from more_r1.models.load import fingerprint, load_backbone
from more_r1.models.sampling import Sampling, rollout_seed, sample
from more_r1.reasoning.prompt import Prompt, PromptForm
from more_r1.training.examples import Example, draw, launched
from more_r1.training.recipe import Recipe, RecipeError
from more_r1.training.samples import Sample
from more_r1.training.sft import SftRecipe, run_sft

EXPERT = "self_taught"
# Pairs that are asked at a time: enough to fill the machine, few enough to lose little to a kill.
CHUNK = 192


class SelfTaught(Recipe):
    """How a model teaches itself."""

    kind: Literal["self_taught"]
    model: str
    """A model folder or hub name."""
    rounds: int = Field(default=3, ge=1)
    """How often the pairs are asked; the last round's traces are the result."""
    examples: Path | None = None
    """Traces written by hand, JSONL as stage 1 reads it: the first round's model is fine-tuned on them. For a model that cannot
    be told the form in words."""
    example_share: float = Field(default=1.0, gt=0, le=1)
    """Of the drawn pairs of each class, the share whose examples are learnt."""
    example_epochs: int = Field(default=20, ge=1)
    """Passes over the examples; few examples need many."""
    tries: int = Field(default=2, ge=1)
    """How often a round may ask for a pair without the gold, and as often with it."""
    sampling: Sampling = Sampling(temperature=0.7)
    """How answers and reasons are drawn."""
    max_new_tokens: int = Field(default=512, ge=1)
    seed: int = 0
    sft: SftRecipe
    """The fine-tuning of each round: all but `out`, `model`, `data`, `traces`, `share`, `draw_seed`, which are filled in."""

    @model_validator(mode="before")
    @classmethod
    def _hand_on(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "model" not in given or not isinstance(given.get("sft", {}), dict):
            return given  # pydantic says what is wrong
        common = {key: given[key] for key in ("seed", "max_new_tokens") if key in given}
        filled = {"out": ".", "data": ".", "model": given["model"]}
        return {**given, "sft": {**filled, **common, **(given.get("sft") or {})}}


def ask_self_taught(
    expert: SelfTaught,
    samples: Sequence[Sample],
    data: Path,
    share: float,
    draw_seed: int,
    bounds: Bounds,
    out: Path,
    desk: Desk,
) -> None:
    """Settle all that is pending with the calls of the last round; the desk must allow `2 * expert.tries` of them a pair.

    Raises as `teach`, and RecipeError in a run of several processes: it would train in one of them alone.
    """
    pending = desk.pending()
    if not pending:
        return
    if launched().num_processes > 1:
        raise RecipeError(
            "expert.kind=self_taught trains in one process; let one write all traces (`more-r1 annotate`, or `more-r1 train "
            "--until annotate`), then give this command again"
        )

    def tell(done: int, pairs: int) -> None:
        desk.figures.waiting = f"{done} of {pairs} pairs of a round"
        desk.tell()

    records = teach(expert, samples, data, share, draw_seed, bounds, out, tell)
    calls = {(record.key, record.attempt): record for record in records}
    desk.figures.waiting = ""
    for first in pending:
        request: Request | None = first
        while request is not None:
            record = calls[request.call]
            reply = Reply(EXPERT, record.fingerprint, record.completion, tokens_out=record.tokens_out)
            request = desk.settle(request, reply)


def teach(
    expert: SelfTaught,
    samples: Sequence[Sample],
    data: Path,
    share: float,
    draw_seed: int,
    bounds: Bounds,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
) -> list[TraceRecord]:
    """All rounds over `samples`, the pairs of `data` that `share` and `draw_seed` draw; the records of the last round.

    A pair is asked at most `expert.tries` times without the gold and as often with it; `attempt` counts both, so one that is
    above `tries` was shown the gold. Round n has the folder `out/round-n`: sft/, the fine-tuning of its model (not in round 0
    without examples), and traces.jsonl. A run that was killed goes on where it was. `progress` is told (pairs done, pairs in
    all) of a round. Raises RecipeError and FormatError for examples that cannot be used, and where no trace was accepted.
    """
    console = Console()
    samples = list({one.key: one for one in samples}.values())
    records: list[TraceRecord] = []
    for number in range(expert.rounds):
        folder = out / f"round-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        filled: dict[str, Any] = {"data": data, "share": share, "draw_seed": draw_seed, "out": folder / "sft"}
        if number:
            filled |= {"traces": out / f"round-{number - 1}" / TRACES}
            if not any(record.accepted for record in records):
                raise RecipeError(f"{filled['traces']}: no trace was accepted, nothing is there to learn from; give examples")
        elif expert.examples is not None:
            filled |= {"traces": folder / "examples.jsonl", "epochs": expert.example_epochs}
            _choose(expert, samples, draw_seed, filled["traces"])
        learns = "traces" in filled
        tuning = expert.sft.model_copy(update={"model": expert.model, **filled})
        model = str(run_sft(tuning, also=with_gold).model) if learns else expert.model
        records = _ask(expert, model, number, samples, bounds, folder / TRACES, progress)
        console.print(f"round {number}: {summary(records, expert.tries)}", soft_wrap=True)
    return records


def with_gold(example: Example, form: PromptForm) -> Example:
    """The same completion to the question that shows its answer."""
    _, _, answer = example.completion.rpartition("<answer>")
    answer = answer.partition("</answer>")[0].strip()
    return replace(example, prompt=show_gold(example.prompt, answer, form))


def show_gold(prompt: Prompt, label: str, form: PromptForm) -> Prompt:
    """The question with the gold label in the pair's own segment, behind all that is shared."""
    hint = f"\nAnswer: {label}"
    if form.wording == "full":
        hint = (
            f"\nFor you alone, where the reasoning must arrive: {label}. Lead there by what can be seen and read, and let "
            "nothing show that you were told."
        )
    *shared, own = prompt.segments
    return Prompt((*shared, (*own, hint)))


def summary(records: Sequence[TraceRecord], tries: int) -> str:
    """What became of the pairs of one round, in a line."""
    final = [record for record in records if record.final]
    verdicts = Counter(record.verdict for record in final if not record.accepted)
    own = sum(record.accepted and record.attempt <= tries for record in final)
    shown = sum(record.accepted for record in final) - own
    rest = ", ".join(f"{name} {count}" for name, count in verdicts.most_common())
    return f"{own} of {len(final)} pairs right, {shown} more with the gold shown" + (f"; left out: {rest}" if rest else "")


def _choose(expert: SelfTaught, samples: Sequence[Sample], draw_seed: int, file: Path) -> None:
    """Write the examples that are to be learnt."""
    assert expert.examples is not None
    try:
        written = read_completions(expert.examples)
    except OSError as error:
        raise RecipeError(f"expert.examples={expert.examples}: cannot be read ({error.strerror}); give JSONL") from error
    chosen = [samples[index] for index in draw([one.label for one in samples], expert.example_share, draw_seed)]
    keys = [one.key for one in chosen if one.key in written]
    write_oracle((OracleFact(img_id=i, object=o, span=s, completion=written[i, o, s]) for i, o, s in keys), file)


def _ask(
    expert: SelfTaught,
    model: str,
    number: int,
    samples: Sequence[Sample],
    bounds: Bounds,
    file: Path,
    progress: Callable[[int, int], None] | None,
) -> list[TraceRecord]:
    """One round: the records that are there already, and those of the pairs that are left."""
    lines = Lines(file)
    try:
        records = read_traces(file)
        calls = {(record.key, record.attempt): record for record in records}
        done = {record.key for record in records if record.final}
        # A chunk is asked again as a whole: what is asked together decides the last bit of a rounding.
        chunks = [samples[start : start + CHUNK] for start in range(0, len(samples), CHUNK)]
        chunks = [chunk for chunk in chunks if not all(one.key in done for one in chunk)]
        asker = _Asker(expert, model, number, bounds) if chunks else None
        for chunk in chunks:
            assert asker is not None
            for record in asker.ask(chunk, calls):
                if (record.key, record.attempt) not in calls:
                    lines.append(record.model_dump())
                    records.append(record)
            done.update(one.key for one in chunk)
            if progress is not None:
                progress(len(done), len(samples))
    finally:
        lines.close()
    return records


class _Asker:
    """A round's model at work."""

    def __init__(self, expert: SelfTaught, model: str, number: int, bounds: Bounds) -> None:
        if expert.sft.threads is not None:
            torch.set_num_threads(expert.sft.threads)
        backbone = load_backbone(model)
        self._backbone = replace(backbone, form=expert.sft.form.over(backbone.form))
        if self._backbone.form.reasoning == "none":
            raise RecipeError(f"expert.model={expert.model}: answers without reasoning; set expert.sft.form.reasoning=steps")
        self._weights = fingerprint(self._backbone)
        self._expert, self._number, self._bounds = expert, number, bounds
        self._schema = expert.sft.relations

    def ask(self, chunk: Sequence[Sample], told: Mapping[tuple[Key, int], TraceRecord]) -> Iterator[TraceRecord]:
        """A record of every call: all pairs are asked, then again those whose traces were rejected. What an earlier run was
        `told` counts, for a GPU, or another number of threads, may draw something else."""
        left, last = list(chunk), 2 * self._expert.tries
        for attempt in range(1, last + 1):
            prompts = [self._prompt(one, shown=attempt > self._expert.tries) for one in left]
            seeds = [rollout_seed(self._expert.seed, self._number, (EXPERT, *one.key), attempt) for one in left]
            rollouts = sample(
                self._backbone, prompts, [[seed] for seed in seeds], self._expert.sampling, self._expert.max_new_tokens
            )
            rejected = []
            for one, prompt, seed, (rollout,) in zip(left, prompts, seeds, rollouts, strict=True):
                verdict = judge_trace(rollout.text, one.label, known_types(one), self._schema, self._bounds)
                before = told.get((one.key, attempt))
                if not (verdict if before is None else before).accepted:
                    rejected.append(one)
                image, object, span = one.key
                yield TraceRecord(
                    img_id=image,
                    object=object,
                    span=span,
                    label=one.label,
                    expert=EXPERT,
                    fingerprint=self._fingerprint(prompt, seed),
                    attempt=attempt,
                    completion=rollout.text,
                    verdict=verdict.name,
                    reason=verdict.reason,
                    final=verdict.accepted or attempt == last,
                    tokens_out=len(rollout.ids),
                )
            left = rejected

    def _prompt(self, one: Sample, shown: bool) -> Prompt:
        prompt = one.prompt(self._schema, self._backbone.form)
        return show_gold(prompt, one.label, self._backbone.form) if shown else prompt

    def _fingerprint(self, prompt: Prompt, seed: int) -> str:
        how = f"{self._weights} {self._expert.sampling.model_dump_json()} {self._expert.max_new_tokens} {seed}"
        digest = hashlib.sha256(how.encode())
        for part in (part for segment in prompt.segments for part in segment):
            about = part if isinstance(part, str) else f"{_digest(part.source)} {part.box} {part.pixels}"
            digest.update(about.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()


@lru_cache(maxsize=2)  # the pairs of a document come one after another
def _digest(source: Path | bytes) -> str:
    return hashlib.sha256(source if isinstance(source, bytes) else source.read_bytes()).hexdigest()
