"""What a step learns from: examples, drawn class by class, packed into batches by document."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import TypeVar

from accelerate import Accelerator, PartialState
from accelerate.utils import parse_flag_from_env

from more_r1.reasoning.prompt import Prompt

T = TypeVar("T")


@dataclass(frozen=True)
class Example:
    """A prompt and the completion to learn; `weight` multiplies the loss, of all its tokens or of each by its own."""

    prompt: Prompt
    completion: str
    weight: float | tuple[float, ...] = 1.0


@dataclass(frozen=True)
class Batch:
    """The examples of one optimizer step, over all processes; `epoch` and `stage` say where in the run it lies."""

    examples: tuple[Example, ...]
    epoch: float
    stage: str | None = None


def launched() -> PartialState:
    """The processes of this run, as `accelerate launch` started them.

    accelerate heeds its own ACCELERATE_USE_CPU in an Accelerator only: a state made before that would leave each process of a
    run on CPUs alone. The others wait as long as one evaluates, not just the ten minutes of NCCL.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=timedelta(days=1))


def share(items: Sequence[T], processes: PartialState | Accelerator) -> Sequence[T]:
    """This process's part of them, neighbours together, since they share prefixes; equal parts by number."""
    rank, count = processes.process_index, processes.num_processes
    return items[len(items) * rank // count : len(items) * (rank + 1) // count]


def draw(labels: Sequence[str], share: float, seed: int) -> list[int]:
    """Which pairs to take, as sorted indices, if `share` of every relation class is to be drawn (stage 1's 25 %).

    From a class of n pairs max(1, round(share * n)) are taken, halves rounded up. A pure function of its arguments; each class
    is drawn by itself, so another class's pairs change nothing. The other indices are the pool of stage 2.
    Raises ValueError where share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share:g}: give a number above 0 and at most 1")
    classes: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        classes[label].append(index)
    taken: list[int] = []
    for label, members in classes.items():
        taken += Random(f"{seed} {label}").sample(members, max(1, int(share * len(members) + 0.5)))
    return sorted(taken)


def pack(sizes: Sequence[int], most: int, seed: int, epoch: int) -> list[list[tuple[int, int]]]:
    """One epoch's batches as (document, its pair) for documents with `sizes` pairs, at most `most` pairs a batch.

    Documents are shuffled by seed and epoch, their pairs stay together, so that a batch shares their prefixes; a document
    with more than `most` pairs is split.
    """
    order = list(range(len(sizes)))
    Random(f"{seed} {epoch}").shuffle(order)
    batches: list[list[tuple[int, int]]] = [[]]
    for document in order:
        pairs = [(document, pair) for pair in range(sizes[document])]
        for start in range(0, len(pairs), most):
            piece = pairs[start : start + most]
            if len(batches[-1]) + len(piece) > most:
                batches.append([])
            batches[-1] += piece
    return [batch for batch in batches if batch]


class Epochs(Sequence[Batch]):
    """All batches of `epochs` passes over examples that are grouped by document; batch i is step i + 1 of the run."""

    def __init__(self, documents: Sequence[Sequence[Example]], epochs: int, most: int, seed: int):
        sizes = [len(examples) for examples in documents]
        self._documents = documents
        self._batches: list[tuple[float, list[tuple[int, int]]]] = []
        for epoch in range(epochs):
            packed = pack(sizes, most, seed, epoch)
            self._batches += [(epoch + (i + 1) / len(packed), batch) for i, batch in enumerate(packed)]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]  # slices are not needed
        epoch, members = self._batches[index]
        return Batch(tuple(self._documents[document][pair] for document, pair in members), epoch)
