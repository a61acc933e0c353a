"""Drafts: what each document of a split tells, shows and asks, before it is drawn.

Numbers are steered, not hoped for: the share of `none` in each bucket, the balance of the labels and the hops are kept
close to their aims while documents are made, so that small sets have them too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from more_r1.synthetic.compose import WAYS, Clause, ImpossibleError, aside, compose, tell
from more_r1.synthetic.story import Mention, Story, Verdict, judge
from more_r1.synthetic.world import BADGES, BY_KIND, EVERYONE, PLAIN, PROPS, Thing, held_out

# How many objects and entities a document has: 3.8 and 1.5 on average.
_OBJECTS = (1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 6, 6, 7, 8)
_ENTITIES = (1, 1, 1, 1, 1, 1, 2, 2, 2, 3)
# MORE's share of `none` where (several entities?, several objects?).
NONE_SHARE = {(False, False): 0.05, (False, True): 0.74, (True, False): 0.33, (True, True): 0.81}
# Aimed shares of the positives' hops; 3 and 4 together are to be at least a third.
_HOPS = {1: 0.24, 2: 0.36, 3: 0.28, 4: 0.12}
_TRIES = 40


@dataclass(frozen=True)
class Draft:
    """A document before it is drawn: its story, the names asked about and the things seen."""

    story: Story
    asked: tuple[Mention, ...]
    things: tuple[Thing, ...]

    def verdicts(self) -> list[list[Verdict]]:
        """One row a thing, one column a name."""
        return [[judge(thing, mention, self.story) for mention in self.asked] for thing in self.things]

    @property
    def positives(self) -> int:
        """How many of its pairs have a relation."""
        return sum(verdict.hops is not None for row in self.verdicts() for verdict in row)


@dataclass
class _Tally:
    """What a split has so far: what the next document should bring follows from it."""

    pairs: Counter[tuple[bool, bool]] = field(default_factory=Counter)
    positives: Counter[tuple[bool, bool]] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    hops: Counter[int] = field(default_factory=Counter)

    def add(self, draft: Draft) -> None:
        bucket = (len(draft.asked) > 1, len(draft.things) > 1)
        for row in draft.verdicts():
            for verdict in row:
                self.pairs[bucket] += 1
                if verdict.hops is not None:
                    self.positives[bucket] += 1
                    self.labels[verdict.label] += 1
                    self.hops[verdict.hops] += 1

    def wanted(self, entities: int, objects: int, random: Random) -> int:
        bucket = (entities > 1, objects > 1)
        aim = (self.pairs[bucket] + entities * objects) * (1 - NONE_SHARE[bucket]) - self.positives[bucket]
        spread = random.choice((-1, 0, 0, 1)) if objects > 1 else 0
        return min(max(round(aim) + spread, 0), entities * objects)

    def rarest(self, random: Random) -> str:
        labels = sorted(WAYS, key=lambda label: (self.labels[label], label))
        return random.choice(labels[:4])

    def way(self, label: str, random: Random) -> tuple[str, bool]:
        """A way to show the label and whether by nickname, so that the hops come out as aimed."""
        total = max(sum(self.hops.values()), 1)
        options = [(way, alias) for way in WAYS[label] for alias in (False, True)]
        lack = [_HOPS[WAYS[label][way] + alias] - self.hops[WAYS[label][way] + alias] / total for way, alias in options]
        if random.random() < 0.5:
            return options[lack.index(max(lack))]
        return random.choice(options)


def make_split(documents: int, seed: int, *, unseen: bool = False) -> Iterator[Draft]:
    """Drafts of one split; with `unseen` each document's main relation rests on a combination of names held out elsewhere.

    The same numbers give the same drafts.
    """
    random = Random(seed)
    tally = _Tally()
    objects, entities = _stratified(_OBJECTS, documents, random), _stratified(_ENTITIES, documents, random)
    for o, e in zip(objects, entities, strict=True):
        positives = tally.wanted(e, o, random)
        draft = _draft(o, e, positives, tally, random, unseen)
        tally.add(draft)
        yield draft


def _stratified(values: tuple[int, ...], count: int, random: Random) -> list[int]:
    """Each value as often as its share says, in random order."""
    if count < len(values):
        found = [values[i * len(values) // count] for i in range(count)]
    else:
        found = [values[i % len(values)] for i in range(count)]
    random.shuffle(found)
    return found


def _draft(objects: int, entities: int, positives: int, tally: _Tally, random: Random, unseen: bool) -> Draft:
    """The best of a few tries at as many positives as wanted, the main clause's label among them."""
    best: Draft | None = None
    least = objects * entities + 2  # more than any draft misses by
    while best is None:
        for _ in range(_TRIES):
            label = tally.rarest(random)
            way, alias = tally.way(label, random)
            if unseen and way == "same":
                continue
            try:
                main = compose(label, way, alias, random, fresh=unseen)
                draft = _stage(main, objects, entities, positives, random)
            except ImpossibleError:
                continue
            miss = abs(draft.positives - positives)
            if positives and main.thing is not None:
                target = next(m for m in draft.asked if m.name == main.slots[main.target].name)
                miss += judge(main.thing, target, draft.story).label != label
            if miss < least:
                best, least = draft, miss
            if miss == 0:
                break
    return best


def _stage(main: Clause, objects: int, entities: int, positives: int, random: Random) -> Draft:
    """Fill up headline and picture around the main clause until they have as many positives as wanted."""
    clauses = [main]
    while sum(len(clause.slots) for clause in clauses) < entities or (len(clauses) == 1 and random.random() < 0.2):
        clauses.append(aside(random))
    story = tell(clauses, random)
    target = main.slots[main.target].name
    others = [m for m in story.mentions if m.name != target]
    random.shuffle(others)
    asked = tuple(sorted([next(m for m in story.mentions if m.name == target), *others[: entities - 1]], key=lambda m: m.start))
    if len(asked) < entities:
        raise ImpossibleError
    things: list[Thing] = [main.thing] if positives and main.thing is not None else []
    about = bool(things) or random.random() < 0.5
    for _ in range(200):
        if len(things) == objects:
            break
        have = sum(judge(t, m, story).hops is not None for t in things for m in asked)
        related = about and random.random() < (0.75 if have < positives else 0.25)
        thing = _related(story, random) if related else _stranger(story, random)
        gain = sum(judge(thing, m, story).hops is not None for m in asked)
        if any(t.who == thing.who for t in things) or not _seen(thing) or have + gain > positives:
            continue
        things.append(thing)
    if len(things) < objects:
        raise ImpossibleError
    random.shuffle(things)
    return Draft(story, asked, tuple(things))


def _seen(thing: Thing) -> bool:
    """Whether a thing that was not asked for by name keeps away from the combinations of `test_new`."""
    return not any(held_out(thing.who, name) for name in thing.worn)


def _related(story: Story, random: Random) -> Thing:
    """Someone or something that the headline speaks of, or who wears its signs."""
    mention = random.choice(story.mentions)
    referent = EVERYONE[mention.name]
    person = random.choice(BY_KIND["person"]).name
    clothes = random.choice(PLAIN)
    if referent.kind == "person":
        return Thing("person", referent.name, clothes=clothes)
    if referent.kind == "club":
        if random.random() < 0.35:
            return Thing("club", referent.name)
        return Thing("person", person, kit=referent.name, badge=("armband", "") if random.random() < 0.2 else None)
    if referent.kind == "group":
        return Thing("brand", random.choice(BY_KIND["brand"]).name, ring=referent.name)
    if referent.kind in ("brand", "city"):
        return Thing(referent.kind, referent.name)
    if referent.kind == "country":
        return Thing("city", random.choice([c for c in BY_KIND["city"] if c.home == referent.name]).name)
    badges = [badge for badge, (kind, _) in BADGES.items() if kind == referent.kind]
    if badges:
        return Thing("person", person, clothes=clothes, badge=(random.choice(badges), referent.name))
    return _stranger(story, random)


def _stranger(story: Story, random: Random) -> Thing:
    """Someone or something of which the headline does not speak."""
    named = {mention.name for mention in story.mentions}

    def unnamed(kind: str) -> str:
        return random.choice([r.name for r in BY_KIND[kind] if r.name not in named])

    roll = random.random()
    if roll < 0.1:
        return Thing("prop", random.choice(PROPS))
    if roll < 0.25:
        kind = random.choice(("club", "brand", "city"))
        if kind == "city":  # neither itself nor by its flag; no headline names as much as all countries
            return Thing(kind, random.choice([c.name for c in BY_KIND["city"] if not named & {c.name, c.home}]))
        who = unnamed(kind)
        return Thing(kind, who, ring=unnamed("group") if kind == "brand" and random.random() < 0.7 else "")
    kit = unnamed("club") if random.random() < 0.55 else ""
    badge: tuple[str, str] | None = None
    if random.random() < 0.4:
        kind = random.choice(list(BADGES))
        badge = (kind, unnamed(BADGES[kind][0]))
    elif kit and random.random() < 0.15:
        badge = ("armband", "")
    return Thing("person", unnamed("person"), kit=kit, clothes=random.choice(PLAIN), badge=badge, blurred=random.random() < 0.1)
