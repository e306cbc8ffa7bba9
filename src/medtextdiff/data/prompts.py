"""What a prompt claims of its image, for the templates of MedVQA-GI (docs/evaluating-synthesis.md).

A prompt says one thing: "Generate an image with no polyps." It is a partial label: yes, no, or not said, for each of
a fixed list of attributes. The ten prompts of an image together say nearly all. The data's own typos are understood
("an an abnormality", "lower-rigth", "a polypandoesophagitis").
"""

import re
from collections.abc import Callable, Iterable, Mapping

Claims = dict[str, bool]  # attribute -> is it there; what is not said is absent

PROCEDURE, TEXT, BOX, FINDING, POLYP, INSTRUMENT = "colonoscopy", "text", "black box", "finding", "polyp", "instrument"
SEVERAL_FINDINGS, SEVERAL_POLYPS, SEVERAL_INSTRUMENTS = "several findings", "several polyps", "several instruments"
COLOURS = ("pink", "red", "white", "yellow", "orange", "brown", "grey", "black", "green", "blue", "purple")
PLACES = tuple(
    "center" if row == column == "center" else f"{row}-{column}"
    for row in ("upper", "center", "lower")
    for column in ("left", "center", "right")
)
SUBJECTS = ("abnormality", "instrument", "landmark")
SIZES = ("< 5mm", "5-10mm", "11-20mm", ">20mm")
TYPES = ("paris is", "paris ip", "paris iia")
DISEASES = ("ulcerative colitis", "oesophagitis", "barrett's")
LANDMARKS = ("z-line", "cecum", "ileum", "pylorus")
TOOLS = ("tube", "biopsy forceps", "polyp snare", "metal clip", "injection needle")

GROUPS: dict[str, tuple[str, ...]] = {
    "procedure": (PROCEDURE,),
    "polyp presence": (POLYP,),
    "polyp count": (SEVERAL_POLYPS,),
    "polyp size": tuple(f"polyp {size}" for size in SIZES),
    "polyp type": TYPES,
    "findings": (FINDING, SEVERAL_FINDINGS),
    "disease": DISEASES,
    "landmark": LANDMARKS,
    "instrument": (INSTRUMENT, SEVERAL_INSTRUMENTS),
    "kind of instrument": TOOLS,
    "text": (TEXT,),
    "black box": (BOX,),
    "colour": COLOURS,
    **{f"place of the {subject}": tuple(f"{subject} {place}" for place in PLACES) for subject in SUBJECTS},
}
ATTRIBUTES: tuple[str, ...] = tuple(name for names in GROUPS.values() for name in names)

# Once an image's prompts settle the key, what they do not name of the group is not there; a few settle nothing.
_MANY = 4
_CLOSED = {FINDING: ("disease", "landmark"), INSTRUMENT: ("kind of instrument",)}
_SPELLING = {"rigth": "right", "rihgt": "right", "colour": "color", "violet": "purple", "ink": "pink", "gray": "grey"}
_SPELLING |= {"burgundy": "red", "barretts": "barrett's", "centre": "center", "artifact": "artefact"}
_WORD = re.compile(r"[a-z']+")
_COLOURS = re.compile(r"abnormality with the colors? (.+)")
_LOCATED = re.compile(r"(abnormality|instrument|landmark) located in the (.+)")
_COUNTS = re.compile(r"with (no|\d+) (polyp|finding|instrument)s?\b")
_SIZE = re.compile(r"polyps? of size (.+)")
_TYPE = re.compile(r"polyps? of type (.+)")
_CONTAINING = re.compile(r"(not )?containing (.+)")
_PROCEDURE = re.compile(r"from an? (colonoscopy|gastroscopy) procedure")


def claims(prompt: str) -> Claims:
    """What one prompt says; empty where it follows no template.

    A list of places or colours is complete: what it leaves out is claimed not to be there. A count of 0 says nothing
    of "several" but that it is false.
    """
    text = _normal(prompt)
    for pattern, read in _READERS:
        match = pattern.search(text)
        if match:
            return read(match)
    return {}


def image_claims(prompts: Iterable[str]) -> Claims:
    """What all prompts of an image say together; an attribute on which they contradict each other is left out.

    Four or more are taken for all that there is to say: a disease, landmark or tool that none names is not there.
    """
    prompts = list(prompts)
    said: dict[str, set[bool]] = {}
    for prompt in prompts:
        for name, value in claims(prompt).items():
            said.setdefault(name, set()).add(value)
    whole = {name: values.pop() for name, values in said.items() if len(values) == 1}
    for key, groups in _CLOSED.items():
        if key in said and len(prompts) >= _MANY:
            whole |= {name: False for group in groups for name in GROUPS[group] if name not in said}
    return whole


def as_labels(found: Mapping[str, bool]) -> list[int]:
    """1 yes, 0 no, -1 not said, in the order of `ATTRIBUTES`."""
    return [int(found[name]) if name in found else -1 for name in ATTRIBUTES]


def group_of(attribute: str) -> str:
    """The group that an attribute belongs to."""
    return next(group for group, names in GROUPS.items() if attribute in names)


def _normal(prompt: str) -> str:
    text = prompt.strip().lower().rstrip(".")
    return _WORD.sub(lambda match: _SPELLING.get(match[0], match[0]), text)


def _counts(match: re.Match[str]) -> Claims:
    number = 0 if match[1] == "no" else int(match[1])
    single = {"polyp": POLYP, "finding": FINDING, "instrument": INSTRUMENT}[match[2]]
    several = {"polyp": SEVERAL_POLYPS, "finding": SEVERAL_FINDINGS, "instrument": SEVERAL_INSTRUMENTS}[match[2]]
    return {single: number > 0, several: number > 1}


def _containing(match: re.Match[str]) -> Claims:
    there, what = match[1] is None, match[2]
    if "box" in what:
        return {BOX: there}
    found: Claims = {}
    for name in (*DISEASES, *LANDMARKS, *TOOLS):
        if name in what:
            found[name] = there
            if name in TOOLS and there:
                found[INSTRUMENT] = True
            if name in DISEASES and there:
                found[FINDING] = True
    if re.search(r"(?<![a-z])polyp(?! snare)", what):  # "a polypandoesophagitis"
        found |= {POLYP: there} | ({FINDING: True} if there else {})
    if what == "text":
        found[TEXT] = there
    return found


def _listed(names: Iterable[str], there: Callable[[str], bool], prefix: str = "") -> Claims:
    return {prefix + name: there(name) for name in names}


def _places(match: re.Match[str]) -> Claims:
    named = {part.strip() for part in re.split(r",|\band\b", match[2])}
    if not named & set(PLACES):
        return {}
    implied = {"abnormality": {FINDING: True}, "instrument": {INSTRUMENT: True}, "landmark": {}}[match[1]]
    return _listed(PLACES, lambda place: place in named, f"{match[1]} ") | implied


def _colours(match: re.Match[str]) -> Claims:
    named = set(_WORD.findall(match[1]))
    return _listed(COLOURS, lambda colour: colour in named) | {FINDING: True} if named & set(COLOURS) else {}


def _sizes(match: re.Match[str]) -> Claims:
    named = match[1].replace("<5", "< 5").replace("> 20", ">20")
    return _listed(SIZES, lambda size: size in named, "polyp ") | {POLYP: True, FINDING: True}


def _types(match: re.Match[str]) -> Claims:
    named = {part.strip() for part in re.split(r",|\band\b", match[1])}
    return _listed(TYPES, lambda name: name in named) | {POLYP: True, FINDING: True}


_READERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Claims]], ...] = (
    (_LOCATED, _places),
    (_COLOURS, _colours),
    (_SIZE, _sizes),
    (_TYPE, _types),
    (_PROCEDURE, lambda match: {PROCEDURE: match[1] == "colonoscopy"}),
    (_COUNTS, _counts),
    (_CONTAINING, _containing),
)
