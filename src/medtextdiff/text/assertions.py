"""What a sentence asserts, by rules: findings that are there or denied, and where, how many and how severe they are.

Words that deny, and what stops them, after NegEx (Chapman et al., J Biomed Inform 34, 2001); findings and their names
after the labeller of CheXpert (arXiv 1901.07031). Rules are often wrong on one sentence and right on most, which is
enough to teach an encoder by (weak labels, as arXiv 2004.09167 does for reports). A clause that only denies or calls
normal says nothing of where a finding is: "the right lung is clear" does not assert "right".

The probes (`probe_sentences`) ask for the same kinds of things, so an encoder taught by these rules is no stranger to
them. Words that only the probes' test sentences hold were left out, but for words that deny (NegEx has them).
"""

import re
from collections.abc import Iterator, Mapping

_FINDINGS: Mapping[str, str] = {
    "consolidation": r"consolidations?",
    "ground glass": r"ground[- ]glass|hazy|haziness|ggos?",
    "opacity": r"opacit\w+|opacif\w+|shadow\w*|infiltrat\w+|densit(?:y|ies)",
    "effusion": r"effusions?",
    "pneumothorax": r"pneumothorax|pneumothoraces",
    "pneumonia": r"pneumonias?|infect\w+",
    "edema": r"o?edema|congestion",
    "atelectasis": r"atelecta\w+|collapse",
    "nodule": r"nodules?|granulomas?",
    "mass": r"mass|masses",
    "tumor": r"tumou?rs?|carcinomas?|cancers?|malignan\w+|metasta\w+|neoplas\w+",
    "cyst": r"cysts?|cystic",
    "polyp": r"polyps?",
    "lesion": r"lesions?|ulcers?|plaques?",
    "hemorrhage": r"ha?emorrhag\w+|bleeding|ha?ematomas?",
    "fracture": r"fractur\w+",
    "calcification": r"calcifi\w+|stones?|calcul\w+",
    "enlarged heart": r"cardiomegaly",
    "fibrosis": r"fibro\w+|scar\w*",
    "narrowing": r"steno\w+|stricture|occlu\w+|obstruct\w+|narrow\w+",
    "thrombus": r"thromb\w+|embol\w+",
    "aneurysm": r"aneurysm\w*",
    "pain": r"pains?|ache|tender\w*",
    "fever": r"fever\w*|febrile",
    "nuclei": r"nucle(?:i|us|ar)",
}
_GENERAL = r"disease|abnormalit\w+|abnormal|evidence|signs?|findings?|process|injur\w+|complications?|symptoms?"
_SIDES = {"left": r"left", "right": r"right"}
_BOTH = r"bilateral\w*|both"
_HEIGHTS = {
    "upper": r"upper|top|superior|apical|apex",
    "middle": r"middle|mid|central|center",
    "lower": r"lower|bottom|inferior|basal|basilar",
}
_ALL_HEIGHTS = r"all|entire|whole"
_NUMBERS = {
    "one": r"one|1|single|solitary",
    "two": r"two|2",
    "three": r"three|3",
    "four": r"four|4",
    "five": r"five|5",
    "six or more": r"six|seven|eight|nine|ten|6|7|8|9|10",
    "many": r"multiple|many|several|numerous",
}
_THINGS = r"areas?|regions?|patches|foci|focus|spots?|clusters?|masses|mass|polyps?|nodules?|lesions?|tumou?rs?|cysts?"
_SEVERITIES = {
    "mild": r"mild\w*|slight\w*|minimal\w*|subtle|tiny|small",
    "moderate": r"moderate\w*|medium",
    "severe": r"severe\w*|extensive\w*|marked\w*|massive|large|diffuse",
}
NAMES: tuple[str, ...] = (
    *_SIDES,
    "both",
    *_HEIGHTS,
    *(f"{side} {height}" for side in _SIDES for height in _HEIGHTS),
    *_NUMBERS,
    *_SEVERITIES,
    *_FINDINGS,
    "affirmed",
    "denied",
)
_NOT_A_DENIAL = re.compile(  # "no change" denies no finding
    r"\bno (?:\w+ ){0,3}(?:change|increase|decrease|improvement)\w*"
    r"|\bwithout (?:\w+ ){0,2}(?:change|improvement|difficulty|contrast)\b"
    r"|\bnot (?:only|necessarily|certain|extend|drain|cause|been|yet)?\s?(?:resolved|cleared|changed|improved|excluded"
    r"|ruled out)\b|\bnot (?:only|necessarily|certain|extend|drain|cause)\b|\bcannot be (?:excluded|ruled out)\b"
)
_SIZE = re.compile(r"\b\d+(?:\.\d+)?(?:\s?[x×]\s?\d+(?:\.\d+)?){0,2}\s?[cm]m\b\s?")  # no count of things
_DENIES_WHAT_FOLLOWS = (
    r"no|not|without|neither|nor|never|cannot|den(?:y|ies|ied)|absence of|absent|negative for|free (?:of|from)"
    r"|clear of|rules? out|ruled out|ruling out|excludes?|excluded|lack(?:s|ing)?(?: of)?|resolution of"
    r"|fail(?:s|ed)? to|unlikely"
)
_DENIES_WHAT_PRECEDES = (
    r"(?:is|are|was|were|been|be|has|have|had) (?:\w+ )?(?:absent|excluded|ruled out|resolved|cleared|disappeared"
    r"|negative|unlikely)|(?:is|are|was|were|be|has|have|can|could) ?not|no longer|absent|ruled out|resolved"
    r"|disappeared|not (?:seen|present|identified|found|noted|demonstrated|evident|visible)"
)
_NORMAL = re.compile(r"\b(?:clear|normal|intact|within normal limits|spared|free|unaffected)\b")
_ENDS = re.compile(r"[;:]|\.(?!\d)|\b(?:but|however|although|though|while|whereas|except|apart from|aside from)\b")
_CARRIES_ON = re.compile(r"^\s*(?:(?:and|or|nor)\b|(?:\w+(?:[\s-]+|$)){1,3}$)")  # after a comma: a list goes on


def _words(patterns: Mapping[str, str]) -> dict[str, re.Pattern[str]]:
    return {name: re.compile(rf"\b(?:{pattern})\b") for name, pattern in patterns.items()}


_FINDING_WORDS, _SIDE_WORDS, _HEIGHT_WORDS, _SEVERITY_WORDS = map(_words, (_FINDINGS, _SIDES, _HEIGHTS, _SEVERITIES))
_COUNTS = _words({name: rf"(?:{pattern}) (?:[a-z-]+ ){{0,2}}(?:{_THINGS})" for name, pattern in _NUMBERS.items()})
_SAYS = _words(
    {
        "general": _GENERAL,
        "both": _BOTH,
        "whole": _ALL_HEIGHTS,
        "denies what follows": _DENIES_WHAT_FOLLOWS,
        "denies what precedes": _DENIES_WHAT_PRECEDES,
    }
)
_PLACE = re.compile(rf"\b(?:{'|'.join((*_HEIGHTS.values(), *_SIDES.values(), _ALL_HEIGHTS))})\b")


def asserted(sentence: str) -> set[str]:
    """Names of `NAMES` that a sentence asserts."""
    found: set[str] = set()
    for clause in _clauses(sentence.lower()):
        affirmed, denied, general = _findings(clause)
        if denied or general:
            found.add("denied")
        if affirmed:
            found |= {"affirmed", *affirmed}
        elif denied or general or _NORMAL.search(clause):
            continue  # what is denied or normal is nowhere
        found |= _placed(clause)
        found |= {name for name, word in _COUNTS.items() if word.search(clause)}
        found |= {name for name, word in _SEVERITY_WORDS.items() if word.search(clause)}
    if {"left", "right"} <= found:
        found.add("both")
    return found


def _clauses(sentence: str) -> Iterator[str]:
    """A comma ends a clause, unless a list goes on behind it."""
    for part in _ENDS.split(_NOT_A_DENIAL.sub(" ", _SIZE.sub("", sentence))):
        pieces = part.split(",")
        clause = pieces[0]
        for piece in pieces[1:]:
            if _CARRIES_ON.match(piece):
                clause += " " + piece
            else:
                yield clause
                clause = piece
        yield clause


def _findings(clause: str) -> tuple[set[str], set[str], bool]:
    """Those affirmed, those denied, and whether something without a name is denied ("no disease")."""
    before = _SAYS["denies what follows"].search(clause)
    first = before.start() if before else len(clause)
    last = max((word.end() for word in _SAYS["denies what precedes"].finditer(clause)), default=-1)
    affirmed: set[str] = set()
    denied: set[str] = set()
    for name, word in _FINDING_WORDS.items():
        for place in word.finditer(clause):
            (denied if place.start() > first or place.start() < last else affirmed).add(name)
    return affirmed, denied - affirmed, before is not None and _SAYS["general"].search(clause) is not None


def _placed(clause: str) -> set[str]:
    """Sides, heights, and which height on which side: words next to each other belong together."""
    found: set[str] = set()
    if _SAYS["both"].search(clause):
        found |= {"left", "right"}
    group: set[str] = set()
    last = -100
    for word in _PLACE.finditer(clause):
        if word.start() - last > 2 or group & _kind(_named(word.group())):
            found |= _together(group)
            group = set()
        group |= _named(word.group())
        last = word.end()
    return found | _together(group)


def _named(word: str) -> set[str]:
    if _SAYS["whole"].fullmatch(word):
        return {"whole"}
    return {name for words in (_SIDE_WORDS, _HEIGHT_WORDS) for name, known in words.items() if known.fullmatch(word)}


def _kind(names: set[str]) -> set[str]:
    return set(_SIDES) if names & set(_SIDES) else {*_HEIGHTS, "whole"}


def _together(group: set[str]) -> set[str]:
    sides, heights = group & set(_SIDES), group & set(_HEIGHTS)
    if "whole" in group and sides:
        heights = set(_HEIGHTS)
    return sides | heights | {f"{side} {height}" for side in sides for height in heights}
