"""The grammar of headlines: what may be said of two names, or of one, in many forms.

A slot is `{a}` (who the object may be), `{b}` (whom it is asked against), `{q}` (a player of a). Tokens are parted by spaces.
"""

from __future__ import annotations

from random import Random

# The headline says the relation of {a} to {b}.
SAID: dict[str, tuple[str, ...]] = {
    "/per/per/opponent": ("{a} beats {b}", "{a} defeats {b} on points", "{b} loses to {a}", "{a} duels with {b}",
                          "rivals {a} and {b} clash", "{a} knocks {b} down"),
    "/per/per/partner": ("{a} sings with {b}", "{a} teams up with {b}", "duo {a} and {b} shine", "{a} dances beside {b}",
                         "{b} and {a} share duet", "{a} films new series with {b}"),
    "/per/per/relatives": ("siblings {a} and {b} reunite", "{a} marries {b}", "{b} visits cousin {a}",
                           "{a} and spouse {b} arrive", "{a} thanks brother {b}", "{b} adopts {a}"),
    "/per/org/opposed_to": ("{a} scores against {b}", "{a} sues {b}", "{b} fear {a}", "{a} ends hopes of {b}",
                            "{a} protests against {b}"),
    "/per/org/leader_of": ("{a} takes helm of {b}", "{b} chief {a} speaks", "{b} coach {a} smiles", "{a} captains {b}",
                           "{a} named head of {b}"),
    "/per/org/member_of": ("{a} signs for {b}", "{b} hire {a}", "{b} striker {a} rests", "{a} works for {b}",
                           "{a} stays with {b}"),
    "/per/loc/place_of_birth": ("{b} born {a} returns", "{b} honours native {a}", "{a} , child of {b}",
                                "{a} shows birthplace {b}", "{a} remembers birth in {b}"),
    "/per/loc/place_of_residence": ("{a} lives in {b}", "{a} moves to {b}", "{b} resident {a} complains",
                                    "{a} at home in {b}", "{a} buys house in {b}"),
    "/per/loc/place_of_governance": ("{b} mayor {a} speaks", "{a} governs {b}", "{a} elected to rule {b}",
                                     "{b} council follows {a}", "{a} opens budget of {b}"),
    "/per/misc/present_in": ("{a} competes at {b}", "{a} qualifies for {b}", "{b} sees {a} start", "{a} shines at {b}",
                             "{b} : {a} takes part"),
    "/per/misc/awarded": ("{a} wins {b}", "{b} goes to {a}", "{a} receives {b}", "{a} honoured with {b}",
                          "jury gives {b} to {a}"),
    "/per/misc/party": ("{a} runs for {b}", "{b} candidate {a} campaigns", "{a} votes with {b}", "{b} nominates {a}",
                        "{a} speaks for {b}"),
    "/per/misc/nationality": ("{b} singer {a} tours", "{b} star {a} travels", "{b} passport for {a}", "{b} citizen {a} returns",
                              "{a} , {b} guest , arrives"),
    "/per/misc/president": ("{b} president {a} speaks", "{a} sworn in as {b} president", "{b} head of state {a} travels",
                            "{b} parliament elects {a} president"),
    "/org/org/subsidiary": ("{b} buys {a}", "{a} becomes unit of {b}", "{b} takes over {a}", "{b} division {a} grows",
                            "{a} falls to {b}"),
    "/org/loc/locate_at": ("{a} open hall in {b}", "{a} move office to {b}", "{b} welcomes {a}", "{a} build in {b}",
                           "{a} settle in {b}"),
    "/org/misc/present_in": ("{a} enter {b}", "{a} qualify for {b}", "{b} : {a} through", "{a} sponsor {b}", "{b} draws {a}"),
}  # fmt: skip

# Two names side by side; the scene decides.
NEUTRAL = ("{a} and {b} in focus", "seen today : {a} and {b}", "{b} and {a} again", "the story of {a} and {b}",
           "{a} , {b} : picture of the day", "{b} day for {a}", "all about {a} and {b}")  # fmt: skip

# One club plays another, {a} against {b}; with a player {q} of {a}; and with an event {e}.
MATCH = ("{a} face {b}", "{a} beat {b}", "{b} lose to {a}", "{a} hold {b} to draw", "{a} trail {b}",
         "late goal saves {a} against {b}")  # fmt: skip
MATCH_PLAYER = ("{q} leads {a} past {b}", "{b} stop {q} and {a}", "{q} lifts {a} over {b}", "{a} rest {q} against {b}")
MATCH_EVENT = ("{a} meet {b} at {e}", "{a} knock {b} out of {e}", "{e} : {a} against {b}", "{a} and {b} open {e}")
CLUB_EVENT = ("{a} reach {e}", "{a} prepare for {e}", "{e} awaits {a}", "{a} start {e} well")

# One name alone.
ALONE: dict[str, tuple[str, ...]] = {
    "person": ("{b} speaks out", "interview with {b}", "{b} arrives", "crowd greets {b}", "{b} in tears", "life of {b}"),
    "club": ("{b} celebrate", "fans greet {b}", "{b} in crisis", "{b} train hard", "new bus for {b}"),
    "brand": ("{b} shares rise", "{b} cuts jobs", "{b} shows new phone", "strike at {b}"),
    "group": ("{b} reports profit", "{b} shows its brands", "probe into {b}", "{b} plans spree"),
    "city": ("storm hits {b}", "{b} opens new road", "visitors flock to {b}", "{b} celebrates", "snow in {b}"),
    "country": ("{b} votes", "{b} marks holiday", "heat wave in {b}", "{b} closes border"),
    "nation": ("{b} guests arrive", "{b} delegation lands", "{b} night in town", "{b} visitors welcome"),
    "party": ("{b} holds rally", "{b} gains votes", "crowd cheers {b}", "{b} in talks"),
    "award": ("{b} handed out", "night of {b}", "gala for {b}", "{b} season begins"),
    "event": ("{b} begins", "rain delays {b}", "tickets for {b} gone", "{b} ends"),
}  # fmt: skip

BEFORE = ("on Monday", "late Friday", "breaking :", "photo :", "this week", "in the rain", "report :", "after long wait")
AFTER = ("again", "this week", "says report", "as thousands watch", "in photos", "after break", "for first time", "at last")
JOIN = ("as", "while", ";", "and")


def fill(template: str, slots: dict[str, tuple[str, ...]]) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """Put the names into a template: its tokens, and where each slot's name stands in them as [start, end)."""
    tokens: list[str] = []
    places: dict[str, tuple[int, int]] = {}
    for piece in template.split():
        if piece.startswith("{"):
            slot = piece.strip("{}")
            places[slot] = (len(tokens), len(tokens) + len(slots[slot]))
            tokens.extend(slots[slot])
        else:
            tokens.append(piece)
    return tokens, places


def adorn(tokens: list[str], random: Random) -> tuple[list[str], int]:
    """Add words before or after that say nothing; also how far the tokens moved."""
    before = random.choice(BEFORE).split() if random.random() < 0.3 else []
    after = random.choice(AFTER).split() if random.random() < 0.3 else []
    return [*before, *tokens, *after], len(before)


def words() -> set[str]:
    """All words of the grammar."""
    tables = [*SAID.values(), *ALONE.values(), NEUTRAL, MATCH, MATCH_PLAYER, MATCH_EVENT, CLUB_EVENT, BEFORE, AFTER, JOIN]
    return {word for table in tables for form in table for word in form.split() if not word.startswith("{")}
