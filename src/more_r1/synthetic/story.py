"""What a headline tells, and how each thing in the picture relates to each name in it.

`judge` is the only place where labels come from. The number of hops of a label is the number of pieces of evidence that it
rests on: 1 for the object and what is said, one more where it is known by what it wears instead of by itself, one more for a
nickname, one more where the relation is not said but follows from the scene or from the club.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from more_r1.schema import NONE
from more_r1.synthetic import headlines
from more_r1.synthetic.world import BADGES, BY_KIND, EVERYONE, PLAIN, SCENE_RELATIONS, SCENES, Thing, held_out

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
    """A headline and what it tells. `beside` holds the pairs of names that only the scene relates."""

    tokens: tuple[str, ...]
    mentions: tuple[Mention, ...]
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
    for verdict in (
        _by_kit(thing, mention, story),
        _by_badge(thing, mention),
        _by_ring(thing, mention),
        _by_place(thing, mention),
    ):
        if verdict is not None:
            return verdict
    if link is not None:
        return Verdict(NONE, None, "unrelated", thing.who)
    if thing.kit and story.mention(thing.kit) is not None:
        return Verdict(NONE, None, "unrelated", thing.kit)
    return Verdict(NONE, None, "apart")


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


@dataclass(frozen=True)
class Clause:
    """One statement before it is put into words: the form, who fills its slots, what it tells, and what proves `label`.

    `thing` stands in the relation to the mention in slot `target`; both are None where the clause is only an addition.
    """

    template: str
    slots: dict[str, Mention]
    story: Story
    target: str = "b"
    thing: Thing | None = None


# label -> the kinds of pairs of which a headline says it.
_SAID_KINDS: dict[str, tuple[tuple[str, str], ...]] = {
    "/per/per/opponent": (("person", "person"),),
    "/per/per/partner": (("person", "person"),),
    "/per/per/relatives": (("person", "person"),),
    "/per/org/opposed_to": (("person", "club"), ("person", "brand")),
    "/per/org/leader_of": (("person", "club"), ("person", "brand")),
    "/per/org/member_of": (("person", "club"), ("person", "brand")),
    "/per/loc/place_of_birth": (("person", "city"),),
    "/per/loc/place_of_residence": (("person", "city"),),
    "/per/loc/place_of_governance": (("person", "city"),),
    "/per/misc/present_in": (("person", "event"),),
    "/per/misc/awarded": (("person", "award"),),
    "/per/misc/party": (("person", "party"),),
    "/per/misc/nationality": (("person", "nation"),),
    "/per/misc/president": (("person", "nation"),),
    "/org/org/subsidiary": (("brand", "group"),),
    "/org/loc/locate_at": (("brand", "city"), ("club", "city")),
    "/org/misc/present_in": (("brand", "event"), ("club", "event")),
}

# label -> the ways in which it can be shown; each with the hops that it has without a nickname.
WAYS: dict[str, dict[str, int]] = {label: {"said": 1, "scene": 2} for label in _SAID_KINDS}
WAYS["/per/per/alternate_names"] = WAYS["/org/org/alternate_names"] = {"same": 1}
WAYS["/loc/loc/contain"] = {"same": 1, "place": 2}
for _label in ("/per/org/leader_of", "/per/org/member_of"):
    WAYS[_label]["kit"] = 2
for _label in ("/per/org/opposed_to", "/per/misc/present_in", "/per/per/opponent", "/per/per/partner"):
    WAYS[_label]["club"] = 3
for _kind, _label in BADGES.values():
    WAYS[_label]["badge"] = 2
WAYS["/org/org/subsidiary"]["ring"] = 2


class Impossible(Exception):
    """The names drawn do not make this clause; draw again."""


def compose(label: str, way: str, alias: bool, random: Random, *, fresh: bool = False) -> Clause:
    """A clause in which `label` is shown in this way, its link by nickname if `alias`.

    With `fresh` it rests on a held-out combination of names, without it never does. Raises Impossible where the draw fails.
    """
    if way == "same":
        kind = {"per": "person", "org": random.choice(("club", "brand")), "loc": "city"}[label.split("/")[1]]
        who = random.choice(BY_KIND[kind])
        return _alone(name(who.name, alias, random), _thing(kind, who.name, random))
    if way in ("said", "scene"):
        return _two(label, way, alias, random, fresh)
    if way == "place":
        city = random.choice(BY_KIND["city"])
        return _alone(name(city.home, alias, random), Thing("city", city.name))
    person = random.choice(BY_KIND["person"]).name
    if way == "badge":
        badge, (kind, _) = next((b, v) for b, v in BADGES.items() if v[1] == label)
        of = random.choice(BY_KIND[kind]).name
        _require(held_out(person, of) == fresh)
        return _alone(name(of, alias, random), Thing("person", person, clothes=_clothes(random), badge=(badge, of)))
    if way == "ring":
        brand, group = random.choice(BY_KIND["brand"]).name, random.choice(BY_KIND["group"]).name
        _require(held_out(brand, group) == fresh)
        return _alone(name(group, alias, random), Thing("brand", brand, ring=group))
    club = random.choice(BY_KIND["club"]).name
    _require(held_out(person, club) == fresh)
    badge = ("armband", "") if label == "/per/org/leader_of" else None
    thing = Thing("person", person, kit=club, badge=badge)
    if way == "kit":
        clause = _match(club, alias, random) if random.random() < 0.5 else _alone(name(club, alias, random))
        return replace(clause, thing=thing, target="a" if "a" in clause.slots else "b")
    return replace(_club(label, club, alias, random), thing=thing)


def _club(label: str, club: str, alias: bool, random: Random) -> Clause:
    """A match or an event of the club, in which someone in its kit stands in `label` to the target."""
    if label == "/per/misc/present_in":
        event = random.choice(BY_KIND["event"]).name
        if random.random() < 0.4:
            return replace(_match(club, alias, random, event=event), target="e")
        slots = {"a": name(club, alias, random), "e": name(event, random.random() < 0.3, random)}
        story = Story((), (), (Fact(club, "/org/misc/present_in", event, "said"),), attends=((club, event),))
        return Clause(random.choice(headlines.CLUB_EVENT), slots, story, "e")
    if label == "/per/org/opposed_to":
        return _match(club, alias, random) if random.random() < 0.7 else _match(club, alias, random, player=True)
    if label == "/per/per/partner":
        return replace(_match(club, alias, random, player=True), target="q")
    other = _match(
        random.choice([c.name for c in BY_KIND["club"] if c.name != club]),
        False,
        random,
        player=True,
        against=club,
        alias_b=alias,
    )
    return replace(other, target="q")


def _match(
    a: str,
    alias: bool,
    random: Random,
    *,
    player: bool = False,
    event: str = "",
    against: str = "",
    alias_b: bool | None = None,
) -> Clause:
    b = against or random.choice([c.name for c in BY_KIND["club"] if c.name != a])
    swap = not player and not event and random.random() < 0.5
    slots = {
        "a": name(a, alias, random),
        "b": name(b, random.random() < 0.4 if alias_b is None else alias_b, random),
    }
    facts: list[Fact] = []
    plays: tuple[tuple[str, str], ...] = ()
    attends: tuple[tuple[str, str], ...] = ()
    forms = headlines.MATCH
    if player:
        q = random.choice(BY_KIND["person"]).name
        _require(not held_out(q, a))
        slots["q"] = name(q, random.random() < 0.3, random)
        facts += [Fact(q, "/per/org/member_of", a, "said"), Fact(q, "/per/org/opposed_to", b, "club")]
        plays = ((q, a),)
        forms = headlines.MATCH_PLAYER
    if event:
        slots["e"] = name(event, random.random() < 0.3, random)
        facts += [Fact(club, "/org/misc/present_in", event, "said") for club in (a, b)]
        attends = ((a, event), (b, event))
        forms = headlines.MATCH_EVENT
    template = random.choice(forms)
    if swap:
        template = template.replace("{a}", "{x}").replace("{b}", "{a}").replace("{x}", "{b}")
    return Clause(template, slots, Story((), (), tuple(facts), versus=((a, b),), plays=plays, attends=attends))


def _two(label: str, way: str, alias: bool, random: Random, fresh: bool) -> Clause:
    scene = ""
    if way == "said":
        kinds = random.choice(_SAID_KINDS[label])
    else:
        kinds, scene = random.choice([(k, s) for k, by in SCENE_RELATIONS.items() for s, found in by.items() if found == label])
    a, b = (random.choice(BY_KIND[kind]).name for kind in kinds)
    _require(a != b and held_out(a, b) == fresh)
    slots = {"a": name(a, alias, random), "b": name(b, random.random() < 0.25, random)}
    if way == "said":
        return Clause(
            random.choice(headlines.SAID[label]),
            slots,
            Story((), (), (Fact(a, label, b, "said"),)),
            "b",
            _thing(kinds[0], a, random),
        )
    story = Story((), (), beside=((a, b),), scene=scene)
    return Clause(random.choice(headlines.NEUTRAL), slots, story, "b", _thing(kinds[0], a, random))


def _alone(mention: Mention, thing: Thing | None = None) -> Clause:
    return Clause("", {"b": mention}, Story((), ()), "b", thing)


def aside(random: Random) -> Clause:
    """A clause that is only an addition: one name, two names, or a match."""
    roll = random.random()
    if roll < 0.45:
        kind = random.choice(list(headlines.ALONE))
        return _alone(name(random.choice(BY_KIND[kind]).name, random.random() < 0.35, random))
    if roll < 0.6:
        return _match(random.choice(BY_KIND["club"]).name, random.random() < 0.4, random, player=random.random() < 0.3)
    if roll < 0.85:
        return replace(_two(random.choice(list(_SAID_KINDS)), "said", random.random() < 0.35, random, False), thing=None)
    kinds = random.choice(list(SCENE_RELATIONS))
    a, b = (random.choice(BY_KIND[kind]).name for kind in kinds)
    _require(a != b and not held_out(a, b))
    slots = {"a": name(a, random.random() < 0.35, random), "b": name(b, random.random() < 0.25, random)}
    return Clause(random.choice(headlines.NEUTRAL), slots, Story((), (), beside=((a, b),)))


def tell(clauses: list[Clause], random: Random) -> Story:
    """Put clauses into one headline. The scene is the first clause's, or drawn; it decides all names side by side."""
    tokens: list[str] = []
    mentions: list[Mention] = []
    for index, clause in enumerate(clauses):
        if index:
            tokens.append(random.choice(headlines.JOIN))
        template = clause.template or random.choice(headlines.ALONE[EVERYONE[clause.slots["b"].name].kind])
        words, places = headlines.fill(template, {slot: mention.words for slot, mention in clause.slots.items()})
        offset = len(tokens)
        mentions += [
            replace(clause.slots[slot], start=start + offset, end=end + offset) for slot, (start, end) in places.items()
        ]
        tokens += words
    names = [m.name for m in mentions]
    _require(len(set(names)) == len(names))
    tokens, moved = headlines.adorn(tokens, random)
    scene = clauses[0].story.scene or random.choice(SCENES)
    beside = tuple(pair for clause in clauses for pair in clause.story.beside)
    facts = [fact for clause in clauses for fact in clause.story.facts]
    for a, b in beside:
        label = SCENE_RELATIONS[EVERYONE[a].kind, EVERYONE[b].kind].get(scene)
        if label is not None:
            facts.append(Fact(a, label, b, "scene"))
    return Story(
        tuple(tokens),
        tuple(replace(m, start=m.start + moved, end=m.end + moved) for m in sorted(mentions, key=lambda m: m.start)),
        tuple(facts),
        beside,
        tuple(pair for clause in clauses for pair in clause.story.versus),
        tuple(pair for clause in clauses for pair in clause.story.plays),
        tuple(pair for clause in clauses for pair in clause.story.attends),
        scene,
    )


def name(who: str, alias: bool, random: Random) -> Mention:
    """Someone's name, or a nickname; a club may also be called by its city, as in `Lume side`."""
    referent = EVERYONE[who]
    words = referent.nickname.split() if alias else referent.name.split()
    if alias and referent.kind == "club" and random.random() < 0.4:
        words = [referent.home, "side"]
    return Mention(who, alias, tuple(words))


def _thing(kind: str, who: str, random: Random) -> Thing:
    return Thing(kind, who, clothes=_clothes(random)) if kind == "person" else Thing(kind, who)


def _clothes(random: Random) -> str:
    return random.choice(PLAIN)


def _require(holds: bool) -> None:
    if not holds:
        raise Impossible
