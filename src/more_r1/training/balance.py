"""Who learns what of a step: each process a run of neighbours, such that the largest forest has as few tokens as can be.

Neighbours share prefixes, which every process that has one of them computes anew: what an item costs depends on whether it is
the first of its part.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import gather_object

from more_r1.models.processor import Encoder
from more_r1.reasoning.prompt import Prompt
from more_r1.training.examples import share

T = TypeVar("T")


def balanced(
    items: Sequence[T], prompts: Sequence[Prompt], behind: Sequence[int], encoder: Encoder, accelerator: Accelerator
) -> Sequence[T]:
    """This process's part of the items, each of which is a prompt with so many tokens behind it. All processes call it, with
    the same; raises as Encoder.prompt does."""
    count = accelerator.num_processes
    if count == 1:
        return items
    # How many tokens pictures are is known only when they are read, so that each process counts an equal part.
    counted = [[len(segment.ids) for segment in encoder.prompt(prompt)] for prompt in share(prompts, accelerator)]
    bounds = cut(costs(prompts, gather_object(counted), behind), count)
    bounds += [len(items)] * (count + 1 - len(bounds))  # there may be fewer parts than processes, and none
    rank = accelerator.process_index
    return items[bounds[rank] : bounds[rank + 1]]


def costs(prompts: Sequence[Prompt], segments: Sequence[Sequence[int]], behind: Sequence[int]) -> list[tuple[int, int]]:
    """Of each item the tokens that it adds to a forest, as its first item and behind its neighbour; `segments` are the tokens
    of each segment of its prompt."""
    found = []
    before: Prompt | None = None
    for prompt, sizes, more in zip(prompts, segments, behind, strict=True):
        shared = 0
        for size, one, other in zip(sizes, prompt.segments, before.segments if before else (), strict=False):
            if one != other:
                break
            shared += size
        found.append((sum(sizes) + more, sum(sizes) + more - shared))
        before = prompt
    return found


def cut(costs: Sequence[tuple[int, int]], count: int) -> list[int]:
    """Where at most `count` parts begin, such that the largest costs as little as can be. What an item shares with its
    neighbour is no more than either has, so that no part costs less than one of its items alone."""

    def starts(most: int) -> list[int]:
        found: list[int] = []
        held = 0
        for number, (first, behind) in enumerate(costs):
            if number and held + behind <= most:
                held += behind
            else:
                found.append(number)
                held = first
        return found

    if not costs:
        return []
    least, most = max(first for first, _ in costs), sum(first for first, _ in costs)
    bounds = range(least, most + 1)
    return starts(bounds[bisect_left(bounds, True, key=lambda bound: len(starts(bound)) <= count)])
