"""Single-modality probes: the best that a rule can reach which sees only the headline, or only the picture.

    python studies/probes.py --seeds 0 1 2 --out runs/probes.json

Each probe is a Bayes rule on what its modality holds, taken from the world itself rather than learned from pixels or words,
so it is an upper bound for models of that modality. The text-only rule knows, of the entity asked about: its kind, whether it
stands by nickname, its place in the headline, and all that the headline says of it. The image-only rule knows of the object:
its kind, what it wears, how clear it is, the scene, and who else in the picture wears the same. P(label | key) is counted on
train, a key seen fewer than RARE times gives way to a coarser one. The rule answers the most likely label other than `none`
where its probability reaches a threshold, else `none`; the threshold is the one of best micro-F1 on train. Figures are those
of test: mean and standard deviation over the seeds, each a benchmark of the default size. By hop it
is recall: pairs without a relation have no hops, so there is no precision.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from more_r1.reasoning.scoring import Scores, score
from more_r1.schema import NONE
from more_r1.synthetic.benchmark import DEFAULT_DOCUMENTS, drafts_of
from more_r1.synthetic.drafts import Draft
from more_r1.synthetic.story import Mention, Story, judge
from more_r1.synthetic.world import EVERYONE, Thing

RARE = 15
HOPS = (1, 2, 3, 4)
FIGURES = ("accuracy", "precision", "recall", "f1")
Keys = tuple[tuple[object, ...], ...]
"""What a rule sees of a pair, from all of it to the least."""


@dataclass(frozen=True)
class Case:
    """One pair: its label, its hops, and the keys of both modalities."""

    label: str
    hops: int | None
    text: Keys
    image: Keys


def cases(draft: Draft) -> list[Case]:
    """All pairs of a document."""
    found = []
    for mention in draft.asked:
        told = text_keys(mention, draft)
        for thing in draft.things:
            verdict = judge(thing, mention, draft.story)
            found.append(Case(verdict.label, verdict.hops, told, image_keys(thing, draft)))
    return found


def text_keys(mention: Mention, draft: Draft) -> Keys:
    """What the headline tells of the entity. What only the scene would say is not in it: it is in the picture."""
    story, name, kind = draft.story, mention.name, EVERYONE[mention.name].kind
    facts = tuple(
        sorted((f.label, "a" if f.a == name else "b") for f in story.facts if f.how != "scene" and name in (f.a, f.b))
    )
    beside = tuple(
        sorted((EVERYONE[a].kind, EVERYONE[b].kind, "a" if a == name else "b") for a, b in story.beside if name in (a, b))
    )
    said = (facts, beside, _match_roles(name, story))
    asked = len(draft.asked)
    place = (story.mentions.index(mention), min(len(story.mentions), 4), mention.alias)
    return (kind, said, asked, *place), (kind, said, asked, mention.alias), (kind, said, asked > 1), (kind, asked > 1), (kind,)


def _match_roles(name: str, story: Story) -> tuple[object, ...]:
    """Its part in a match: whether it plays, has a player named, faces one, is a player, or is an event with clubs."""
    rivals = story.opponents(name)
    return (
        len(rivals),
        any(club == name for _, club in story.plays),
        any(club in rivals for _, club in story.plays),
        any(player == name for player, _ in story.plays),
        sum(name in pair for pair in story.attends),
    )


def image_keys(thing: Thing, draft: Draft) -> Keys:
    """What the picture shows of the object and of its company."""
    if thing.type == "misc":
        return (("misc",),)
    others = [other for other in draft.things if other is not thing and other.type != "misc"]
    badge = thing.badge[0] if thing.badge else ""
    look = (thing.kind, bool(thing.kit), badge, bool(thing.ring))
    shared = (
        any(thing.kit and other.kit == thing.kit for other in others),
        any((thing.kit and other.who == thing.kit) or thing.who == other.kit for other in others),
        any(thing.badge and thing.badge[1] and other.badge and other.badge[1] == thing.badge[1] for other in others),
        any(thing.ring and other.ring == thing.ring for other in others),
        thing.kind == "city" and any(o.kind == "city" and EVERYONE[o.who].home == EVERYONE[thing.who].home for o in others),
    )
    scene, count = draft.story.scene, len(draft.things)
    return (
        (*look, *shared, scene, min(count, 4)),
        (*look, *shared, scene, count > 1),
        (*look, scene, count > 1),
        (*look, count > 1),
    )


class Rule:
    """P(label | key) as counted, and the threshold that a label other than `none` has to exceed."""

    def __init__(self, keys: Sequence[Keys], labels: Sequence[str]) -> None:
        self._counts: defaultdict[tuple[int, tuple[object, ...]], Counter[str]] = defaultdict(Counter)
        for own, label in zip(keys, labels, strict=True):
            for level, key in enumerate(reversed(own)):
                self._counts[level, key][label] += 1
        guesses = [self._guess(own) for own in keys]
        self.threshold = max(
            (probability for _, probability in set(guesses)),
            key=lambda t: score(labels, [label if p >= t else NONE for label, p in guesses]).f1,
        )

    def answer(self, keys: Keys) -> str:
        """The label of a pair that shows these keys."""
        label, probability = self._guess(keys)
        return label if probability >= self.threshold else NONE

    def _guess(self, keys: Keys) -> tuple[str, float]:
        """The likeliest label but `none`, with its probability by the finest key that is not rare."""
        levels = list(enumerate(reversed(keys)))
        found = next((c for c in (self._counts.get(level) for level in reversed(levels)) if c and c.total() >= RARE), Counter())
        positive = max((label for label in found if label != NONE), key=lambda label: (found[label], label), default=NONE)
        return positive, found[positive] / found.total() if positive != NONE else 0.0


def probe(seed: int, documents: int) -> dict[str, dict[str, Scores]]:
    """The scores of each rule on test, overall and by hop, on the benchmark of one seed."""
    train, test = ([c for d in drafts_of(split, documents, seed) for c in cases(d)] for split in ("train", "test"))
    labels = [case.label for case in train]
    text, image = Rule([case.text for case in train], labels), Rule([case.image for case in train], labels)
    answers = {
        "text only": [text.answer(case.text) for case in test],
        "image only": [image.answer(case.image) for case in test],
        "always none": [NONE for _ in test],
    }
    gold = [case.label for case in test]
    found: dict[str, dict[str, Scores]] = {}
    for name, given in answers.items():
        found[name] = {"all": score(gold, given)}
        for hops in HOPS:
            chosen = [index for index, case in enumerate(test) if case.hops == hops]
            found[name][f"hop {hops}"] = score([gold[i] for i in chosen], [given[i] for i in chosen])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--documents", type=int, default=DEFAULT_DOCUMENTS)
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    runs = {seed: probe(seed, options.documents) for seed in options.seeds}

    table = Table("probe", "accuracy", "precision", "recall", "F1", *(f"recall, hop {hops}" for hops in HOPS))
    means: dict[str, dict[str, tuple[float, float]]] = {}
    for name in next(iter(runs.values())):
        figures = {figure: [getattr(run[name]["all"], figure) for run in runs.values()] for figure in FIGURES}
        figures |= {f"recall at hop {hops}": [run[name][f"hop {hops}"].recall for run in runs.values()] for hops in HOPS}
        means[name] = {
            figure: (statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else 0.0) for figure, v in figures.items()
        }
        table.add_row(name, *(f"{100 * mean:.1f} ± {100 * deviation:.1f}" for mean, deviation in means[name].values()))
    Console(width=140).print(table)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        each = {
            seed: {name: {part: s.model_dump() for part, s in by.items()} for name, by in run.items()}
            for seed, run in runs.items()
        }
        content = {"documents": options.documents, "mean and deviation": means, "seeds": each}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
