"""What one word changes in a note: the same told otherwise, and almost the same words with another meaning.

Words of one group exclude each other (left, right; mild, severe; no, multiple), so putting one for another, or
exchanging two, gives a sentence that looks like the first and means something else.
"""

import random
import re

_FINDINGS = (
    *("consolidation", "effusion", "opacity", "pneumonia", "pneumothorax", "edema", "nodule", "mass"),
    *("atelectasis", "fracture", "polyp", "tumor", "cyst", "lesion", "infection", "hemorrhage"),
)
GROUPS: tuple[tuple[str, ...], ...] = (
    ("left", "right", "bilateral"),
    ("unilateral", "bilateral"),
    ("upper", "middle", "lower"),
    ("top", "bottom", "center"),
    ("superior", "inferior"),
    ("anterior", "posterior"),
    ("central", "peripheral"),
    ("one", "two", "three", "four", "five", "six"),
    ("1", "2", "3", "4", "5", "6", "7", "8", "9"),
    ("single", "multiple", "few", "many"),
    ("no", "multiple"),
    ("with", "without"),
    ("absent", "present"),
    ("negative", "positive"),
    ("never", "always"),
    ("mild", "moderate", "severe"),
    ("minimal", "extensive"),
    ("slight", "marked"),
    ("small", "medium", "large"),
    ("dense", "sparse"),
    ("low", "high"),
    ("increased", "decreased"),
    ("improved", "worsened"),
    ("normal", "abnormal"),
    ("acute", "chronic"),
    _FINDINGS,
)
_GROUPS_OF = {word: [group for group in GROUPS if word in group] for group in GROUPS for word in group}
_WORD = re.compile(r"[A-Za-z]+|\d+")
_CLAUSE = re.compile(r"\s*[,;]\s+")
_ALTERNATIVES = re.compile(r"\W*(and|or)?\W*", re.IGNORECASE)  # "left and right" turned round means the same
_LISTS = re.compile(r"\s*,\s*(?:and|or)?\s+|\s+(?:and|or)\s+", re.IGNORECASE)
_ARTICLE = re.compile(r"\b(an?|the)\s+$", re.IGNORECASE)
_MAY_DENY = re.compile(r"(^|\b(an?|the|is|are|has|with|of|shows?|showing)\s+)$", re.IGNORECASE)  # before a finding
_DENIED = re.compile(
    r"\b(no|none|not|nothing|nil|nor|neither|never|cannot|\w+n['\u2019]t|without|absent|absence|negative"
    r"|den(y|ies|ied)|resolved|resolution|free|cleared"
    r"|exclud(e|es|ed|ing)|rul(e|es|ed|ing) out|lack(s|ing)?|fail(s|ed)?|unlikely|disappeared|no longer)\b",
    re.IGNORECASE,
)
_TURNS = re.compile(  # a word without which a sentence may say the opposite
    rf"{_DENIED.pattern}|\b(rul(e|es|ed|ing)|out|longer|clear|spared|intact|unaffected)\b", re.IGNORECASE
)
_DROPPED, _TURNED, _LOWERED = 0.9, 0.3, 0.3  # at most, of the words that tell nothing; and how often


def is_telling(sentence: str) -> bool:
    """Whether it holds a word that another would exclude."""
    return any(word.group().lower() in _GROUPS_OF for word in _WORD.finditer(sentence))


def reword(sentence: str, rng: random.Random) -> str:
    """The same told otherwise: few or most words that tell nothing are left out, clauses turned round, lower case.

    What denies stays, and a sentence with a denial in it is not turned round: a list may hang on its "no".
    """
    dropped = rng.uniform(0, _DROPPED)
    clauses = _CLAUSE.split(sentence)
    if len(clauses) > 1 and rng.random() < _TURNED and not _DENIED.search(sentence):
        rng.shuffle(clauses)
    found = []
    for clause in clauses:
        kept = [word for word in clause.split() if is_telling(word) or _TURNS.search(word) or rng.random() >= dropped]
        found.append(" ".join(kept or clause.split()))
    told = ", ".join(found)
    return told.lower() if rng.random() < _LOWERED else told


def contradict(sentence: str, rng: random.Random) -> str:
    """Almost the same words, another meaning: two words of a group exchanged, one replaced, or a finding denied.

    "No" before what is denied may also be left out.

    Raises:
        ValueError: a sentence that is not telling.
    """
    words = [word for word in _WORD.finditer(sentence) if word.group().lower() in _GROUPS_OF]
    if not words:
        raise ValueError("no word of the sentence has one that excludes it")
    pairs = [(a, b) for i, a in enumerate(words) for b in words[i + 1 :] if _can_change_places(sentence, a, b)]
    if pairs and rng.random() < 0.5:
        a, b = rng.choice(pairs)
        between = sentence[a.end() : b.start()]
        return (
            sentence[: a.start()]
            + _like(b.group(), a.group())
            + between
            + _like(a.group(), b.group())
            + sentence[b.end() :]
        )
    word = rng.choice(words)
    if rng.random() < 0.5 and (turned := _deny(sentence, word)):
        return turned
    group = rng.choice(_GROUPS_OF[word.group().lower()])
    other = rng.choice([name for name in group if name != word.group().lower()])
    return sentence[: word.start()] + _like(other, word.group()) + sentence[word.end() :]


def _deny(sentence: str, word: re.Match[str]) -> str:
    """The finding `word` denied, or what "no" denied affirmed; "" where neither makes a sentence."""
    before, after, name = sentence[: word.start()], sentence[word.end() :].lstrip(), word.group().lower()
    if name == "no":
        return before + (after[:1].upper() + after[1:] if word.group()[0].isupper() else after)
    if name not in _FINDINGS or _DENIED.search(sentence) or not _MAY_DENY.search(before):
        return ""
    before = _ARTICLE.sub("", before)
    said = f"no {word.group().lower()}" if before else f"No {word.group().lower()}"
    return before + said + sentence[word.end() :]


def _can_change_places(sentence: str, a: re.Match[str], b: re.Match[str]) -> bool:
    first, second = a.group().lower(), b.group().lower()
    alike = first != second and any(second in group for group in _GROUPS_OF[first])
    between = sentence[a.end() : b.start()]
    return alike and not _ALTERNATIVES.fullmatch(between) and not _are_listed(sentence, a, b)


def _are_listed(sentence: str, a: re.Match[str], b: re.Match[str]) -> bool:
    """Whether both stand in the same phrase, one after the other: "in the left lung and in the right lung"."""
    parts = _LISTS.split(sentence[a.end() : b.start()])
    if len(parts) != 2:
        return False
    before, after = sentence[: a.start()].lower().split(), sentence[b.end() :].lower().split()
    follows, leads = parts[0].lower().split(), parts[1].lower().split()
    same_end = [word.rstrip(".,;:") for word in after[: len(follows)]] == follows
    return same_end and (not leads or before[-len(leads) :] == leads)


def _like(word: str, model: str) -> str:
    return word.capitalize() if model[:1].isupper() else word.lower()
