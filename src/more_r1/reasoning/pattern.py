"""A trace as a regular expression, for decoders that keep a form by one; and what is left of a trace that was cut off."""

from __future__ import annotations

import re
from collections.abc import Sequence

from more_r1.reasoning.trace import STEPS

ANSWER = " </think><answer>"
"""What follows the words of the last step."""

# The words look neither ahead nor back: no tags, no `Step`, nothing that stands for half a character, and the first one is not
# blank. After an S comes what does not go on to `Step`; they may end anywhere.
_BLANK = "\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_NEVER = "<>\ufffd"
_BEGUN = "S(?:S|tS|teS)*"
_OTHER = f"{_BEGUN}(?:[^{_NEVER}St]|t[^{_NEVER}Se]|te[^{_NEVER}Sp])"
_LAST = f"{_BEGUN}(?:te?)?"
WORDS = f" ?(?:(?:[^{_NEVER}{_BLANK}S]|{_OTHER})(?:[^{_NEVER}S]|{_OTHER})*(?:{_LAST})?|{_LAST})"
"""The words of a step, with the blank before them."""
TRACE = "<think>" + "".join(f" Step {number}:{WORDS}" for number in range(1, STEPS + 1)) + ANSWER
"""Whatever matches it and goes on with a label and `</answer>` is read by `parse_trace`."""


def steps_so_far(text: str) -> list[str]:
    """The words of each step of a beginning of a trace, blanks before them included, without what a cut may have left of a mark
    or of a character; a last step without words is left out."""
    words = [re.sub(r"(?s: ?(?:Step|<).*|\ufffd+\Z)", "", piece) for piece in re.split(r" Step \d:", text)[1:]]
    return [piece for piece in words if piece.strip()]


def beginning(steps: Sequence[str]) -> str:
    """The beginning of a trace with the words of these steps, blanks before them included."""
    return "<think>" + "".join(f" Step {number}:{words}" for number, words in enumerate(steps, 1))
