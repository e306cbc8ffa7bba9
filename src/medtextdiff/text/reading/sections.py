"""The sections of discharge summaries and radiology reports, by their headings."""

import re
from dataclasses import dataclass

# A heading stands at the beginning of a line, ends in a colon, and is known, or in capitals. Known under the names
# that hospitals write -> one name for each.
_NAMES = {
    "findings": ("findings", "report", "description", "chest findings", "abdomen findings"),
    "impression": ("impression", "impressions", "conclusion", "conclusions", "opinion", "summary", "interpretation"),
    "indication": ("indication", "indications", "clinical indication", "reason for this examination"),
    "reason": ("reason for exam", "reason for examination", "reason for study"),
    "history": ("history", "clinical history", "clinical information", "medical history"),
    "technique": ("technique", "procedure", "protocol", "examination", "exam", "study"),
    "comparison": ("comparison", "comparisons", "comparison study"),
    "chief_complaint": ("chief complaint", "complaint", "major complaint"),
    "present_illness": ("history of present illness", "hpi", "present illness"),
    "past_history": ("past medical history", "pmh", "past surgical history"),
    "social_history": ("social history",),
    "family_history": ("family history",),
    "allergies": ("allergies", "allergy"),
    "medications": ("medications", "medications on admission", "admission medications", "home medications"),
    "discharge_medications": ("discharge medications", "medications on discharge"),
    "physical_exam": ("physical exam", "physical examination", "admission physical exam", "discharge physical exam"),
    "results": ("pertinent results", "laboratory data", "labs", "studies", "imaging"),
    "hospital_course": ("brief hospital course", "hospital course", "course"),
    "diagnosis": ("discharge diagnosis", "discharge diagnoses", "final diagnosis", "diagnosis", "diagnoses"),
    "condition": ("discharge condition", "condition on discharge", "condition at discharge"),
    "disposition": ("discharge disposition", "disposition"),
    "instructions": ("discharge instructions", "followup instructions", "follow-up instructions", "instructions"),
    "procedures": ("major surgical or invasive procedure", "procedures", "operations"),
    "addendum": ("addendum",),
}
_CANONICAL = {spelling: name for name, spellings in _NAMES.items() for spelling in spellings}
_HEADING = re.compile(r"^[ \t]*([A-Za-z][A-Za-z /&,()'-]{2,48}?)[ \t]*:", re.MULTILINE)
KNOWN = tuple(_NAMES)


@dataclass(frozen=True)
class Section:
    """A section: its name ("other" for a heading in capitals that is not known), and its text without the heading."""

    name: str
    text: str


def find(text: str) -> list[Section]:
    """The sections of a note in their order; what stands before the first heading is called "preamble"."""
    found = [(match, _name(match.group(1))) for match in _HEADING.finditer(text)]
    heads = [(match.start(), match.end(), name) for match, name in found if name]
    if not heads:
        return [Section("preamble", text.strip())] if text.strip() else []
    ends = [start for start, _, _ in heads[1:]] + [len(text)]
    before = [Section("preamble", text[: heads[0][0]].strip())] if text[: heads[0][0]].strip() else []
    return before + [Section(name, text[begin:end].strip()) for (_, begin, name), end in zip(heads, ends, strict=True)]


def keep(text: str, wanted: tuple[str, ...]) -> str:
    """The wanted sections, a blank line between them; "" if the note has none."""
    return "\n\n".join(section.text for section in find(text) if section.name in wanted and section.text)


def _name(heading: str) -> str | None:
    words = " ".join(heading.lower().split())
    return _CANONICAL.get(words) or ("other" if heading.isupper() else None)
