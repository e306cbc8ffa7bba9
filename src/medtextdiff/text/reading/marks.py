"""What de-identification left in notes: `[**...**]` of MIMIC-III, `___` of MIMIC-IV."""

import re
from typing import Literal

Handling = Literal["words", "drop", "keep"]

_TYPED = re.compile(r"\[\*\*(.{0,200}?)\*\*\]", re.DOTALL)
_BLANK = re.compile(r"_{3,}")
REMOVED = "redacted"  # stands for ___, which says nothing of what it was, and for what no rule knows
_WORDS = (  # the first that is found in a mark decides
    (re.compile(r"hospital|medical center|ward|unit name|clinic", re.I), "hospital"),
    (re.compile(r"name|initial|doctor|attending|dictator|contact", re.I), "name"),
    (re.compile(r"location|address|state|country|city|street|county|zip|university|college", re.I), "place"),
    (re.compile(r"age over|age *\(", re.I), "age"),
    (re.compile(r"telephone|fax|phone|pager", re.I), "phone"),
    (re.compile(r"date|month|year|day|holiday", re.I), "date"),
    (re.compile(r"number|identifier|\bmd\b|clip|record|ssn|job|serial|provider|e-?mail|url", re.I), "number"),
    (re.compile(r"company|employer", re.I), "company"),
    (re.compile(r"^[\s\d/:-]*\d[\s\d/:-]*$"), "date"),
)


def replace(text: str, handling: Handling = "words") -> str:
    """The text with its marks as plain words, without them, or as they are.

    words: a typed mark becomes the word for what was there ("date", "name", "hospital", "place", "phone", "age",
    "number", "company"), `___` and an unknown mark become "redacted". drop: a blank.
    """
    if handling == "keep":
        return text
    if handling == "drop":
        return _BLANK.sub(" ", _TYPED.sub(" ", text))
    return _BLANK.sub(REMOVED, _TYPED.sub(lambda found: word_for(found.group(1)), text))


def word_for(mark: str) -> str:
    """The word that stands for a mark; `mark` is what is between the stars."""
    for pattern, word in _WORDS:
        if pattern.search(mark):
            return word
    return REMOVED
