"""The embedded world: who lives in it, what they look like, and how they are called.

It is small, so that a model of a few million parameters can learn it from pictures and texts. What changes from picture
to picture is seen there: kits, badges and rings are worn by anyone, scenes stand behind anything.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

COLOURS = {
    "red": (214, 40, 40), "blue": (38, 84, 214), "green": (40, 150, 62), "yellow": (246, 206, 36),
    "purple": (136, 56, 170), "orange": (244, 134, 28), "teal": (24, 168, 170), "pink": (246, 132, 184),
    "black": (34, 34, 38), "white": (244, 244, 240), "grey": (150, 152, 156), "blond": (236, 204, 110),
    "ginger": (196, 84, 28), "gold": (222, 172, 40), "silver": (186, 192, 200), "brown": (122, 78, 44),
}  # fmt: skip


@dataclass(frozen=True)
class Referent:
    """Someone or something of the world. `kind` is its species, `type` one of the four types of the task.

    `look` is what identifies it to the eye; `nickname` is its other name in headlines; `home` is the city of a club and
    the country of a city, empty elsewhere.
    """

    kind: str
    name: str
    nickname: str
    look: tuple[str, ...]
    home: str = ""

    @property
    def type(self) -> str:
        return _TYPE_OF[self.kind]


_TYPE_OF = {
    "person": "per", "club": "org", "brand": "org", "group": "org", "city": "loc", "country": "loc",
    "nation": "misc", "party": "misc", "award": "misc", "event": "misc",
}  # fmt: skip

# kind -> name | nickname | look | home, one a line.
_ROWS = {
    "person": """
        Maya | Comet | black short
        Leo | Falcon | black long
        Ida | Duchess | black curls
        Omar | Anvil | black bun
        Nina | Sparrow | blond short
        Karl | Maestro | blond long
        Zoe | Pixie | blond curls
        Ivan | Bear | blond bun
        Lena | Velvet | ginger short
        Hugo | Dynamo | ginger long
        Tara | Tempest | ginger curls
        Finn | Lucky | ginger bun
        Rosa | Canary | grey short
        Amir | Sphinx | grey long
        Elsa | Glacier | grey curls
        Paul | Rocket | grey bun
    """,
    "club": """
        Gulls | Sailors | teal star | Lume
        Foxes | Hunters | orange cross | Orra
        Rovers | Wanderers | green diamond | Tavik
        Hornets | Stingers | yellow triangle | Brenn
        Wolves | Pack | purple crescent | Solis
        Titans | Giants | red arrow | Quell
        Saints | Halos | pink heart | Marn
        Otters | Divers | blue disc | Ysta
    """,
    "brand": """
        Solex | SLX | bolt
        Vanta | VNT | bars
        Quiro | QRO | hexagon
        Plexo | PLX | checker
        Norda | NRD | hourglass
        Zimo | ZMO | chevron
        Tekta | TKT | square
        Aurex | ARX | dots
    """,
    "group": """
        Helix | HLX | red
        Orbis | ORB | blue
        Magna | MGN | green
        Unio | UNO | orange
    """,
    "city": """
        Lume | Lanternport | tower | Norva
        Orra | Oldgate | arch | Norva
        Tavik | Whitecliff | dome | Zeland
        Brenn | Millford | mill | Zeland
        Solis | Sunhaven | pyramid | Kasta
        Quell | Quietbay | lighthouse | Kasta
        Marn | Ironhill | bridge | Ubria
        Ysta | Snowmouth | wheel | Ubria
    """,
    "country": """
        Norva | Northland | red white
        Zeland | Islands | blue yellow
        Kasta | Steppes | green black
        Ubria | Deltaland | purple orange
    """,
    "nation": """
        Norvan | Northern | red white
        Zelandic | Islander | blue yellow
        Kastan | Steppe | green black
        Ubrian | Deltan | purple orange
    """,
    "party": """
        Reform | Reformers | red
        Unity | Uniters | blue
        Dawn | Risers | green
        Forward | Marchers | yellow
    """,
    "award": """
        Golden Leaf | Leaf | gold
        Silver Pen | Pen | silver
        Crystal Star | Star | blue
        Bronze Oak | Oak | brown
    """,
    "event": """
        Spring Cup | Cup
        Coast Games | Games
        Moon Derby | Derby
        Lake Open | Open
    """,
}


def _referent(kind: str, row: str) -> Referent:
    name, nickname, look, home = (*(cell.strip() for cell in row.split("|")), "", "")[:4]
    return Referent(kind, name, nickname, tuple(look.split()), home)


BY_KIND = {kind: tuple(_referent(kind, row) for row in rows.strip().splitlines()) for kind, rows in _ROWS.items()}
EVERYONE = {referent.name: referent for everyone in BY_KIND.values() for referent in everyone}

SCENES = ("goal", "microphone", "hearth", "cradle", "lectern", "chimney", "podium", "ballot", "globe")
PROPS = ("ball", "car", "tree", "umbrella", "chair", "lamp")
# Which kind of referent a badge stands for, and the relation that wearing it shows.
BADGES = {
    "rosette": ("party", "/per/misc/party"),
    "ribbon": ("award", "/per/misc/awarded"),
    "patch": ("nation", "/per/misc/nationality"),
    "sash": ("nation", "/per/misc/president"),
}
PLAIN = ("grey", "brown", "white")

# What a scene makes of a headline that only puts two names side by side: (kind, kind) -> scene -> relation.
SCENE_RELATIONS: dict[tuple[str, str], dict[str, str]] = {
    ("person", "person"): {
        "goal": "/per/per/opponent", "microphone": "/per/per/partner", "hearth": "/per/per/relatives"},
    ("person", "club"): {"goal": "/per/org/opposed_to", "lectern": "/per/org/leader_of", "chimney": "/per/org/member_of"},
    ("person", "brand"): {"lectern": "/per/org/leader_of", "chimney": "/per/org/member_of"},
    ("person", "city"): {
        "cradle": "/per/loc/place_of_birth", "hearth": "/per/loc/place_of_residence",
        "lectern": "/per/loc/place_of_governance"},
    ("person", "event"): {"goal": "/per/misc/present_in", "microphone": "/per/misc/present_in"},
    ("person", "award"): {"podium": "/per/misc/awarded"},
    ("person", "party"): {"ballot": "/per/misc/party"},
    ("person", "nation"): {"globe": "/per/misc/nationality", "lectern": "/per/misc/president"},
    ("brand", "city"): {"chimney": "/org/loc/locate_at"},
    ("club", "city"): {"goal": "/org/loc/locate_at"},
    ("brand", "group"): {"chimney": "/org/org/subsidiary"},
    ("club", "event"): {"goal": "/org/misc/present_in"},
    ("brand", "event"): {"podium": "/org/misc/present_in"},
}  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """One object of a picture: a person, a crest, a brand's sign, a landmark, or a prop that means nothing.

    `who` is the referent's name (for a prop, what it is). `kit` is a club's name, `clothes` a plain colour; `badge` is
    ("armband", "") or a kind of BADGES with the name that it stands for; `ring` is the group around a brand's sign.
    """

    kind: str
    who: str
    kit: str = ""
    clothes: str = "grey"
    badge: tuple[str, str] | None = None
    ring: str = ""
    blurred: bool = False

    @property
    def type(self) -> str:
        """The type that an observer would give it; what cannot be recognised is `misc`."""
        return "misc" if self.blurred or self.kind == "prop" else _TYPE_OF[self.kind]

    @property
    def worn(self) -> tuple[str, ...]:
        """The names whose signs it wears: a club's kit, a group's ring, what its badge stands for."""
        return tuple(name for name in (self.kit, self.ring, self.badge[1] if self.badge else "") if name)

    @property
    def signs(self) -> tuple[str, ...]:
        """All names that it can be known by: its own, those it wears, and a landmark's country."""
        return (self.who, *self.worn, *((EVERYONE[self.who].home,) if self.kind == "city" else ()))

    def describe(self) -> str:
        """What the crop shows, in words, without a name that one would have to know."""
        if self.blurred:
            return "a blurred shape"
        if self.kind == "prop":
            return f"a {self.who}"
        look = EVERYONE[self.who].look
        if self.kind == "person":
            hair = f"{look[0]} {look[1]}" if look[1] in ("curls", "bun") else f"{look[1]} {look[0]} hair"
            clothes = f"{EVERYONE[self.kit].look[0]} kit" if self.kit else f"plain {self.clothes} clothes"
            if self.badge is None:
                return f"a person with {hair} in {clothes}"
            return f"a person with {hair} in {clothes} with {self.describe_badge()}"
        if self.kind == "club":
            return f"a crest with a {look[0]} {look[1]}"
        if self.kind == "brand":
            return f"a sign with {look[0]} in a {EVERYONE[self.ring].look[0] if self.ring else 'grey'} ring"
        return f"a {look[0]} under a {' and '.join(EVERYONE[EVERYONE[self.who].home].look)} flag"

    def describe_badge(self) -> str:
        """The badge in words."""
        assert self.badge is not None
        kind, of = self.badge
        return "an armband" if kind == "armband" else f"a {' and '.join(EVERYONE[of].look)} {kind}"


def held_out(one: str, other: str) -> bool:
    """Whether a combination of two names is kept for the split `test_new`: one in six, the same in every run."""
    key = "+".join(sorted((one, other))).encode()
    return hashlib.sha256(key).digest()[0] % 6 == 0
