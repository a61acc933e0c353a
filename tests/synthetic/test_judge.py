"""Labels and hops on stories written by hand, one or more for each way in which a relation shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from more_r1.schema import NONE
from more_r1.synthetic.story import Fact, Mention, Story, judge
from more_r1.synthetic.world import Thing


def _named(*names: str) -> tuple[Mention, ...]:
    """Mentions one after another; `~Gulls` is by nickname."""
    bare = [name.removeprefix("~") for name in names]
    return tuple(Mention(n, g != n, (n,), i, i + 1) for i, (n, g) in enumerate(zip(bare, names, strict=True)))


def _story(*names: str, facts: tuple[Fact, ...] = (), told: Story | None = None) -> Story:
    mentions = _named(*names)
    return replace(told or Story(facts=facts), tokens=tuple(m.name for m in mentions), mentions=mentions)


MAYA, LEO = Thing("person", "Maya"), Thing("person", "Leo")
IN_GULLS_KIT = Thing("person", "Maya", kit="Gulls")
SAID = Fact("Maya", "/per/per/relatives", "Leo", "said")
SHOWN = Fact("Maya", "/per/loc/place_of_birth", "Lume", "scene")
AGAINST = Story(versus=(("Gulls", "Foxes"),))
# Leo leads Foxes past Gulls.
LEO_LEADS = Story(
    versus=(("Foxes", "Gulls"),),
    plays=(("Leo", "Foxes"),),
    facts=(Fact("Leo", "/per/org/member_of", "Foxes", "said"), Fact("Leo", "/per/org/opposed_to", "Gulls", "club")),
)

CASES = {
    # said: 1 for the statement, 1 more if the person seen goes by a nickname; the nickname of the one asked about costs none
    "said": (MAYA, "Leo", _story("Maya", "Leo", facts=(SAID,)), "/per/per/relatives", 1),
    "said, seen one by nickname": (MAYA, "Leo", _story("~Maya", "Leo", facts=(SAID,)), "/per/per/relatives", 2),
    "said, asked one by nickname": (MAYA, "Leo", _story("Maya", "~Leo", facts=(SAID,)), "/per/per/relatives", 1),
    "said, the other way round": (LEO, "Maya", _story("Maya", "Leo", facts=(SAID,)), "/per/per/relatives", 1),
    "one-way fact backwards": (Thing("city", "Lume"), "Maya", _story("Maya", "Lume", facts=(SHOWN,)), NONE, None),
    # scene: the statement only sets two names side by side, the picture's scene is one more piece
    "scene": (MAYA, "Lume", _story("Maya", "Lume", facts=(SHOWN,)), "/per/loc/place_of_birth", 2),
    "scene, by nickname": (MAYA, "Lume", _story("~Maya", "Lume", facts=(SHOWN,)), "/per/loc/place_of_birth", 3),
    # same: the thing is the one named
    "same person": (MAYA, "Maya", _story("Maya"), "/per/per/alternate_names", 1),
    "same person, by nickname": (MAYA, "Maya", _story("~Maya"), "/per/per/alternate_names", 2),
    "same club": (Thing("club", "Gulls"), "Gulls", _story("Gulls"), "/org/org/alternate_names", 1),
    "same brand": (Thing("brand", "Solex"), "Solex", _story("~Solex"), "/org/org/alternate_names", 2),
    "same city": (Thing("city", "Lume"), "Lume", _story("Lume"), "/loc/loc/contain", 1),
    # kit: person, kit
    "kit": (IN_GULLS_KIT, "Gulls", _story("Gulls"), "/per/org/member_of", 2),
    "kit, by nickname": (IN_GULLS_KIT, "Gulls", _story("~Gulls"), "/per/org/member_of", 3),
    "kit and armband": (
        Thing("person", "Maya", kit="Gulls", badge=("armband", "")), "Gulls", _story("Gulls"), "/per/org/leader_of", 2),
    # club: person, kit, what the club does; the club's nickname is one more
    "club against": (IN_GULLS_KIT, "Foxes", _story("Gulls", "Foxes", told=AGAINST), "/per/org/opposed_to", 3),
    "club against, told backwards": (
        Thing("person", "Maya", kit="Foxes"), "Gulls", _story("Gulls", "Foxes", told=AGAINST), "/per/org/opposed_to", 3),
    "club against, by nickname": (IN_GULLS_KIT, "Foxes", _story("~Gulls", "Foxes", told=AGAINST), "/per/org/opposed_to", 4),
    "club at an event": (
        IN_GULLS_KIT, "Moon Derby", _story("Gulls", "Moon Derby", told=Story(attends=(("Gulls", "Moon Derby"),))),
        "/per/misc/present_in", 3),
    "club mate": (
        Thing("person", "Maya", kit="Foxes"), "Leo", _story("Leo", "Foxes", "Gulls", told=LEO_LEADS), "/per/per/partner", 3),
    "player of the rivals": (IN_GULLS_KIT, "Leo", _story("Leo", "Foxes", "~Gulls", told=LEO_LEADS), "/per/per/opponent", 4),
    "player against the rivals": (
        LEO, "Gulls", _story("Leo", "Foxes", "Gulls", told=LEO_LEADS), "/per/org/opposed_to", 2),
    # badge, ring, place: thing, sign
    "rosette": (Thing("person", "Maya", badge=("rosette", "Dawn")), "Dawn", _story("Dawn"), "/per/misc/party", 2),
    "ribbon": (
        Thing("person", "Maya", badge=("ribbon", "Silver Pen")), "Silver Pen", _story("~Silver Pen"), "/per/misc/awarded", 3),
    "patch": (Thing("person", "Maya", badge=("patch", "Kastan")), "Kastan", _story("Kastan"), "/per/misc/nationality", 2),
    "sash": (Thing("person", "Maya", badge=("sash", "Kastan")), "Kastan", _story("Kastan"), "/per/misc/president", 2),
    "badge of another": (Thing("person", "Maya", badge=("rosette", "Unity")), "Dawn", _story("Dawn"), NONE, None),
    "ring": (Thing("brand", "Solex", ring="Helix"), "Helix", _story("Helix"), "/org/org/subsidiary", 2),
    "ring, by nickname": (Thing("brand", "Solex", ring="Helix"), "Helix", _story("~Helix"), "/org/org/subsidiary", 3),
    "place": (Thing("city", "Lume"), "Norva", _story("Norva"), "/loc/loc/contain", 2),
    "place, by nickname": (Thing("city", "Lume"), "Norva", _story("~Norva"), "/loc/loc/contain", 3),
    "place of another country": (Thing("city", "Solis"), "Norva", _story("Norva"), NONE, None),
    # a link but no relation; no link; nothing that can be known
    "unrelated": (MAYA, "Leo", _story("Maya", "Leo"), NONE, None),
    "unrelated by kit": (IN_GULLS_KIT, "Leo", _story("Gulls", "Leo"), NONE, None),
    "apart": (Thing("person", "Ida", kit="Otters"), "Leo", _story("Maya", "Leo", facts=(SAID,)), NONE, None),
    "prop": (Thing("prop", "ball"), "Leo", _story("Maya", "Leo", facts=(SAID,)), NONE, None),
    "blurred": (Thing("person", "Maya", blurred=True), "Leo", _story("Maya", "Leo", facts=(SAID,)), NONE, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_hand_written_story(case: str) -> None:
    thing, asked, story, label, hops = CASES[case]
    mention = story.mention(asked)
    assert mention is not None
    verdict = judge(thing, mention, story)
    assert (verdict.label, verdict.hops) == (label, hops)


@pytest.mark.parametrize(
    ("case", "how"),
    [("said", "said"), ("scene", "scene"), ("same person", "same"), ("kit", "kit"), ("club against", "club"),
     ("rosette", "badge"), ("ring", "ring"), ("place", "place"), ("unrelated", "unrelated"), ("apart", "apart"),
     ("prop", "trivial"), ("blurred", "trivial")],
)  # fmt: skip
def test_the_evidence_is_named(case: str, how: str) -> None:
    thing, asked, story, _, _ = CASES[case]
    mention = story.mention(asked)
    assert mention is not None
    assert judge(thing, mention, story).how == how
