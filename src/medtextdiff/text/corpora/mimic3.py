"""MIMIC-III: NOTEEVENTS.csv[.gz], as PhysioNet gives it (https://mimic.mit.edu/docs/iii/tables/noteevents)."""

import re
from collections.abc import Iterator
from pathlib import Path

from medtextdiff.text.reading.faults import Faults
from medtextdiff.text.reading.notes import IS_ERROR, Note, NoteCorpus, Settings
from medtextdiff.text.reading.rows import read_rows

COLUMNS = ("row_id", "subject_id", "category", "iserror", "text")
CATEGORIES = (
    *("Discharge summary", "Radiology", "ECG", "Echo", "Physician", "Nursing", "Nursing/other", "Respiratory"),
    *("Nutrition", "General", "Rehab Services", "Social Work", "Case Management", "Pharmacy", "Consult"),
)
_BEGIN = re.compile(rb'"?\d+"?,"?\d+"?,')  # ROW_ID, SUBJECT_ID


class Config(Settings):
    """Which file, which notes of it, and what is done to them; see `Settings`. Notes marked ISERROR are left out.

    categories are those of the table, see CATEGORIES.
    """

    def build(self) -> NoteCorpus:
        """The corpus; read when asked for.

        Raises:
            TextError: a file is not there.
        """
        return NoteCorpus([Path(path).expanduser() for path in self.paths], _notes, self, CATEGORIES)


def _notes(path: Path, faults: Faults) -> Iterator[Note]:
    for row, fields in read_rows(path, COLUMNS, _BEGIN, faults):
        reason = None
        if fields["iserror"].strip() not in ("", "0"):
            reason = IS_ERROR
        elif not fields["subject_id"].strip():
            reason = "without a SUBJECT_ID"
        yield Note(row, fields["text"], fields["subject_id"].strip(), fields["category"], reason)
