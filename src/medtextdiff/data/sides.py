"""Which side a note puts the finding on, and whether the mask agrees. Careful: it is silent where it is not sure."""

import re
from typing import Literal

import numpy as np
from jaxtyping import Int

from medtextdiff.types import IGNORE, Side

Sides = frozenset[str]  # of "left" and "right"; both, one, or none at all

_LUNG_SENTENCE = re.compile(r"\s*(bilateral|unilateral|no) pulmonary infection", re.IGNORECASE)
_LUNG = re.compile(r"((?:\b(?:all|upper|middle|midlle|lower)\b[\s,]*|\band\b\s*)*)\b(left|right) lung", re.IGNORECASE)
_SIDE = re.compile(r"(?<![a-z])(left|right|rigth)(?![a-z])", re.IGNORECASE)
_NEITHER = re.compile(r"(?<![a-z])(bilateral(ly)?|both|cent(er|re|ral)|middle|whole|all|around|diffuse)(?![a-z])", re.I)
_NOTHING = re.compile(r"\s*no\b(?! longer)", re.IGNORECASE)
_LONGEST = 30  # words; a longer note tells a history, in which a side need not be the finding's

# The share of the mask that must lie on the other half before we object. Nuclei that are merely denser on one side
# never reach it; of MosMedData+'s slices with one sick lung all do when the sides are taken wrongly.
_OTHER_HALF = 0.9
_ONE_HALF = 0.998


def claimed_sides(note: str) -> Sides | None:
    """The sides on which the note puts something; None where it does not say so clearly.

    LViT's lung sentences: a lung that is named without all, upper, middle or lower is the *clear* one ("one infected
    areas, left lung and middle right lung": right only).
    """
    sentence = _LUNG_SENTENCE.match(note)
    if sentence:
        if sentence[1].lower() == "no":
            return frozenset()
        zones = _LUNG.findall(note)
        sick = {side.lower() for zone, side in zones if re.search(r"[a-z]", re.sub(r"\band\b", "", zone.lower()))}
        return frozenset(sick) or None
    if len(note.split()) > _LONGEST or _NEITHER.search(note):
        return None
    if _NOTHING.match(note):
        return None
    sides = {"right" if side.lower() == "rigth" else side.lower() for side in _SIDE.findall(note)}
    return frozenset(sides) if len(sides) == 1 and not _elsewhere(note) else None


def denies(note: str) -> bool:
    """Whether the note is one short sentence that begins with "No": there is nothing."""
    return bool(_NOTHING.match(note)) and len(note.split()) <= _LONGEST and ". " not in note.strip()


def contradiction(note: str, mask: Int[np.ndarray, "H W"], side: Side) -> Literal["side", "one-sided"] | None:
    """Whether the mask lies where the note says nothing is. `side`: whose left the note means.

    "side": one side is claimed and the mask is on the other; "one-sided": both are claimed and one half is empty.
    """
    sides = claimed_sides(note)
    left = _left_share(mask)
    if not sides or left is None:
        return None
    if len(sides) == 2:
        return "one-sided" if max(left, 1 - left) > _ONE_HALF else None
    in_picture_left = (sides == {"left"}) == (side == "viewer")
    other = 1 - left if in_picture_left else left
    return "side" if other > _OTHER_HALF else None


def _elsewhere(note: str) -> bool:
    """Several places in one list ("top left, bottom"): the one with a side is not alone."""
    return (
        len(re.findall(r"\b(?:top|bottom|upper|lower|left|right)(?:[ -](?:left|right))?(?=\s*(?:,|and\b))", note, re.I))
        > 0
    )


def _left_share(mask: Int[np.ndarray, "H W"]) -> float | None:
    columns = ((mask != 0) & (mask != IGNORE)).sum(axis=0)
    total = int(columns.sum())
    if total == 0:
        return None
    width = len(columns)
    half = columns[: width // 2].sum() + (columns[width // 2] / 2 if width % 2 else 0)
    return float(half / total)
