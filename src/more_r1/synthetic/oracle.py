"""The oracle: who knows the world and writes the six steps of reasoning that lead from picture and headline to the label.

Each decision is made once, in the step where its evidence is: what is seen in step 1, who is named in step 2, how the two
meet in step 3. The wording varies; what is said does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from more_r1.reasoning.trace import Trace
from more_r1.schema import NONE, Schema
from more_r1.synthetic.story import Mention, Story, Verdict, judge
from more_r1.synthetic.world import EVERYONE, Thing

MOST_WORDS = 140
_TRIES = 200
# How a relation is said in a sentence, from the object to the entity.
PHRASES = {
    "/per/per/opponent": "is a rival of", "/per/per/partner": "works together with", "/per/per/relatives": "is family of",
    "/per/per/alternate_names": "is the same as", "/per/org/opposed_to": "stands against", "/per/org/leader_of": "leads",
    "/per/org/member_of": "is a member of", "/per/loc/place_of_birth": "was born in",
    "/per/loc/place_of_residence": "lives in", "/per/loc/place_of_governance": "governs",
    "/per/misc/present_in": "takes part in", "/per/misc/awarded": "has received", "/per/misc/party": "is in the party",
    "/per/misc/nationality": "has the nationality", "/per/misc/president": "is the president called",
    "/org/org/alternate_names": "is the same as", "/org/org/subsidiary": "is a unit of",
    "/org/loc/locate_at": "has its place in",
    "/org/misc/present_in": "takes part in", "/loc/loc/contain": "lies in one with",
}  # fmt: skip
_TYPE_NAMES = {"per": "a person (per)", "org": "an organisation (org)", "loc": "a place (loc)", "misc": "something else (misc)"}
_KIND_NAMES = {
    "person": "a person (per)", "club": "a club (org)", "brand": "a company (org)", "group": "a group (org)",
    "city": "a city (loc)", "country": "a country (loc)", "nation": "a nationality (misc)", "party": "a party (misc)",
    "award": "an award (misc)", "event": "an event (misc)",
}  # fmt: skip
_TRIVIAL = (
    "Nothing that is named corresponds to such a thing , so it tells nothing of {} .",
    "Such a thing is no entity of the headline , nor a part of {} .",
)
# How the thing and the entity meet where no third name is between them.
_MEETINGS = {
    "apart": "So nothing leads to {} .",
    "same": "That is {} itself .",
    "kit": "The kit is that of {}{} .",
    "badge": "It points to {} .",
    "ring": "It points to {} .",
    "place": "It points to {} .",
}


def explain(things: Sequence[Thing], thing: Thing, mention: Mention, story: Story, random: Random) -> Trace:
    """The gold trace of one pair: 70 to 140 words, ending in the label that `judge` gives."""
    verdict = judge(thing, mention, story)
    for _ in range(_TRIES):  # of a few pairs some wordings are too long
        trace = _explain(things, thing, mention, story, verdict, story.mentions, random)
        if len(trace.render().split()) <= MOST_WORDS:
            return trace
    # Of very few all are: then step 2 names only whom the object and the question are about.
    meant = tuple(m for m in story.mentions if m.name == mention.name or m.name in thing.signs)
    return _explain(things, thing, mention, story, verdict, meant, random)


def _explain(
    things: Sequence[Thing],
    thing: Thing,
    mention: Mention,
    story: Story,
    verdict: Verdict,
    named: Sequence[Mention],
    random: Random,
) -> Trace:
    entity_type = EVERYONE[mention.name].type
    candidates = Schema.more().candidates(thing.type, entity_type)
    steps = (
        see(things, thing, story, random),
        read(things, story, named, random),
        _match(thing, mention, story, verdict, random),
        _types(thing, mention, random),
        _narrow(candidates, random),
        _decide(mention, verdict, random),
    )
    return Trace(steps, verdict.label)


def called(mention: Mention) -> str:
    """Whose name it is, and as what the headline has it if that is a nickname."""
    words = " ".join(mention.words)
    return f"{mention.name} as {words}" if mention.alias else words


def see(things: Sequence[Thing], thing: Thing, story: Story, random: Random) -> str:
    seen = random.choice(("The crop shows {}", "In the crop is {}", "One sees {}")).format(thing.describe())
    if thing.blurred:
        seen += " , too unclear to be known"
    elif thing.kind == "prop":
        seen += " , a trivial thing"
    company = "alone in the picture" if len(things) == 1 else "one object of several"
    scene = random.choice(("Behind it stands a {}", "The whole picture has a {}", "It is set before a {}"))
    return f"{seen} , {company} . {scene.format(story.scene)} ."


def read(things: Sequence[Thing], story: Story, named: Sequence[Mention], random: Random) -> str:
    names = " ; ".join(called(mention) for mention in named)
    start = random.choice(("The headline names {}", "Named are {}", "The headline is about {}")).format(names)
    if any(_shown(thing, story) for thing in things):
        return start + random.choice((" . The picture shows some of it .", " . So the picture is relevant ."))
    return start + random.choice((" . The picture shows none of it .", " . So the picture is not relevant ."))


def _shown(thing: Thing, story: Story) -> bool:
    return thing.type != "misc" and any(story.mention(sign) is not None for sign in thing.signs)


def _match(thing: Thing, mention: Mention, story: Story, verdict: Verdict, random: Random) -> str:
    asked = " ".join(mention.words)
    if verdict.how == "trivial":
        return random.choice(_TRIVIAL).format(asked)
    who = stand(thing, mention, story)
    if verdict.how in _MEETINGS:
        lead = " and the armband marks the captain" if verdict.label.endswith("leader_of") else ""
        return f"{who} . " + _MEETINGS[verdict.how].format(asked, lead)
    link = story.mention(verdict.link) if verdict.link else None
    assert link is not None
    return f"{who} . " + _connect(thing, mention, story, verdict, link)


def stand(thing: Thing, asked: Mention, story: Story) -> str:
    """Whose signs the thing shows, and of each whether the headline names them.

    That is said right behind the name, where a model finds it easiest to tell.
    """
    signs = [(said, name, story.mention(name)) for said, name in _signs(thing)]
    return " and ".join(f"{said} {name} , {standing(found, asked)}" for said, name, found in signs)


def standing(found: Mention | None, asked: Mention) -> str:
    """Whether the headline has a name, under which words, and whether it is the one asked about."""
    if found is None:
        return "not named"
    return f"named as {' '.join(found.words)}" + (" , the entity itself" if found.name == asked.name else "")


def _connect(thing: Thing, mention: Mention, story: Story, verdict: Verdict, link: Mention) -> str:
    """From the name that the object goes by to the entity asked about."""
    asked = " ".join(mention.words)
    if verdict.how == "said":
        return f"It says that {link.name} {PHRASES[verdict.label]} {asked} ."
    set_beside = f"It only sets {link.name} beside {asked} ,"
    if verdict.how == "scene":
        return f"{set_beside} but a {story.scene} shows that one {PHRASES[verdict.label]} the other ."
    if verdict.how == "unrelated":
        back = next((fact for fact in story.facts if (fact.a, fact.b) == (mention.name, link.name)), None)
        if back is not None:  # told the other way round, from the entity to the object
            but = "no label joins such two" if link.name == thing.who else "nothing of the object"
            return f"It says that {asked} {PHRASES[back.label]} {link.name} , but {but} ."
        if (link.name, mention.name) in story.beside or (mention.name, link.name) in story.beside:
            return f"{set_beside} and a {story.scene} shows nothing between such two ."
        if mention.name in story.opponents(link.name):
            return f"{link.name} play against {asked} , and no label is that of rivals ."
        return f"It says nothing of {link.name} and {asked} ."
    if verdict.label == "/per/org/opposed_to":
        return f"{link.name} play against {asked} ." if thing.kit else f"{link.name} plays against {asked} ."
    if verdict.label == "/per/misc/present_in":
        return f"{link.name} play in {asked} ."
    if verdict.label == "/per/per/partner":
        return f"{asked} plays for {link.name} too ."
    return f"{asked} plays for the rivals of {link.name} ."


def identify(thing: Thing) -> str:
    """Who or what the thing is, by all that can be known from its look."""
    if thing.kind == "city":
        return f"The landmark is that of {thing.who} in {EVERYONE[thing.who].home}"
    return " and ".join(f"{said} {name}" for said, name in _signs(thing))


def _signs(thing: Thing) -> list[tuple[str, str]]:
    """What it shows, each with the name that it stands for."""
    noun = {"person": "look", "club": "crest", "brand": "sign", "city": "landmark"}[thing.kind]
    signs = [(f"The {noun} is that of", thing.who)]
    if thing.kind == "city":
        signs.append(("the city lies in", EVERYONE[thing.who].home))
    if thing.ring:
        signs.append(("the ring is that of", thing.ring))
    if thing.kit:
        signs.append(("the kit is that of", thing.kit))
    if thing.badge is not None and thing.badge[0] != "armband":
        signs.append((f"the {thing.badge[0]} is that of", thing.badge[1]))
    return signs


def _types(thing: Thing, mention: Mention, random: Random) -> str:
    asked, kind = " ".join(mention.words), _KIND_NAMES[EVERYONE[mention.name].kind]
    return random.choice(("The object is {} , {} is {} .", "Seen is {} , and {} is {} .")).format(
        _TYPE_NAMES[thing.type], asked, kind
    )


def _narrow(candidates: tuple[str, ...], random: Random) -> str:
    if candidates == (NONE,):
        return random.choice(("No label joins these types but none .", "These types leave only none ."))
    listed = " , ".join(candidates[:-1])
    return random.choice(("This leaves {} , none .", "Left are {} , none .")).format(listed)


def _decide(mention: Mention, verdict: Verdict, random: Random) -> str:
    asked = " ".join(mention.words)
    if verdict.hops is None:
        return random.choice(("Nothing ties the object to {} .", "No relation to {} is shown .")).format(asked)
    return random.choice(("The object {} {} .", "It follows that the object {} {} .")).format(PHRASES[verdict.label], asked)
