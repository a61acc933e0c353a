"""What a headline tells, and how each thing in the picture relates to each name in it.

`judge` is the only place where labels come from. The number of hops of a label is the number of pieces of evidence that it
rests on: 1 for the object and what is said, one more where it is known by what it wears instead of by itself, one more for a
nickname, one more where the relation is not said but follows from the scene or from the club.
"""

from __future__ import annotations

from dataclasses import dataclass

from more_r1.schema import NONE
from more_r1.synthetic.world import BADGES, EVERYONE, Thing

_MUTUAL = ("/per/per/opponent", "/per/per/partner", "/per/per/relatives")


@dataclass(frozen=True)
class Mention:
    """A name in the headline: whose, by nickname or not, and at which tokens [start, end)."""

    name: str
    alias: bool
    words: tuple[str, ...]
    start: int = 0
    end: int = 0


@dataclass(frozen=True)
class Fact:
    """`a` stands in the relation `label` to `b`; `how` is said, scene (two names side by side) or club (a's club's match)."""

    a: str
    label: str
    b: str
    how: str


@dataclass(frozen=True)
class Story:
    """A headline and what it tells, and the scene behind it.

    Pairs of names: `beside`, which only the scene relates; `versus`, clubs that play each other; `plays`, a player and his
    club; `attends`, a club and its event.
    """

    tokens: tuple[str, ...] = ()
    mentions: tuple[Mention, ...] = ()
    facts: tuple[Fact, ...] = ()
    beside: tuple[tuple[str, str], ...] = ()
    versus: tuple[tuple[str, str], ...] = ()
    plays: tuple[tuple[str, str], ...] = ()
    attends: tuple[tuple[str, str], ...] = ()
    scene: str = ""

    def mention(self, name: str) -> Mention | None:
        """Where the headline names someone, if it does."""
        return next((m for m in self.mentions if m.name == name), None)

    def opponents(self, club: str) -> tuple[str, ...]:
        """The clubs that the headline puts against this one."""
        return tuple(b if a == club else a for a, b in self.versus if club in (a, b))


@dataclass(frozen=True)
class Verdict:
    """The label of a pair, its hops (None for `none`), and what it rests on.

    `link` is the name in the headline that the thing is or belongs to, None if there is none; `how` says by which evidence:
    trivial, apart (no link), same, said, scene, club, kit, badge, ring, place, or unrelated (a link, but no relation).
    """

    label: str
    hops: int | None
    how: str
    link: str | None = None


def judge(thing: Thing, mention: Mention, story: Story) -> Verdict:
    """The relation from a thing in the picture to a name in the headline."""
    if thing.type == "misc":
        return Verdict(NONE, None, "trivial")
    if thing.who == mention.name:
        label = {"per": "/per/per/alternate_names", "org": "/org/org/alternate_names", "loc": "/loc/loc/contain"}[thing.type]
        return Verdict(label, 1 + mention.alias, "same", thing.who)
    link = story.mention(thing.who)
    if link is not None:
        for fact in story.facts:
            forward = (fact.a, fact.b) == (thing.who, mention.name)
            if forward or (fact.label in _MUTUAL and (fact.b, fact.a) == (thing.who, mention.name)):
                return Verdict(fact.label, 1 + link.alias + (fact.how != "said"), fact.how, thing.who)
    shown = _by_kit(thing, mention, story) or _by_badge(thing, mention) or _by_ring(thing, mention) or _by_place(thing, mention)
    if shown is not None:
        return shown
    sign = next((sign for sign in thing.signs if story.mention(sign) is not None), None)
    return Verdict(NONE, None, "apart" if sign is None else "unrelated", sign)


def _by_kit(thing: Thing, mention: Mention, story: Story) -> Verdict | None:
    club = story.mention(thing.kit) if thing.kit else None
    if club is None:
        return None
    if club.name == mention.name:
        leads = thing.badge is not None and thing.badge[0] == "armband"
        return Verdict("/per/org/leader_of" if leads else "/per/org/member_of", 2 + mention.alias, "kit", club.name)
    against = story.opponents(club.name)
    label = None
    if mention.name in against:
        label = "/per/org/opposed_to"
    elif (club.name, mention.name) in story.attends:
        label = "/per/misc/present_in"
    elif (mention.name, club.name) in story.plays:
        label = "/per/per/partner"
    elif any((mention.name, other) in story.plays for other in against):
        label = "/per/per/opponent"
    return Verdict(label, 3 + club.alias, "club", club.name) if label else None


def _by_badge(thing: Thing, mention: Mention) -> Verdict | None:
    if thing.badge is None or thing.badge[1] != mention.name:
        return None
    return Verdict(BADGES[thing.badge[0]][1], 2 + mention.alias, "badge", mention.name)


def _by_ring(thing: Thing, mention: Mention) -> Verdict | None:
    if not thing.ring or thing.ring != mention.name:
        return None
    return Verdict("/org/org/subsidiary", 2 + mention.alias, "ring", mention.name)


def _by_place(thing: Thing, mention: Mention) -> Verdict | None:
    if thing.kind != "city" or EVERYONE[thing.who].home != mention.name:
        return None
    return Verdict("/loc/loc/contain", 2 + mention.alias, "place", mention.name)
