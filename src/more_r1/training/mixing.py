"""Which pairs an epoch of stage 2 learns from, and in which order: a pure function of pools, settings, seed and epoch.

The paper splits what stage 1 left by the answers of its model: wrong is hard, right is easy. Epoch t = 1, 2, ... uses all hard
pairs and alpha^(t-1) times as many easy ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import fsum, log1p
from random import Random
from typing import Literal, Self

from pydantic import Field, model_validator

from more_r1.training.measured import Measured
from more_r1.training.recipe import Recipe


class Mixing(Recipe):
    """How the pools are mixed; the defaults are the paper's."""

    preset: Literal["raw", "hard_only", "fixed", "progressive"] = "progressive"
    """`raw`: all pairs, as they come. `hard_only`: no easy ones. `fixed`: as many easy as hard ones (alpha = 1)."""
    alpha: float = Field(default=0.5, gt=0, le=1)
    """Of `progressive` only: in epoch t there are alpha^(t-1) easy pairs to a hard one."""
    stratified: bool = False
    """Draw the easy pairs evenly over their gold labels, as far as each label has enough, instead of as they come.

    Hard pairs are wrong by definition, so greedy stage 1 is right on the easy share of an epoch only. Always answering `none`
    may earn more, and GRPO then collapses to it. It earns no more exactly if there are at least as many easy pairs with a
    relation as hard ones without. On the embedded benchmark stage 1 is right on 91 % of its pool; `none` are 43 % of the hard
    pairs and 80 % of the easy ones. So in epoch 1, where stage 1 has 50 %, always `none` has 61 % if easy pairs are drawn as
    they come, 43 % with the label shares of the hard ones, 24 % evenly. Easy relations alone would do for it, too, but then
    nothing would hold the model to its right `none`s; drawn evenly, `none` is one label of 21, and takes what the others lack.

    Where the easy pairs are fewer than the hard `none`s no draw can do it: with alpha = 0.5 always `none` has 35 and 38 %
    in epochs 3 and 4, stage 1 20 and 11 %; the model must have learned by then. With `fixed` it holds in every epoch.
    """
    weighting: Literal["none", "pass_rate"] = "none"
    """`pass_rate`: pairs are drawn by their `learnability`, so that those of the highest come first. Of the hard ones (`raw`:
    of all) only as many are used as their learnability amounts to, in units of the highest: none that failed each time. One
    answer tells no two apart."""
    remeasure: bool = False
    """Ask the pool again after each epoch and split it anew, for the model has changed."""

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.preset != "progressive" and self.alpha != Mixing.model_fields["alpha"].default:
            raise ValueError(f"alpha={self.alpha:g} is of preset progressive; {self.preset} has no use for it")
        if self.stratified and self.preset in ("raw", "hard_only"):
            raise ValueError(f"stratified is of presets that draw easy pairs; {self.preset} draws none")
        return self

    def easy_drawn(self, hard: int, easy: int, epoch: int) -> int:
        """How many of the easy pairs come to so many hard ones in epoch 1, 2, ..., but for `raw`; halves are rounded up."""
        ratio = {"hard_only": 0.0, "fixed": 1.0}.get(self.preset, self.alpha ** (epoch - 1))
        return min(int(ratio * hard + 0.5), easy)


def order(easy: Sequence[Measured], hard: Sequence[Measured], epoch: int, mixing: Mixing, seed: int) -> list[Measured]:
    """The pairs of epoch 1, 2, ... in the order in which they are to be learned from; none is in it twice.

    Hard pairs: all. Easy ones: as many as `Mixing.easy_drawn` says. Each epoch goes on drawing where the one before ended, so
    that of a pool (with `stratified`, of each label's) no pair is drawn again before all have been. Documents are shuffled by
    seed and epoch; the pairs of a document stay together, for they share their prefix. Without hard pairs there is nothing, but
    for `raw`. The pools may differ from epoch to epoch: what was drawn before is then what these would have given.
    """
    if epoch < 1:
        raise ValueError(f"epoch={epoch}: epochs count from 1")
    if mixing.preset == "raw":
        taken = _used([*easy, *hard], mixing, f"{seed} raw {epoch}")
    else:
        taken = _used(hard, mixing, f"{seed} hard {epoch}")
        classes: dict[str, list[Measured]] = defaultdict(list)
        for one in easy:
            classes[one.label if mixing.stratified else ""].append(one)
        totals = [mixing.easy_drawn(len(taken), len(easy), t) for t in range(1, epoch + 1)]
        quotas = [_evenly(total, classes) for total in totals]
        for label, members in classes.items():
            taken += _drawn(members, [quota[label] for quota in quotas], mixing, f"{seed} easy {label}")

    documents: dict[str, list[Measured]] = defaultdict(list)
    for one in sorted(taken, key=lambda one: one.key):  # so that the order of the pools does not matter
        documents[one.document].append(one)
    names = list(documents)
    Random(f"{seed} documents {epoch}").shuffle(names)
    return [one for name in names for one in documents[name]]


def _used(pool: Sequence[Measured], mixing: Mixing, seed: str) -> list[Measured]:
    """All of the pool; weighted, as many as its learnability amounts to in units of the highest there."""
    if mixing.weighting == "none" or not pool:
        return list(pool)
    weights = [one.learnability for one in pool]
    if not any(weights):
        return []
    # fsum: a plain sum rounds by the order of the pool, which must not decide whether a half is reached.
    return _permuted(pool, mixing, seed)[: int(fsum(weights) / max(weights) + 0.5)]


def _permuted(pool: Sequence[Measured], mixing: Mixing, seed: str) -> list[Measured]:
    """A random order; weighted, as if drawn one after another by weight (Efraimidis and Spirakis 2006).

    Each pair draws its own number, so pools that differ little are ordered almost alike. Those of weight 0 come last.
    """

    def waited(one: Measured) -> tuple[bool, float]:
        """Until the first event, if events come at the rate of the weight."""
        weight = one.learnability if mixing.weighting == "pass_rate" else 1.0
        return weight == 0, -log1p(-Random(f"{seed} {one.key}").random()) / (weight or 1.0)

    return sorted(pool, key=waited)


def _evenly(total: int, classes: dict[str, list[Measured]]) -> dict[str, int]:
    """How many to draw of each class, `total` in all: the same number of each, or all of a class that has fewer."""
    quotas, left = {}, total
    for done, name in enumerate(sorted(classes, key=lambda name: (len(classes[name]), name))):
        quotas[name] = min(len(classes[name]), left // (len(classes) - done))
        left -= quotas[name]
    return quotas


def _drawn(pool: Sequence[Measured], quotas: Sequence[int], mixing: Mixing, seed: str) -> list[Measured]:
    """What the last of several draws takes, if each goes on in a random order of the pool where the one before ended.

    An order that ends is followed by a new one, in which the pairs that the running draw has already come last.
    """
    queue: list[Measured] = []
    drawn: list[Measured] = []
    rounds = 0
    for quota in quotas:
        drawn, queue = queue[:quota], queue[quota:]
        if len(drawn) < quota:
            rounds += 1
            has = {one.key for one in drawn}
            fresh = sorted(_permuted(pool, mixing, f"{seed} {rounds}"), key=lambda one: one.key in has)
            missing = quota - len(drawn)
            drawn, queue = drawn + fresh[:missing], fresh[missing:]
    return drawn
