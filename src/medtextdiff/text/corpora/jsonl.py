"""Notes as JSON, one object a line: files or folders of *.jsonl, *.jsonl.gz."""

import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from medtextdiff.text.errors import TextError
from medtextdiff.text.reading.faults import Faults
from medtextdiff.text.reading.files import below
from medtextdiff.text.reading.lines import LONGEST, CutShortError, read_lines
from medtextdiff.text.reading.notes import Note, NoteCorpus, Settings
from medtextdiff.text.reading.rows import CUT_SHORT


class Config(Settings):
    """Which files, and what their objects call the text, the patient and the category; see also `Settings`.

    Objects without a patient are split by their text.
    """

    text: str = "text"
    patient: str = "subject_id"
    category: str = "category"

    def build(self) -> NoteCorpus:
        """The corpus; read when asked for.

        Raises:
            TextError: a path is not there, or a folder holds no such file.
        """
        files = [file for path in self.paths for file in _files(Path(path).expanduser())]
        return NoteCorpus(files, partial(_notes, names=(self.text, self.patient, self.category)), self)


def _notes(path: Path, faults: Faults, names: tuple[str, str, str]) -> Iterator[Note]:
    row = 0
    try:
        for row, line in enumerate(read_lines(path), start=1):
            if line.strip():
                yield _note(row, line, names)
    except CutShortError:
        faults.add(path.name, row + 1, CUT_SHORT)


def _note(row: int, line: bytes, names: tuple[str, str, str]) -> Note:
    try:
        if len(line) >= LONGEST:
            raise ValueError
        found = json.loads(line.decode())
    except UnicodeDecodeError:
        return Note(row, "", None, left_out="not UTF-8")
    except (ValueError, RecursionError):
        return Note(row, "", None, left_out="no JSON")
    text, patient, category = (found.get(name) for name in names) if isinstance(found, dict) else (None,) * 3
    if not isinstance(text, str):
        return Note(row, "", None, left_out=f"no object with a string '{names[0]}'")
    return Note(row, _valid(text), (_plain(patient) or "").strip() or None, _plain(category) or "", None)


def _valid(text: str) -> str:
    """Without halves of surrogate pairs, which JSON can spell and UTF-8 cannot."""
    return text.encode("utf-8", "ignore").decode()


def _plain(value: Any) -> str | None:
    """As text; a column of numbers with gaps is often saved as 12.0 and NaN."""
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    return None if value is None else str(value)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = below(path, (".jsonl", ".jsonl.gz"))
    if not found:
        raise TextError(f"the folder '{path}' holds no *.jsonl or *.jsonl.gz file")
    return found
