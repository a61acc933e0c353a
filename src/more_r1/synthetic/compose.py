"""Clauses: statements that show a relation in a given way, and the headline that they are put into.

Names and forms are drawn; the story says what the finished headline tells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from more_r1.synthetic import headlines
from more_r1.synthetic.story import Fact, Mention, Story
from more_r1.synthetic.world import BADGES, BY_KIND, EVERYONE, PLAIN, SCENE_RELATIONS, SCENES, Thing, held_out


@dataclass(frozen=True)
class Clause:
    """One statement before it is put into words: its form, who fills its slots, and what it tells.

    An empty template is any form that names `b` alone. `thing` stands in the relation to the mention in slot `target`; it is
    None where the clause is only an addition.
    """

    template: str
    slots: dict[str, Mention]
    story: Story
    target: str = "b"
    thing: Thing | None = None


class ImpossibleError(Exception):
    """The names drawn do not make this clause; draw again."""


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
WAYS["/org/org/subsidiary"]["ring"] = 2
for _label in ("/per/org/leader_of", "/per/org/member_of"):
    WAYS[_label]["kit"] = 2
for _label in ("/per/org/opposed_to", "/per/misc/present_in", "/per/per/opponent", "/per/per/partner"):
    WAYS[_label]["club"] = 3
for _, _label in BADGES.values():
    WAYS[_label]["badge"] = 2


def compose(label: str, way: str, alias: bool, random: Random, *, fresh: bool = False) -> Clause:
    """A clause in which `label` is shown in this way, its link by nickname if `alias`.

    With `fresh` it rests on a held-out combination of names, without it never does. Raises ImpossibleError where the draw
    fails.
    """
    if way == "same":
        kind = {"per": "person", "org": random.choice(("club", "brand")), "loc": "city"}[label.split("/")[1]]
        who = _any(kind, random)
        return _alone(_name(who, alias, random), _bare(kind, who, random))
    if way == "said":
        return _saying(label, alias, random, fresh)
    if way == "scene":
        return _scene(label, alias, random, fresh)
    if way == "place":
        city = random.choice(BY_KIND["city"])
        return _alone(_name(city.home, alias, random), Thing("city", city.name))
    person = _any("person", random)
    if way == "badge":
        badge, kind = next((badge, kind) for badge, (kind, shown) in BADGES.items() if shown == label)
        of = _any(kind, random)
        _require(held_out(person, of) == fresh)
        mention = _name(of, alias, random)
        return _alone(mention, Thing("person", person, clothes=_clothes(random), badge=(badge, of)))
    if way == "ring":
        brand, group = _any("brand", random), _any("group", random)
        _require(held_out(brand, group) == fresh)
        return _alone(_name(group, alias, random), Thing("brand", brand, ring=group))
    club = _any("club", random)
    _require(held_out(person, club) == fresh)
    if way == "kit":
        clause = _match(club, alias, random) if random.random() < 0.5 else _alone(_name(club, alias, random))
        clause = replace(clause, target="a" if "a" in clause.slots else "b")
    else:
        clause = _club(label, club, alias, random)
    armband = ("armband", "") if label == "/per/org/leader_of" else None
    return replace(clause, thing=Thing("person", person, kit=club, badge=armband))


def _saying(label: str, alias: bool, random: Random, fresh: bool) -> Clause:
    """A headline that says the label of two names."""
    kinds = random.choice(_SAID_KINDS[label])
    a, b = _two(kinds, random, fresh)
    slots = _slots(a, alias, b, random)
    template = random.choice(headlines.SAID[label])
    return Clause(template, slots, Story(facts=(Fact(a, label, b, "said"),)), thing=_bare(kinds[0], a, random))


def _scene(label: str, alias: bool, random: Random, fresh: bool) -> Clause:
    """Two names side by side, before a scene that makes the label of them."""
    shown = [(kinds, scene) for kinds, by in SCENE_RELATIONS.items() for scene, found in by.items() if found == label]
    kinds, scene = random.choice(shown)
    a, b = _two(kinds, random, fresh)
    clause = _beside(a, alias, b, random)
    return replace(clause, story=replace(clause.story, scene=scene), thing=_bare(kinds[0], a, random))


def _beside(a: str, alias: bool, b: str, random: Random) -> Clause:
    slots = _slots(a, alias, b, random)
    return Clause(random.choice(headlines.NEUTRAL), slots, Story(beside=((a, b),)))


def _two(kinds: tuple[str, str], random: Random, fresh: bool) -> tuple[str, str]:
    a, b = (_any(kind, random) for kind in kinds)
    _require(a != b and held_out(a, b) == fresh)
    return a, b


def _slots(a: str, alias: bool, b: str, random: Random) -> dict[str, Mention]:
    return {"a": _name(a, alias, random), "b": _name(b, random.random() < 0.25, random)}


def _club(label: str, club: str, alias: bool, random: Random) -> Clause:
    """A match or an event of the club, in which someone in its kit stands in `label` to the target."""
    if label == "/per/misc/present_in":
        event = _any("event", random)
        if random.random() < 0.4:
            return replace(_match(club, alias, random, event=event), target="e")
        slots = {"a": _name(club, alias, random), "e": _name(event, random.random() < 0.3, random)}
        story = Story(facts=(Fact(club, "/org/misc/present_in", event, "said"),), attends=((club, event),))
        return Clause(random.choice(headlines.CLUB_EVENT), slots, story, "e")
    if label == "/per/org/opposed_to":
        return _match(club, alias, random, player=random.random() >= 0.7)
    if label == "/per/per/partner":
        return replace(_match(club, alias, random, player=True), target="q")
    rival = random.choice([c.name for c in BY_KIND["club"] if c.name != club])
    return replace(_match(rival, False, random, player=True, against=(club, alias)), target="q")


def _match(
    a: str, alias: bool, random: Random, *, player: bool = False, event: str = "", against: tuple[str, bool] | None = None
) -> Clause:
    """Club `a` plays another, or the one given (its name, and whether by nickname); with a player of `a`, or at an event."""
    b = against[0] if against else random.choice([c.name for c in BY_KIND["club"] if c.name != a])
    swap = not player and not event and random.random() < 0.5
    slots = {"a": _name(a, alias, random), "b": _name(b, against[1] if against else random.random() < 0.4, random)}
    story = Story(versus=((a, b),))
    forms: tuple[str, ...] = headlines.MATCH
    if player:
        q = _any("person", random)
        _require(not held_out(q, a))
        slots["q"] = _name(q, random.random() < 0.3, random)
        facts = (Fact(q, "/per/org/member_of", a, "said"), Fact(q, "/per/org/opposed_to", b, "club"))
        story, forms = replace(story, facts=facts, plays=((q, a),)), headlines.MATCH_PLAYER
    elif event:
        slots["e"] = _name(event, random.random() < 0.3, random)
        facts = (Fact(a, "/org/misc/present_in", event, "said"), Fact(b, "/org/misc/present_in", event, "said"))
        story, forms = replace(story, facts=facts, attends=((a, event), (b, event))), headlines.MATCH_EVENT
    template = random.choice(forms)
    if swap:
        template = template.replace("{a}", "{x}").replace("{b}", "{a}").replace("{x}", "{b}")
    return Clause(template, slots, story)


def _alone(mention: Mention, thing: Thing | None = None) -> Clause:
    return Clause("", {"b": mention}, Story(), thing=thing)


def aside(random: Random) -> Clause:
    """A clause that is only an addition: one name, a match, or two names. Raises ImpossibleError where the draw fails."""
    roll = random.random()
    if roll < 0.45:
        kind = random.choice(list(headlines.ALONE))
        return _alone(_name(_any(kind, random), random.random() < 0.35, random))
    if roll < 0.6:
        return _match(_any("club", random), random.random() < 0.4, random, player=random.random() < 0.3)
    if roll < 0.85:
        return replace(_saying(random.choice(list(_SAID_KINDS)), random.random() < 0.35, random, False), thing=None)
    a, b = _two(random.choice(list(SCENE_RELATIONS)), random, False)
    return _beside(a, random.random() < 0.35, b, random)


def tell(clauses: list[Clause], random: Random) -> Story:
    """Put clauses into one headline. The scene is the first clause's, or drawn; it decides all names side by side.

    Raises ImpossibleError where someone is named twice.
    """
    tokens: list[str] = []
    mentions: list[Mention] = []
    for index, clause in enumerate(clauses):
        if index:
            tokens.append(random.choice(headlines.JOIN))
        template = clause.template or random.choice(headlines.ALONE[EVERYONE[clause.slots["b"].name].kind])
        words, places = headlines.fill(template, {slot: mention.words for slot, mention in clause.slots.items()})
        for slot, (start, end) in places.items():
            mentions.append(replace(clause.slots[slot], start=start + len(tokens), end=end + len(tokens)))
        tokens += words
    _require(len({mention.name for mention in mentions}) == len(mentions))
    tokens, moved = headlines.adorn(tokens, random)
    told = [clause.story for clause in clauses]
    scene = told[0].scene or random.choice(SCENES)
    beside = tuple(pair for story in told for pair in story.beside)
    shown = ((a, SCENE_RELATIONS[EVERYONE[a].kind, EVERYONE[b].kind].get(scene), b) for a, b in beside)
    return Story(
        tokens=tuple(tokens),
        mentions=tuple(replace(m, start=m.start + moved, end=m.end + moved) for m in sorted(mentions, key=lambda m: m.start)),
        facts=(
            *(fact for story in told for fact in story.facts),
            *(Fact(a, label, b, "scene") for a, label, b in shown if label is not None),
        ),
        beside=beside,
        versus=tuple(pair for story in told for pair in story.versus),
        plays=tuple(pair for story in told for pair in story.plays),
        attends=tuple(pair for story in told for pair in story.attends),
        scene=scene,
    )


def _any(kind: str, random: Random) -> str:
    return random.choice(BY_KIND[kind]).name


def _name(who: str, alias: bool, random: Random) -> Mention:
    """Someone's name, or a nickname; a club may also be called by its city, as in `Lume side`."""
    referent = EVERYONE[who]
    words = referent.nickname.split() if alias else referent.name.split()
    if alias and referent.kind == "club" and random.random() < 0.4:
        words = [referent.home, "side"]
    return Mention(who, alias, tuple(words))


def _bare(kind: str, who: str, random: Random) -> Thing:
    """Someone or something by itself, a person in plain clothes."""
    return Thing(kind, who, clothes=_clothes(random)) if kind == "person" else Thing(kind, who)


def _clothes(random: Random) -> str:
    return random.choice(PLAIN)


def _require(holds: bool) -> None:
    if not holds:
        raise ImpossibleError
