"""Three ways to lay out the same rollouts, and how many tokens each of them computes.

`repeated`: every rollout has a prompt of its own, as stock TRL has it. `group`: the rollouts of a pair share its prompt.
`document`: pairs of a document share its picture and headline too, and all of a forest share the instruction.
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from more_r1.training.plan.cost import Level
from more_r1.training.recipe import Recipe

Layout = Literal["repeated", "group", "document"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


class Lengths(Recipe):
    """Lengths in tokens; those of text take in the chat template's marks."""

    instruction: float = Field(ge=1)
    """Instruction and labels, the same everywhere."""
    whole: float = Field(ge=1)
    """The whole picture."""
    headline: float = Field(ge=1)
    crop: float = Field(ge=1)
    question: float = Field(ge=1)
    """The pair's own words."""
    completion: float = Field(ge=2)

    @property
    def document(self) -> float:
        """What the pairs of a document share."""
        return self.whole + self.headline

    @property
    def pair(self) -> float:
        """What the rollouts of a pair share beyond that."""
        return self.crop + self.question

    @property
    def prompt(self) -> float:
        """All that comes before a completion."""
        return self.instruction + self.document + self.pair


def prompts(lengths: Lengths, layout: Layout, pairs: float, group: int, met: float) -> list[Level]:
    """The prompts of one forest of so many pairs with `group` rollouts each; `met` pairs share a document."""
    both = (lengths.whole, lengths.crop)
    if layout == "repeated":
        return [Level(pairs * group, lengths.prompt, pictures=both)]
    if layout == "group":
        return [Level(pairs, lengths.prompt, pictures=both)]
    return [
        Level(1, lengths.instruction),
        Level(pairs / min(met, pairs), lengths.document, lengths.instruction, both[:1]),
        Level(pairs, lengths.pair, lengths.instruction + lengths.document, both[1:]),
    ]


def answered(lengths: Lengths, layout: Layout, pairs: float, group: int, met: float) -> list[Level]:
    """The same with their completions. Nothing follows the last token of one; a forest does not compute it, stock does."""
    before = prompts(lengths, layout, pairs, group, met)
    if layout == "repeated":
        return [before[0]._replace(tokens=lengths.prompt + lengths.completion)]
    return [*before, Level(pairs * group, lengths.completion - 1, lengths.prompt)]
