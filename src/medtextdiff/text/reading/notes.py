"""From the notes of an export to documents: cleaned, filtered, no duplicates, split by patient, and accounted for."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from medtextdiff import config
from medtextdiff.text.errors import TextError
from medtextdiff.text.reading import duplicates as doubles
from medtextdiff.text.reading import marks as deidentified
from medtextdiff.text.reading import sections as headings
from medtextdiff.text.reading.faults import Faults
from medtextdiff.text.reading.splits import Split, split_of, split_of_patient

_LINE_END = re.compile(r"\r\n|[\r\x0b\x0c]")  # a form feed, too, parts words
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_BLANK_LINES = re.compile(r"\n{3,}")
_DUPLICATE, _OTHER, _SHORT, _WITHOUT = "a duplicate", "of another category", "too short", "without the sections wanted"
IS_ERROR = "marked as an error (ISERROR)"
_NO_PATIENT = "no note names its patient, so one patient may be trained on and held out; check the name of that column"
_EXPECTED = {_DUPLICATE, _OTHER, _SHORT, _WITHOUT, IS_ERROR}  # reasons that are no fault of the files


@dataclass(frozen=True)
class Note:
    """A note as an export gives it. `left_out` is a reason that the reader knows already."""

    row: int
    text: str
    patient: str | None
    category: str = ""
    left_out: str | None = None


class Settings(config.Config):
    """What all corpora of notes share.

    categories: only notes of these (any case); () takes all. marks: what de-identification left becomes plain words
    ("date", "name", ...), is dropped, or kept. sections: only these, see `reading.sections.KNOWN`; () keeps the note
    whole. duplicates: dropped if the same to the letter (exact), or but for case, blanks, numbers and marks (near).
    heldout: share of the patients kept out of training, by a hash of patient and seed. repeat: times that each
    training document is read: weight among other corpora.
    """

    paths: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    marks: deidentified.Handling = "words"
    sections: tuple[str, ...] = ()
    duplicates: doubles.Kind = "exact"
    min_characters: int = Field(default=20, ge=1)
    max_characters: int = Field(default=200_000, ge=1)  # a longer one is no note, but something that was pasted
    heldout: float = Field(default=0.02, ge=0, lt=1)
    seed: int = 0
    repeat: int = Field(default=1, ge=1)


class NoteCorpus:
    """The documents of some files of notes, streamed. After a whole pass `report()` tells what was read."""

    def __init__(
        self,
        files: Sequence[Path],
        read: Callable[[Path, Faults], Iterable[Note]],
        settings: Settings,
        known: Sequence[str] = (),
    ) -> None:
        """`read` gives the notes of a file, and counts what it cannot read; `known` are the categories it may have.

        Raises:
            TextError: no file, a file that is not there, or a section or category that is not known.
        """
        if not files:
            raise TextError("a corpus of notes needs files; give paths=FILE")
        for file in files:
            if not file.is_file():
                raise TextError(f"no file '{file}'; check the path")
        for name in settings.sections:
            if name not in headings.KNOWN:
                raise TextError(f"no section '{name}'; {config.nearest(name, headings.KNOWN)}")
        self._known = {name.lower(): name for name in known or settings.categories}
        for name in settings.categories:
            if name.strip().lower() not in self._known:
                raise TextError(f"no category '{name}'; {config.nearest(name, known)}")
        self.files, self._read, self._settings = list(files), read, settings
        self._categories = {name.strip().lower() for name in settings.categories}
        self._account: _Account | None = None
        self._hashes: dict[Path, str] = {}

    def documents(self, split: Split = "train", once: bool = False) -> Iterator[str]:
        """The documents of one split, in file order. `once`: not `repeat` times.

        Raises:
            TextError: a file that is no table of notes at all. A row that cannot be read is counted instead.
        """
        for _ in range(self._settings.repeat if split == "train" and not once else 1):
            yield from (text for where, text in self._all() if where == split)

    def report(self, hashes: bool = True) -> dict[str, Any]:
        """What the last whole pass read: rows, what was left out and why, documents, patients, characters, sections.

        Reads all once if nothing was read so far. `hashes`: with the SHA-256 of each file, by its name. Plain values,
        fit for JSON, and never a note's text. Files of one name in two folders are told with their folders.
        """
        if self._account is None:
            for _ in self._all():
                pass
        assert self._account is not None
        short = [path.name for path in self.files]
        names = {path: path.name if short.count(path.name) == 1 else str(path) for path in self.files}
        sha256 = {names[path]: found for path, found in self.hashes().items()} if hashes else {}
        return self._account.told() | {"sha256": sha256}

    def hashes(self) -> dict[Path, str]:
        """The SHA-256 of each file, read once."""
        for path in self.files:
            if path not in self._hashes:
                with path.open("rb") as file:
                    self._hashes[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._hashes

    def left_out(self) -> str:
        """Rows that the last whole pass left out, by reason, in one line."""
        reasons = {} if self._account is None else self._account.faults.by_reason()
        return ", ".join(f"{count} {reason}" for reason, count in reasons.items())

    def faults(self) -> list[str]:
        """After a whole pass, a line for each file and reason to leave rows out, and one if no note has a patient."""
        if self._account is None:
            return []
        return [*self._account.faults.lines(), *([_NO_PATIENT] if self._account.knows_no_patient() else [])]

    def _all(self) -> Iterator[tuple[Split, str]]:
        account, seen = _Account(), doubles.Seen()
        for path in self.files:
            for note in self._read(path, account.faults):
                text, reason = self._clean(note)
                if reason is None and self._settings.duplicates != "keep":
                    fresh = seen.add(doubles.text_hash(text, self._settings.duplicates))
                    reason = None if fresh else _DUPLICATE
                if reason is not None:
                    account.faults.add(path.name, note.row, reason, expected=reason in _EXPECTED)
                    continue
                split = self._split(note, text)
                account.take(split, note.patient, self._known.get(note.category.strip().lower(), "other"), text)
                yield split, text
        self._account = account

    def _clean(self, note: Note) -> tuple[str, str | None]:
        """The text to learn from, or a reason to leave the note out."""
        s = self._settings
        if note.left_out is not None:
            return "", note.left_out
        if self._categories and note.category.strip().lower() not in self._categories:
            return "", _OTHER
        if len(note.text) > s.max_characters:
            return "", f"longer than {s.max_characters} characters"
        text = deidentified.replace(tidy(note.text), s.marks)
        if s.sections:
            text = headings.keep(text, s.sections)
            if not text:
                return "", _WITHOUT
        return text, None if len(text) >= s.min_characters else _SHORT

    def _split(self, note: Note, text: str) -> Split:
        """By the patient; where the export has none, by the text that is learned."""
        if note.patient is None:
            return split_of(text, self._settings.heldout)
        return split_of_patient(note.patient, self._settings.heldout, self._settings.seed)


class _Account:
    """What one pass over a corpus met."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._documents: Counter[str] = Counter()
        self._characters: Counter[str] = Counter()
        self._sections: Counter[str] = Counter()
        self._categories: Counter[str] = Counter()
        self._patients = {"train": doubles.Seen(), "heldout": doubles.Seen()}

    def take(self, split: Split, patient: str | None, category: str, text: str) -> None:
        """A document."""
        self._documents[split] += 1
        self._characters[split] += len(text)
        self._categories[category] += 1
        self._sections.update({section.name for section in headings.find(text)})
        if patient is not None:
            self._patients[split].add(doubles.text_hash(patient))

    def knows_no_patient(self) -> bool:
        """Whether there are documents, and none of them names its patient."""
        return self._documents.total() > 0 and not any(len(seen) for seen in self._patients.values())

    def told(self) -> dict[str, Any]:
        """It, as plain values."""
        left_out = self.faults.by_reason()
        return {
            "rows": self._documents.total() + sum(left_out.values()),
            "left_out": left_out,
            "faults": self.faults.lines(),
            "documents": dict(self._documents),
            "patients": {split: len(seen) for split, seen in self._patients.items()},
            "characters": dict(self._characters),
            "categories": dict(sorted(self._categories.items())),
            "documents_with_section": dict(sorted(self._sections.items())),
        }


def tidy(text: str) -> str:
    """The text without control characters, blanks at line ends, and more than one blank line in a row."""
    lines = _CONTROL.sub("", _LINE_END.sub("\n", text)).split("\n")
    return _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in lines)).strip()
