"""Notes that follow their image: when a picture is mirrored or turned, its place words are too.

Whose left a note means does not matter for mirroring: the viewer's left half becomes the right half, and so does the
patient's (whose left is on the viewer's right, before *and* after). The words swap under both conventions.

What words cannot say: a mirrored chest has its heart on the other side, and no note tells. So mirror where anatomy has
no side (histology, skin, endoscopy) or where more variety is worth it.

A quarter turn is another matter: "left" becomes "lower" or "upper" by whose left it is, and only where it says a place
in the picture. A dilated left ventricle does not become a lower one, so what follows each place word must allow it.

Known limits: "right" and "left" in other senses ("all right", "left untreated", "right away") are swapped too; single
letters (R, L), "dextro-", and lists of figure panels are not.
"""

import re
from collections.abc import Callable, Mapping

from medtextdiff.types import Side

_SIDES = {"left": "right", "right": "left", "rigth": "left", "rihgt": "left"}  # with typos seen in public sets
_LOBES = {"RUL": "LUL", "RML": "LML", "RLL": "LLL", "RUQ": "LUQ", "RLQ": "LLQ"}
_LOBES |= {value: key for key, value in _LOBES.items()}
_HEIGHTS = {
    "upper": "lower",
    "top": "bottom",
    "above": "below",
    "superior": "inferior",
    "superiorly": "inferiorly",
    "uppermost": "lowermost",
    "topmost": "bottommost",
    "upward": "downward",
    "upwards": "downwards",
}
_HEIGHTS |= {value: key for key, value in _HEIGHTS.items()}
_UPRIGHT_LOBES = {"RUL": "RLL", "LUL": "LLL", "RUQ": "RLQ", "LUQ": "LLQ"}
_UPRIGHT_LOBES |= {value: key for key, value in _UPRIGHT_LOBES.items()}

_PLAIN = str.maketrans({"\u0131": "i", "\u0307": None, "\u017f": "s"})  # Turkish i, lower and upper; long s

# A side may carry an ending: leftmost, leftward, right-sided, lefthand. "Bilateral" has no side in it.
_SIDE = re.compile(r"(?<![a-z])(left|right|rigth|rihgt)(?=(?:most|wards?|sided|hand|side)?(?![a-z]))", re.IGNORECASE)
_HEIGHT = re.compile(rf"(?<![a-z])({'|'.join(sorted(_HEIGHTS, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)
_LOBE = re.compile(r"(?<![A-Za-z])([RL][UML][LQ])(?![A-Za-z])")
_HOUR = r"(?:1[0-2]|[1-9])(?!\d)"
# "3 o'clock"; and the first of "3 to 5 o'clock", "between 10 and 2 o'clock", "3, 5 and 7 o'clock".
_CLOCK = re.compile(
    rf"(?<![\d.:])({_HOUR})(?=(?:(?:\s*,\s*{_HOUR})*\s*,?\s*(?:to|and|or|through|until|till|[-–&/])\s*{_HOUR})?"
    r"\s*o\s*['’]?\s*clock)",
    re.IGNORECASE,
)

# Turned by a quarter against the clock: what was up is left, left is down, down is right, right is up.
_VERTICAL = {"upper": "left", "top": "left", "lower": "right", "bottom": "right"}
_HORIZONTAL = {"left": True, "right": False, "rigth": False, "rihgt": False}  # is it down afterwards?
_PLACE = re.compile(
    r"(?<![a-z])(?:(upper|top|lower|bottom)(\W{1,2}))?(left|right|rigth|rihgt)(?![a-z])"
    r"|(?<![a-z])(upper|top|lower|bottom)(?![a-z])",
    re.IGNORECASE,
)
# What may follow a place word that speaks of the picture: a part of it, and then the end of the thought.
_PARTS = "corner|half|part|side|quadrant|edge|region|area|border|margin|portion|cent(?:er|re)|middle"
_PICTURES = "image|picture|photo|photograph|frame|slide|tile|patch|crop|view|field|micrograph"
_SIDES_AND_HEIGHTS = "upper|top|lower|bottom|left|right|rigth|rihgt"
_PLACE_WORD = re.compile(rf"(?<![a-z])(?:{_SIDES_AND_HEIGHTS})(?![a-z])", re.IGNORECASE)
_IN_PICTURE = re.compile(
    rf"(?:[\s-]+(?:{_PARTS})s?)?"
    rf"(?:\s*(?:$|[^\w\s-])|[\s-]+(?:{_SIDES_AND_HEIGHTS})(?![a-z])"
    rf"|\s+(?:of|in)(?:\s+(?:the|this|an?))?(?:\s+\w+)?\s+(?:{_PICTURES})s?(?![a-z])"
    r"|\s+(?:is|are|was|were|has|have|had|with|while|where|which|that|shows?)(?![a-z])"
    rf"|\s+(?:and|or|but|to)\s+(?:\d|(?:in|at|on|the|an?|is|are|high|low|{_PARTS}|{_SIDES_AND_HEIGHTS})(?![a-z])))",
    re.IGNORECASE,
)
# Words that say a place or direction which a quarter turn changes and no word-for-word rule can follow.
_UNTURNABLE = re.compile(
    r"(?<![a-z])((left|right|upper|lower|top|bottom)(most|wards?|sided|hand|side)|(left|right)-(sided|hand|side)|above|"
    r"below|superior(ly)?|inferior(ly)?|(up|down)wards?|uppermost|lowermost|bilateral(ly)?|unilateral(ly)?|horizontal(ly)?|"
    r"vertical(ly)?|anterior(ly)?|posterior(ly)?|medial(ly)?|lateral(ly)?|lungs?|lobes?|kidneys?|breasts?|"
    r"(is|are|was|were|much|slightly|even) lower)(?![a-z])",
    re.IGNORECASE,
)


def mirror_note(note: str) -> str:
    """The note of the picture mirrored left to right: left and right swap, case kept; "3 to 5 o'clock" becomes 9 to 7.

    "Bilateral", "unilateral" and words without a side stay as they are.
    """
    note = _swap(note, _SIDE, _SIDES)
    note = _LOBE.sub(lambda match: _LOBES.get(match[1], match[1]), note)
    return _CLOCK.sub(lambda match: str((-int(match[1])) % 12 or 12), note)


def flip_note_vertical(note: str) -> str:
    """The note of the picture flipped top to bottom, for sets whose notes speak of the picture.

    Swaps upper/lower, top/bottom, above/below, superior/inferior and the like; "12 o'clock" becomes 6.
    """
    note = _swap(note, _HEIGHT, _HEIGHTS)
    note = _LOBE.sub(lambda match: _UPRIGHT_LOBES.get(match[1], match[1]), note)
    return _CLOCK.sub(lambda match: str((6 - int(match[1])) % 12 or 12), note)


def flip_note(note: str, left_right: bool, top_bottom: bool) -> str:
    """The note of the picture mirrored left to right, flipped top to bottom, or both."""
    note = mirror_note(note) if left_right else note
    return flip_note_vertical(note) if top_bottom else note


def rotate_note_90(note: str, side: Side = "viewer") -> str | None:
    """The note of the picture turned a quarter against the clock (`torch.rot90`), or None where words cannot follow.

    "upper right" becomes "upper left", "left" becomes "lower" ("bottom" where the note says top or bottom); the
    patient's left (`side`), which is on the viewer's right, becomes "upper". None: a place word that may not be the
    picture's (a left lung does not become a lower one, nor the upper third of a femur a left one), or a direction such
    as "bilateral".
    """
    if _UNTURNABLE.search(note) or _LOBE.search(note):
        return None
    if not all(_IN_PICTURE.match(note, match.end()) for match in _PLACE_WORD.finditer(note)):
        return None
    if side == "patient":
        turned = rotate_note_90(_swap(note, _SIDE, _SIDES))
        return None if turned is None else _swap(turned, _SIDE, _SIDES)
    names = (
        ("top", "bottom") if re.search(r"(?<![a-z])(top|bottom)(?![a-z])", note, re.IGNORECASE) else ("upper", "lower")
    )

    def turn(match: re.Match[str]) -> str:
        first, gap, side, alone = match.groups()
        if alone:
            return _cased(alone, _VERTICAL[_plain(alone)])
        down = names[_HORIZONTAL[_plain(side)]]
        if not first:
            return _cased(side, down)
        return f"{_cased(first, down)}{gap}{_cased(side, _VERTICAL[_plain(first)])}"

    note = _PLACE.sub(turn, note)
    return _CLOCK.sub(lambda match: str((int(match[1]) - 3) % 12 or 12), note)


def _swap(note: str, pattern: re.Pattern[str], pairs: Mapping[str, str]) -> str:
    change: Callable[[re.Match[str]], str] = lambda match: _cased(match[1], pairs[_plain(match[1])])  # noqa: E731
    return pattern.sub(change, note)


def _plain(word: str) -> str:
    """A word as the tables above spell it: where case is ignored, "RİGHT" and "rıght" match "right", too."""
    return word.lower().translate(_PLAIN)


def _cased(old: str, new: str) -> str:
    if old.isupper():
        return new.upper()
    return new.capitalize() if old[0].isupper() else new
