"""What in a note looks as if it named a person: kinds and places, never the words themselves."""

import re
from typing import NamedTuple

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|"
    r"Nov(?:ember)?|Dec(?:ember)?)"
)
_CAPITAL = "".join(letter for letter in map(chr, range(0x530)) if letter.isupper())  # Latin, Greek, Cyrillic
_NAME = rf"[{_CAPITAL}](?:[^\W\d_]|['’-])+"
_KINDS = {
    "date": re.compile(
        r"(?<![\d.])(?:\d{1,2}[./-]\d{1,2}[./-](?:19|20)?\d{2}|(?:19|20)\d{2}[./-](?:0?[1-9]|1[0-2])[./-]\d{1,2})(?![\d])"
        rf"|\b\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH}\b|\b{_MONTH}\.? \d{{1,2}}(?:st|nd|rd|th)?\b(?! (?:mm|cm|days))"
        rf"|\b{_MONTH},? (?:19|20)\d{{2}}\b"
    ),
    "name": re.compile(
        # not "MR" and "DR" alone: they are kinds of images, too
        rf"\b(?:(?:Mr|Mrs|Ms|Miss|Dr|Prof)(?:\. ?| )|(?:DR|PROF|MRS)\. ?){_NAME}"
        rf"|\b(?:[Pp]atient(?:'s)? [Nn]ame|[Nn]ame|[Ss]urname|[Rr]eferring [Pp]hysician)\s*[:=]\s*{_NAME}"
        rf"|\b(?:[Ss]igned|[Dd]ictated|[Rr]eported|[Rr]ead)(?: electronically)? by:? (?:Dr\.? )?{_NAME}"
    ),
    "id": re.compile(
        r"\b(?:MRN|[Mm]edical record|[Aa]ccession|[Cc]ase [Nn]o|[Pp]atient (?:ID|[Nn]o|[Nn]umber)|SSN|NHS)\b"
        r"(?: number| no)?\W{0,3}(?=[A-Z0-9-]*\d)[A-Z0-9-]+"
        r"|(?<![\w.,/-])\d{3}-\d{2}-\d{4}(?![\w-])|(?<![\w.,/])(?:[A-Z]{1,3})?\d{7,}(?![\w.,])"
    ),
    "contact": re.compile(
        r"[\w.+-]+@[\w-]+\.[\w.]{2,}|(?<!\w)\+\d{2}[ \d]{8,}"
        r"|\b(?:[Tt]el(?:ephone)?|[Mm]obile|[Pp]hone|[Ff]ax)\b\W{0,3}\+?[\d(][\d ()/-]{5,}"
    ),
}


class Trace(NamedTuple):
    """Something that looks like a `kind` begins at `column` (counted from 1) of a note."""

    kind: str
    column: int


def traces(note: str) -> list[Trace]:
    """Dates, names, record numbers and contacts by their look, in order. A list to look through, not a proof.

    Names are found by what stands before them ("Dr", "Name:"); a name alone is not. Ages are not looked for.
    """
    matches = [
        (match.start(), match.end(), kind) for kind, pattern in _KINDS.items() for match in pattern.finditer(note)
    ]
    found, covered = [], -1
    for start, end, kind in sorted(matches):
        if start >= covered:  # a phone number is not a record number, too
            found.append(Trace(kind, start + 1))
            covered = end
    return found
