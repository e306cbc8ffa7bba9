"""Sentences that ask what an encoder knows: side, height, number, negation, severity, finding; and paraphrases.

All are made from the templates and words below, which are our own; nothing is copied from a data set. The words are
those of notes on lungs, polyps and nuclei. Templates of train and test differ in wording and syntax, so a probe that
learned the train templates' places fails; half name another side, height or number, too.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Part = Literal["train", "test"]
Words = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Templates:
    """How a sentence may be put; `words` are a label's (slot -> words), `own` its clauses instead of the common.

    Half of the time `aside` stands before or behind a common clause, and names what is not the label; `own_aside` is
    that of `own` clauses.
    """

    common: tuple[str, ...]
    words: Mapping[str, Words]
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aside: tuple[str, ...] = ()
    own_aside: tuple[str, ...] = ()

    def of(self, label: str) -> tuple[str, ...]:
        """The clauses for a label."""
        return self.own.get(label, self.common)


@dataclass(frozen=True)
class Sentence:
    """A sentence and what it says; `template` is its main clause, slots unfilled."""

    text: str
    label: str
    template: str


_SHARED: Words = {
    "finding": ("consolidation", "ground-glass opacity", "infection", "infiltration", "patchy shadowing", "effusion"),
    "anyside": ("left", "right"),
    "anyheight": ("upper", "middle", "lower"),
    "image": ("image", "picture", "slice", "film"),
    "views": ("two", "three", "four", "2", "3", "4"),
}
_SIDE: Mapping[str, Words] = {
    "left": {"side": ("left",), "other": ("right",)},
    "right": {"side": ("right",), "other": ("left",)},
    "both": {},
}
_HEIGHT: Mapping[str, Words] = {
    "upper": {"height": ("upper",), "away": ("middle", "lower")},
    "middle": {"height": ("middle",), "away": ("upper", "lower")},
    "lower": {"height": ("lower",), "away": ("upper", "middle")},
}
_NUMBER: Mapping[str, Words] = {
    "one": {"number": ("one", "1"), "things": ("infected area", "polyp", "lesion", "cluster of nuclei")},
    **{
        word: {"number": (word, digit), "things": ("infected areas", "polyps", "lesions", "clusters of nuclei")}
        for word, digit in (("two", "2"), ("three", "3"), ("four", "4"), ("five", "5"))
    },
}
_DISEASE = ("consolidation", "infection", "shadowing")
_OTHER_DISEASE = ("opacity", "infiltration", "infection")
_PRESENCE: Mapping[str, Words] = {"present": {}, "absent": {}}

TEMPLATES: Mapping[str, Mapping[Part, Templates]] = {
    "side": {
        "train": Templates(
            (
                "{finding} in the {side} lung",
                "the {side} lung shows {finding}",
                "unilateral disease with {finding} of the {anyheight} {side} lung",
                "one polyp on the {side} wall",
                "the nuclei density in the {side} half of the {image} is high",
                "there is {finding} in the {side} {anyheight} field",
                "{side} {finding}",
            ),
            _SIDE,
            {
                "both": (
                    "bilateral {finding}",
                    "{finding} in the left lung and in the right lung",
                    "bilateral disease with {finding} of the {anyheight} lungs",
                    "one polyp on the right wall, one on the left wall",
                    "the nuclei density is high in both halves of the {image}",
                )
            },
            aside=("the {other} lung is clear", "no disease of the {other} lung", "the {other} half is normal"),
            own_aside=("the heart is normal", "no disease of the bones", "the rest is clear"),
        ),
        "test": Templates(
            (
                "one makes out {finding} on the {side}",
                "{side}-sided {finding}",
                "a lesion sits at the {side} edge",
                "crowded nuclei fill the {side} part of this {image}",
                "the {side} hemithorax is affected by {finding}",
                "it is the {side} base that contains {finding}",
            ),
            _SIDE,
            {
                "both": (
                    "{finding} on either side",
                    "right as well as left, one makes out {finding}",
                    "both hemithoraces are affected by {finding}",
                    "lesions sit at the right edge and at the left one",
                    "crowded nuclei fill both parts of this {image}, left and right",
                )
            },
            aside=(
                "nothing abnormal on the {other}",
                "the {other} hemithorax looks healthy",
                "{other} base unremarkable",
            ),
            own_aside=("nothing abnormal elsewhere", "the heart looks healthy", "bones unremarkable"),
        ),
    },
    "height": {
        "train": Templates(
            (
                "{finding} in the {height} part of the {anyside} lung",
                "{finding} of the {height} zone",
                "all {height} {anyside} lung is infected",
                "the nuclei density in the {height} {anyside} is high",
                "a polyp lies in the {height} third of the {image}",
                "there is {finding} in the {anyside} {height} lung",
                "the {height} lung shows {finding}",
            ),
            _HEIGHT,
            aside=("the {away} zone is clear", "no disease of the {away} lung", "the {away} third is normal"),
        ),
        "test": Templates(
            (
                "the {height} field contains {finding}",
                "{height} lobe with {finding}, {anyside}",
                "on the {anyside}, look at the {height} region with its {finding}",
                "it is the {height} portion that is affected by {finding}",
                "nuclei crowd together in the {height} rows",
                "at {height} level one makes out {finding}",
            ),
            _HEIGHT,
            aside=("nothing abnormal in the {away} field", "the {away} lobe looks healthy", "{away} rows unremarkable"),
        ),
    },
    "number": {
        "train": Templates(
            (
                "{number} {things}, {anyheight} {anyside} lung",
                "bilateral disease with {number} {things}",
                "number of {things}: {number}",
                "the {image} shows {number} {things} in the {anyheight} {anyside}",
                "{number} small {things}, located in the {anyside} of the {image}",
                "there is disease with {number} {things}",
                "{number} {things} on the {anyside}",
            ),
            _NUMBER,
            aside=("seen in {views} views", "{views} slices were read", "the film is {views} days old"),
        ),
        "test": Templates(
            (
                "a total of {number} {things} can be counted on the {anyside}",
                "on this {image} we count {number} {things}",
                "apart from {number} {things} everything is normal",
                "the radiologist drew {number} {things} {anyside} of the middle line",
                "findings: {things} ({number}), {anyheight} zone",
                "here are {number} separate {things}",
            ),
            _NUMBER,
            aside=("{views} readers agree", "compared with {views} earlier studies", "after {views} weeks the same"),
        ),
    },
    "negation": {
        "train": Templates(
            (),
            _PRESENCE,
            {
                "present": (
                    "there is {finding} in the {anyside} lung",
                    "the {image} shows {finding}",
                    "{finding} is seen, with no change since the last {image}",
                    "{finding} in the {anyheight} zone, not resolved",
                    "signs of {finding}",
                    "the {anyheight} {anyside} lung has {finding}",
                    "{finding} is not new",
                    "known {finding}, not smaller than before",
                ),
                "absent": (
                    "there is no {finding} in the {anyside} lung",
                    "the {image} does not show {finding}",
                    "no {finding} is seen, with little change since the last {image}",
                    "no {finding} in the {anyheight} zone, all resolved",
                    "without signs of {finding}",
                    "the {anyheight} {anyside} lung has no {finding}",
                    "{finding} is not seen",
                    "known {finding} is no longer there",
                ),
            },
        ),
        "test": Templates(
            (),
            _PRESENCE,
            {
                "present": (
                    "the {anyside} lung contains {finding}, not the other one",
                    "{finding} persists without any improvement",
                    "evidence of {finding} on the {anyside}",
                    "one makes out {finding}, nothing else is abnormal",
                    "{finding} could be confirmed {anyside}",
                    "{finding} has not gone away",
                ),
                "absent": (
                    "the {anyside} lung is free of {finding}, and so is the other one",
                    "{finding} is absent after much improvement",
                    "no evidence of {finding} on the {anyside}",
                    "one cannot make out {finding}, all else is normal, too",
                    "{finding} could be ruled out {anyside}",
                    "neither lung has {finding}",
                ),
            },
        ),
    },
    "severity": {
        "train": Templates(
            (
                "{degree} {what} in the {anyside} lung",
                "{what} of {degree} extent",
                "the {image} shows {degree} {what}, {anyheight} zone",
                "there is {degree} {what} on the {anyside}",
                "{what}, {degree}",
                "the {anyheight} lung has {degree} {what}",
                "signs of {degree} {what}",
            ),
            {
                "mild": {"degree": ("mild", "slight", "minimal"), "what": _DISEASE},
                "moderate": {"degree": ("moderate", "medium"), "what": _DISEASE},
                "severe": {"degree": ("severe", "extensive", "marked"), "what": _DISEASE},
            },
        ),
        "test": Templates(
            (
                "the {what} is {degree}",
                "on this {image}, the {anyside} lung contains a {degree} {what}",
                "a {degree} degree of {what} can be made out at {anyheight} level",
                "what we see {anyside} is {what} that one would call {degree}",
                "{degree} was the {what} we found {anyside}",
            ),
            {
                "mild": {"degree": ("mild", "slight", "minor"), "what": _OTHER_DISEASE},
                "moderate": {"degree": ("moderate", "medium"), "what": _OTHER_DISEASE},
                "severe": {"degree": ("severe", "extensive", "heavy"), "what": _OTHER_DISEASE},
            },
        ),
    },
    "finding": {
        "train": Templates(
            (
                "{what} in the {anyheight} {anyside}",
                "the {image} shows {what}",
                "there is {what} on the {anyside}",
                "signs of {what}, unchanged",
                "the {anyheight} {anyside} has {what}",
                "{what}, {anyheight} zone",
                "{what} is seen",
            ),
            {
                "consolidation": {"what": ("consolidation", "dense consolidation")},
                "ground glass": {"what": ("ground-glass opacity", "hazy opacity")},
                "effusion": {"what": ("pleural effusion", "a pleural effusion")},
                "nodule": {"what": ("a nodule", "a small round nodule")},
                "polyp": {"what": ("a polyp", "a round polyp")},
                "dense nuclei": {"what": ("dense nuclei", "a high nuclei density")},
            },
        ),
        "test": Templates(
            (
                "what one makes out {anyside} is {what}",
                "{what} can be confirmed at {anyheight} level",
                "on this {image} we find {what} and nothing else",
                "the {anyside} part contains {what}",
                "evidence of {what}",
            ),
            {
                "consolidation": {"what": ("consolidated tissue", "consolidation")},
                "ground glass": {"what": ("ground glass", "hazy shadowing")},
                "effusion": {"what": ("an effusion", "fluid around the lung")},
                "nodule": {"what": ("nodular shadowing", "a nodular lesion")},
                "polyp": {"what": ("polypoid growth", "a flat polyp")},
                "dense nuclei": {"what": ("crowded nuclei", "nuclei packed closely")},
            },
        ),
    },
}
PROBES = tuple(TEMPLATES)
_LEADS: Mapping[Part, tuple[str, ...]] = {
    "train": ("", "", "Chest: ", "Follow-up: ", "Today: "),
    "test": ("", "", "Comment: ", "Second reading: ", "In short: "),
}

_QUERIES = (
    "{Number} areas of {severity} {finding} in the {height} {side} lung.",
    "{severity} {finding}, {number} areas, {height} {side} lung.",
)
_ANSWERS = (
    "{side}, at the {height}, there are {number} regions with {finding}, which one would call {severity}.",
    "One counts {number} patches at the {height} of the {side} hemithorax: {severity} {finding}.",
)
_SAID: Mapping[str, Mapping[str, str]] = {  # as the query says it -> as the answer does
    "number": {"two": "two", "three": "three", "four": "four", "five": "five"},
    "severity": {"mild": "slight", "moderate": "medium", "severe": "heavy"},
    "finding": {"consolidation": "solid shadowing", "ground-glass opacity": "hazy shadowing", "effusion": "fluid"},
    "height": {"upper": "top", "middle": "centre", "lower": "bottom"},
    "side": {"left": "left", "right": "right"},
}


def sentences(probe: str, part: Part, num: int, seed: int = 0) -> list[Sentence]:
    """Different sentences of one probe, equally many of each label, at most `num` in all; repeated by the seed.

    Raises:
        KeyError: no such probe.
    """
    templates = TEMPLATES[probe][part]
    found = [_of_label(templates, label, part, num // len(templates.words), probe, seed) for label in templates.words]
    return [sentence for together in zip(*found, strict=False) for sentence in together]  # as many as the rarest has


def paraphrases(num: int, seed: int = 0) -> list[tuple[str, str]]:
    """`num` pairs that say the same in other words; no two pairs say the same, and many differ in one word only.

    Raises:
        ValueError: more than there are things to say.
    """
    chance = random.Random(f"paraphrases {seed}")
    said: list[dict[str, str]] = [{}]
    for slot, words in _SAID.items():
        said = [{**one, slot: word} for one in said for word in words]
    if num > len(said):
        raise ValueError(f"there are {len(said)} paraphrases; ask for at most so many, not {num}")
    pairs = []
    for one in chance.sample(said, num):
        asked = {slot: (word,) for slot, word in one.items()} | {"Number": (one["number"].capitalize(),)}
        told = {slot: (_SAID[slot][word],) for slot, word in one.items()}
        pairs.append((_filled(chance.choice(_QUERIES), asked, chance), _filled(chance.choice(_ANSWERS), told, chance)))
    return pairs


def shape(template: str) -> str:
    """A template without its slots, to compare wordings."""
    return " ".join(re.sub(r"\{\w+\}", "_", template).lower().split())


def _of_label(templates: Templates, label: str, part: Part, num: int, probe: str, seed: int) -> list[Sentence]:
    chance = random.Random(f"{probe} {part} {label} {seed}")
    found: dict[str, Sentence] = {}
    for _ in range(30 * num):  # a sentence may come again
        clause = chance.choice(templates.of(label))
        wording = _with_aside(clause, templates.own_aside if label in templates.own else templates.aside, chance)
        text = chance.choice(_LEADS[part]) + _filled(wording, {**_SHARED, **templates.words[label]}, chance)
        found.setdefault(text, Sentence(text, label, clause))
        if len(found) == num:
            break
    return list(found.values())


def _with_aside(clause: str, asides: tuple[str, ...], chance: random.Random) -> str:
    if not asides or chance.random() < 0.5:
        return f"{clause}."
    aside = chance.choice(asides)
    return f"{clause}; {aside}." if chance.random() < 0.5 else f"{aside}; {clause}."


def _filled(wording: str, words: Words, chance: random.Random) -> str:
    text = re.sub(r"\{(\w+)\}", lambda slot: chance.choice(words[slot[1]]), wording)
    return text[:1].upper() + text[1:]
