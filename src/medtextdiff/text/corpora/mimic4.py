"""MIMIC-IV-Note: discharge.csv.gz, radiology.csv.gz, as PhysioNet gives them (https://physionet.org/content/mimic-iv-note)."""

import re
from collections.abc import Iterator
from pathlib import Path

from medtextdiff.text.reading.faults import Faults
from medtextdiff.text.reading.notes import Note, NoteCorpus, Settings
from medtextdiff.text.reading.rows import read_rows

COLUMNS = ("note_id", "subject_id", "note_type", "text")
CATEGORIES = ("DS", "AD", "RR", "AR")
_BEGIN = re.compile(rb'"?\d+-\w+-\d+"?,"?\d+"?,')  # note_id (10000032-DS-21), subject_id


class Config(Settings):
    """Which files, which notes of them, and what is done to them; see `Settings`.

    categories are the note types: DS discharge summary, AD its addendum, RR radiology report, AR its addendum.
    """

    def build(self) -> NoteCorpus:
        """The corpus; read when asked for.

        Raises:
            TextError: a file is not there.
        """
        return NoteCorpus([Path(path).expanduser() for path in self.paths], _notes, self, CATEGORIES)


def _notes(path: Path, faults: Faults) -> Iterator[Note]:
    for row, fields in read_rows(path, COLUMNS, _BEGIN, faults):
        patient = fields["subject_id"].strip()
        reason = None if patient else "without a subject_id"
        yield Note(row, fields["text"], patient, fields["note_type"], reason)
