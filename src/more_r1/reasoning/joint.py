"""The pairs of one document, read together: the likeliest labels that do not contradict each other.

The rules are the schema's (`Relation`), names being compared without regard to case:

- at most one: an object has such a relation to at most one name, and a name has it from at most one object;
- an object does not have a relation and its inverse to the same name (which the text may mention twice);
- if one object is one name and another object another (`Relation.same`), the relation of the first object to the second name
  mirrors that of the second object to the first name, where these have rules: a symmetric one is there both ways, an inverse
  the other way round.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, count, islice

from more_r1.schema import NONE, Relation, Schema

# Nodes searched before the search is given up: real documents need a few, and a hostile one must not stop the program.
MOST_NODES = 2_000


@dataclass(frozen=True)
class Asked:
    """A pair that was asked about: the object, the entity's words, and the log-probability of each label."""

    object: str
    name: str
    scores: Mapping[str, float]


Assignment = tuple[int, str]
"""A pair, by its place, and a label that it may have."""


def read_jointly(pairs: Sequence[Asked], schema: Schema) -> list[str]:
    """The label of each pair: those with the greatest sum of log-probabilities among all that keep the rules.

    The optimum is exact: a best-first search whose nodes are sets of excluded (pair, label), whose bound is the sum of the
    best labels left, and which branches where the best labels break a rule. Should it need more than MOST_NODES nodes, which
    takes a crowd of undecided pairs, each rule in turn is met at the least loss instead: the result keeps all rules and may
    fall short of the optimum. Scores must have all labels, `none` included.
    """
    search = _Search(pairs, schema)
    ties = count()
    queue: list[tuple[float, int, int, frozenset[Assignment]]] = [(0.0, 0, next(ties), frozenset())]
    seen = {frozenset[Assignment]()}
    for _ in range(MOST_NODES):
        excluded = heapq.heappop(queue)[-1]
        labels = search.best(excluded)
        broken = next(search.broken(labels), None)
        if broken is None:
            return labels
        for branch in broken:
            narrowed = excluded | branch
            if narrowed not in seen and (bound := search.bound(narrowed)) > -math.inf:
                seen.add(narrowed)
                # Among equals the one that has excluded most is nearest to the end.
                heapq.heappush(queue, (-bound, -len(narrowed), next(ties), narrowed))
    return search.greedy()


class _Search:
    """What a search through the labellings of one document needs to know."""

    def __init__(self, pairs: Sequence[Asked], schema: Schema) -> None:
        self.pairs = pairs
        self.names = [pair.name.casefold() for pair in pairs]
        self.relations: dict[str, Relation] = {relation.label: relation for relation in schema.relations}
        # Best first; among equals in the order of the schema.
        place = {label: number for number, label in enumerate(schema.labels)}
        self.ranked = [sorted(pair.scores, key=lambda label: (-pair.scores[label], place[label])) for pair in pairs]
        self.places: dict[tuple[str, str], list[int]] = defaultdict(list)
        for number, pair in enumerate(pairs):
            self.places[pair.object, self.names[number]].append(number)

    def best(self, excluded: frozenset[Assignment]) -> list[str]:
        """The best label of each pair that is not excluded."""
        return [self._two(number, excluded)[0] for number in range(len(self.pairs))]

    def greedy(self) -> list[str]:
        """Labels that keep the rules: each broken one is met at the least loss, and never by taking `none` from a pair."""
        excluded = frozenset[Assignment]()
        while (broken := next(self.broken(labels := self.best(excluded)), None)) is not None:
            open_to = [excluded | branch for branch in broken if all(label != NONE for _, label in branch)]
            excluded = max(open_to, key=self.bound)
        return labels

    def bound(self, excluded: frozenset[Assignment]) -> float:
        """No labelling without the excluded is better than this sum of log-probabilities."""
        left = [self._two(number, excluded) for number in range(len(self.pairs))]
        if not all(left):
            return -math.inf
        total = sum(self.pairs[number].scores[labels[0]] for number, labels in enumerate(left))
        # Of the pairs that together have a label that only one may have, all but one must take their next best. Groups of one
        # object do not overlap, nor do those of one name.
        costs: list[dict[tuple[str, str], list[float]]] = [defaultdict(list), defaultdict(list)]
        sames: dict[tuple[str, str, str], float] = {}
        for number, labels in enumerate(left):
            relation = self.relations.get(labels[0])
            if relation is None or not relation.at_most_one:
                continue
            object, name = self.pairs[number].object, self.names[number]
            scores = self.pairs[number].scores
            cost = scores[labels[0]] - scores[labels[1]] if len(labels) > 1 else math.inf
            # Mentions of the same words by the same object may have the label together: they go or stay as one.
            key = (object, name, labels[0])
            sames[key] = sames.get(key, 0.0) + cost
        for (object, name, label), cost in sames.items():
            costs[0][object, label].append(cost)
            costs[1][name, label].append(cost)
        return total - max(sum(sum(sorted(group)[:-1]) for group in side.values()) for side in costs)

    def broken(self, labels: Sequence[str]) -> Iterator[list[frozenset[Assignment]]]:
        """The rules that a labelling breaks; each as sets of assignments, of which every labelling that keeps it is free of
        at least one whole set."""
        yield from self._at_most_one(labels)
        yield from self._inverses(labels)
        yield from self._mirrors(labels)

    def _two(self, number: int, excluded: frozenset[Assignment]) -> list[str]:
        """The best and the next best label of a pair, as far as there are any left."""
        left = (label for label in self.ranked[number] if (number, label) not in excluded)
        return list(islice(left, 2))

    def _at_most_one(self, labels: Sequence[str]) -> Iterator[list[frozenset[Assignment]]]:
        groups: dict[tuple[str, str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for number, label in enumerate(labels):
            if label != NONE and self.relations[label].at_most_one:
                object, name = self.pairs[number].object, self.names[number]
                groups["object", object, label][name].append(number)
                groups["name", name, label][object].append(number)
        for (_, _, label), members in groups.items():
            if len(members) > 1:
                everyone = {(number, label) for numbers in members.values() for number in numbers}
                # At most one of them keeps it, so the others lose it.
                yield [frozenset(everyone - {(number, label) for number in numbers}) for numbers in members.values()]

    def _inverses(self, labels: Sequence[str]) -> Iterator[list[frozenset[Assignment]]]:
        for places in self.places.values():
            for one, two in combinations(places, 2):
                relation = self.relations.get(labels[one])
                if relation is not None and relation.inverse == labels[two]:
                    yield [frozenset({(one, labels[one])}), frozenset({(two, labels[two])})]

    def _mirrors(self, labels: Sequence[str]) -> Iterator[list[frozenset[Assignment]]]:
        same = [number for number, label in enumerate(labels) if label != NONE and self.relations[label].same]
        for first, second in combinations(same, 2):
            one, two = self.pairs[first].object, self.pairs[second].object
            if one == two or self.names[first] == self.names[second]:
                continue
            for there in self.places.get((one, self.names[second]), ()):
                for back in self.places.get((two, self.names[first]), ()):
                    if self._mirror(labels[there]) in (None, labels[back]) and self._mirror(labels[back]) in (
                        None,
                        labels[there],
                    ):
                        continue
                    involved = (first, second, there, back)
                    yield [frozenset({(number, labels[number])}) for number in dict.fromkeys(involved)]

    def _mirror(self, label: str) -> str | None:
        """What the relation must be the other way round; None where there is no rule."""
        relation = self.relations.get(label)
        if relation is None:
            return None
        return relation.label if relation.symmetric else relation.inverse
