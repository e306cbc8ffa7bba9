"""Notes told otherwise, to find out what a model takes from them: wrong, shortened, misspelt, reworded, buried.

Each function is pure: the same note and seed give the same text. A note that an edit does not concern comes back as
it is, so the caller can count how many were changed. Sides are swapped by `notes.mirror_note`.
"""

import hashlib
import math
import random
import re
from collections.abc import Callable, Hashable, Sequence

_PLACES = re.compile(
    r"(?<![a-z])(?:(?:upper|lower|mid|middle|midlle|top|bottom|cent(?:er|re|ral)|above|below|superior|inferior|medial"
    r"|lateral|bilateral|unilateral|anterior|posterior)(?:most|ly|wards?)?|(?:left|right|rigth|rihgt)"
    r"(?:most|wards?|-?sided|-?hand|side)?)(?![a-z])|(?<![A-Za-z])[RL](?:UL|ML|LL|UQ|LQ)(?![A-Za-z])",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z]{3,}")  # a shorter one has no letter to lose

# Found in LViT-style sentences and the prompts of polyps, nuclei and tumours. Order matters: whole phrases go first.
_REWORDED: tuple[tuple[str, str], ...] = (
    (r"bilateral pulmonary infection", "infection of both lungs"),
    (r"unilateral pulmonary infection", "infection of a single lung"),
    (r"no pulmonary infection", "lungs free of infection"),
    (r"no infected areas?", "no region affected"),
    (r"(\w+) infected areas?", r"regions affected: \1"),
    (r"all (left|right) lung", r"the whole \1 lung"),
    (r"(upper|middle|midlle|lower) (left|right) lung", r"the \1 part of the \2 lung"),
    (r"the nuclei density in the ([a-z ]+?) is high", r"nuclei crowd together in the \1"),
    (r"the nuclei density is higher", "nuclei crowd together"),
    (r"nuclei are (\w+) distributed", r"nuclei lie \1 scattered"),
    (r"located (in|at)", r"lying \1"),
    (r"of the image", "of the picture"),
    (r"in the breast ultrasound image", "on breast sonography"),
    (r"tumou?r", "mass"),
    (r"round", "rounded"),
)

UNRELATED = (
    "The library opens at nine on weekdays.",
    "Fresh bread is sold at the corner shop.",
    "The train to the coast was an hour late.",
    "She painted the fence green last summer.",
    "Tickets for the concert cost twelve euros.",
)

# Sentences that name no place and no finding, to stand before a note as the rest of a stay's record would.
_OTHER = (
    "The patient came on foot and gave the history alone.",
    "Blood was drawn before breakfast and sent to the laboratory.",
    "Vital signs were taken twice during the shift and were stable.",
    "Known allergies were asked for again; none were reported.",
    "The usual medicines were continued without any change of dose.",
    "Sleep was good and the appetite has come back.",
    "The family was told about the plan and agreed with it.",
    "Physiotherapy will begin tomorrow if the patient feels strong enough.",
    "An interpreter was present during the conversation.",
    "The dressing was changed and the skin looked dry and clean.",
    "Diet was advanced as tolerated over two days.",
    "A copy of this letter goes to the general practitioner.",
    "Insurance papers were completed by the ward clerk.",
    "The next appointment is in three weeks with the same team.",
    "No fever was recorded since admission.",
    "Pain was rated two out of ten after the usual tablet.",
)


def another(notes: Sequence[str], index: int, images: Sequence[Hashable] | None = None) -> str:
    """The note of the next image that differs from note `index`. `images`: which one each note is of; None: its own.

    Raises:
        ValueError: no other image has another note.
    """
    for step in range(1, len(notes)):
        other = (index + step) % len(notes)
        same_image = images is not None and images[other] == images[index]
        if notes[other].strip() and notes[other] != notes[index] and not same_image:
            return notes[other]
    raise ValueError("all images of this split share one note, so there is no other one; choose another split")


def drop_places(note: str) -> str:
    """The note without its words of side, height and lobe; "upper left lung" becomes "lung"."""
    if not _PLACES.search(note):
        return note
    left = re.sub(r"\s+([,.;:])", r"\1", re.sub(r"\s+", " ", _PLACES.sub("", note)))
    left = re.sub(r"([,;:])(?:\s*[,;:])+", r"\1", left).strip(" ,;:")
    return _capitalised_as(note, left)


def unrelated(note: str, seed: int = 0) -> str:
    """A sentence about something else; which one follows from the note and the seed."""
    return UNRELATED[_random(note, seed).randrange(len(UNRELATED))]


def misspell(note: str, share: float, seed: int = 0) -> str:
    """The note with a typo in `share` of its words: letters swapped, lost, doubled or mistaken.

    Short notes have no twentieth word: whether the last, partial one gets its typo is drawn, so that the share holds
    on average. The words of a smaller share are among those of a larger one.

    Raises:
        ValueError: a share outside 0..1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of misspelt words lies between 0 and 1; got {share}")
    chance = _random(note, seed)
    draws = [(chance.random(), chance.random(), match) for match in _WORD.finditer(note)]
    wanted = math.floor(share * len(note.split()) + chance.random())
    chosen = sorted(draws, key=lambda draw: draw[0])[:wanted]
    for _, how, match in sorted(chosen, key=lambda draw: -draw[2].start()):
        note = note[: match.start()] + _misspelt(match[0], how) + note[match.end() :]
    return note


def reword(note: str) -> str:
    """The same said in other words, by a list of phrases; as it is where none of them occurs."""
    told = note
    for pattern, replacement in _REWORDED:
        told = re.sub(rf"(?<![a-z]){pattern}(?![a-z])", replacement, told, flags=re.IGNORECASE)
    return _capitalised_as(note, told)


def other_text(num_tokens: int, count_tokens: Callable[[str], int], seed: int = 0) -> str:
    """Sentences of a clinical record that name no place and no finding, at least `num_tokens` long."""
    chance = random.Random(seed)
    sentences: list[str] = []
    while not sentences or count_tokens(" ".join(sentences)) < num_tokens:
        sentences += chance.sample(_OTHER, len(_OTHER))
    return " ".join(sentences)


def bury(note: str, text: str) -> str:
    """The note at the end of another text."""
    return f"{text} {note}" if note.strip() else note


def _misspelt(word: str, how: float) -> str:
    kind, place = divmod(how * 4, 1)
    at = int(place * (len(word) - 1))
    if kind == 0:
        first, second = word[at], word[at + 1]
        if first.lower() != second.lower():
            return word[:at] + (second.upper() if first.isupper() else second) + first.lower() + word[at + 2 :]
        kind = 1
    if kind == 1:
        return word[: at + 1] + word[at + 2 :]
    if kind == 2:
        return word[: at + 1] + word[at].lower() + word[at + 1 :]
    row = next(row for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm") if word[at + 1].lower() in row)
    beside = row.index(word[at + 1].lower())
    return word[: at + 1] + row[beside - 1 if beside else 1] + word[at + 2 :]


def _capitalised_as(note: str, told: str) -> str:
    return told[:1].upper() + told[1:] if note[:1].isupper() else told


def _random(note: str, seed: int) -> random.Random:
    return random.Random(hashlib.blake2b(f"{seed} {note}".encode(errors="replace"), digest_size=8).digest())
