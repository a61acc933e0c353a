"""Does a text betray that its writer was given the answer? A list of phrases, found through disguises.

An expert is shown the gold and must write as if it did not know it. The list is of what such writers let slip. What an honest
writer needs is not on it: "given the headline", "among the given labels", "no relation is given", "the label on the bottle".
"""

from __future__ import annotations

import re
import unicodedata

# In these patterns a space stands for any gap, no gap too (what is spaced out letter by letter comes as one word), and \x20
# for one inside a sentence.
# Of the labels that all are shown one may speak, and of labels that are seen.
_NOT_THE_GOLD = (
    r"(?!\x20(?:labels|relations|types|names?|sets?|lists?|options?|choices|candidates|schema|space|inventory|pairs?|combinations?"
    r"|definitions?|descriptions?|meanings?|on|sewn|printed|stitched|attached)\b)"
)
_GOLD = rf"(?:label|answer|annotation|solution|relation|relationship|(?:object |entity )?types?)\b{_NOT_THE_GOLD}"
_ANSWER = rf"(?:label|answer|annotation|solution)\b{_NOT_THE_GOLD}"
_HANDED = "(?:given|provided|supplied|prescribed|specified|assigned|pre determined|pre defined|dictated|annotated)"
_TRUE = "(?:correct|right|true|actual|final|required|expected|reference|gold)"
_WE_WERE = "(?:i|we) (?:am|are|was|were|have been|had been)"
# Where an honest writer has things from: "as given in the headline".
_SEEN = (
    r"(?!\x20(?:(?:here|only|also|above|earlier) )?(?:in|by|on|from|through|to|with|at) (?:(?:the|this|its|both|whole|step) )*"
    "(?:headline|text|caption|title|news|article|words?|sentence|pictures?|images?|photo|photograph|crop|scene|kit|jersey|logo"
    r"|sign|[1-6])\b)"
)
_PHRASES = (
    # by its name
    f"gold(?:en)?(?: standard)? (?:labels|answers|relations|annotations|{_GOLD})",
    "ground truth",
    "answer key",
    f"(?:true|actual|official|known|annotated) {_ANSWER}",
    f"(?:hidden|secret|reference|expected|desired|intended|target|required) {_GOLD}",
    r"annotat(?:ions?|ors?)\b",
    "(?:pair|example|sample|instance) (?:is|was|has been) (?:labell?ed|tagged|annotated)",
    "(?:data ?set|benchmark) (?:says|states|gives|labels|tells)",
    "(?:according to|per|from|by) the (?:data ?set|benchmark)",
    # as what was handed over
    f"pre (?:given|defined|determined|assigned|specified|set) {_GOLD}",
    f"(?:the|this|that|its|your|my|our|with|to|of|by) {_HANDED} (?:{_TRUE} )?{_GOLD}",
    f"(?:the|this|that|its) (?:{_TRUE} )?{_GOLD} (?:is|was|are|were|has been|have been|being)(?: already)? "
    f"(?:{_HANDED}|known|told){_SEEN}",
    f"(?:the|this|that) (?:{_TRUE} )?{_GOLD} (?:(?:that|which) )?{_WE_WERE} (?:given|told|provided|shown)",
    f"(?:i|we) (?:already )?know (?:that )?the (?:{_TRUE} )?{_ANSWER}",
    f"{_WE_WERE} (?:given|told|shown|provided|supplied|handed)(?: (?:with|that|of|the|this|both))* (?:{_TRUE} )?{_GOLD}",
    f"given (?:that )?(?:the|this) (?:{_TRUE} |known )?{_ANSWER}",
    f"(?:according to|based on|judging by|because of) the (?:{_TRUE} )?{_ANSWER}",
    f"(?:match|matches|matching|fits|agrees|agreeing|consistent|conforms|aligns|aligned|in line|accordance)(?: (?:with|to))? "
    f"the (?:answer|{_TRUE} {_GOLD})",
    f"(?:justify|justifies|justifying|explain|explains|explaining) the {_TRUE} {_GOLD}",
    # as an order
    f"as (?:already )?(?:given|provided|supplied|specified){_SEEN}(?!\\x20(?:by|to|names?)\\b)",
    r"as (?:told|requested|directed|required)(?!\x20(?:to|by|in|of|for|under|at|from|on|with|about)\b)",
    f"as (?:{_WE_WERE} )?(?:instructed|prompted|prescribed|dictated)",
    f"as {_WE_WERE} (?:told|given|asked|requested|required|directed)",
    f"{_WE_WERE} (?:instructed|asked to (?:reach|conclude|justify|explain|arrive|end))",
    "(?:per|following|according to|as in|by) (?:the|my|your) (?:instructions?|prompt|task description|user)",
    "(?:instructions?|prompt|user) (?:says?|states?|tells?|told|gives?|gave|provides?|provided|requires?|demands?|specifies)",
    # as what was to be hidden
    "pretend(?:s|ing)? (?:that )?(?:i|we|not to know|it (?:is|was) (?:not|un))",
    "(?:as if|as though) (?:i|we) (?:do|did|had|was|were|have)(?: not|n t| never)",
    f"(?:reveal|revealing|hint|hinting|betray|betraying|disclose|disclosing|giving away|mention|mentioning)"
    f"(?: (?:at|that|of|the|any|it|was|i))* {_ANSWER}",
    "(?:i|we) (?:must|have to|need to|should) (?:conclude with|end with|arrive at|justify)",
    "(?:work|works|working|reason|reasons|reasoning) backwards? from",
    "rationali[sz](?:e|es|ed|ing|ation)",
)
_GAP = r"(?: (?:\. )?)?"
_BETRAYAL = re.compile("|".join(rf"\b(?:{phrase})\b" for phrase in _PHRASES).replace(" ", _GAP))
_SPACED = re.compile(r"\b[a-z](?: (?:\. )?[a-z]){3,}\b")
# Letters of other scripts that look like Latin ones, and Latin ones that are no plain letter with an accent.
_LOOKALIKES = str.maketrans(
    "авԁегһіјкӏмнорсѕтухѵԝ" + "αβεηικνορτυχγω" + "ıɡɑłøđ",
    "abderhijklmhopcstyxvw" + "abenikvoptuxyw" + "igalod",
)


def betrayal(text: str) -> str | None:
    """The first phrase that betrays the gold, as it reads without its disguise; None where there is none.

    Case, accents, look-alike letters, invisible characters, punctuation and spacing make no difference.
    """
    sentences = " . ".join(" ".join(words(sentence)) for sentence in re.split(r"[.!?;]", text))
    found = _BETRAYAL.search(_SPACED.sub(lambda spaced: re.sub("[ .]", "", spaced[0]), sentences))
    return found[0] if found else None


def words(text: str) -> list[str]:
    """The words of a text without disguise: plain letters and digits in lower case."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold()).translate(_LOOKALIKES)
    # Accents and what cannot be seen (zero-width spaces, soft hyphens) are no part of a word and do not end one.
    hidden = {ord(c): None for c in set(decomposed) if unicodedata.category(c) in ("Mn", "Mc", "Me", "Cf")}
    return re.findall(r"[^\W_]+", decomposed.translate(hidden))
