"""The rows of a csv table of notes, as a stream that survives quoted line ends and finds its way after broken quoting.

A quoted field may hold line ends, so a row ends at a line end after an even number of quotes. One quote too many or
too few, and all that follows would be read inside out: when such a row does not parse, reading goes on at the next
line that begins as a row of this table does.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from medtextdiff.text.errors import TextError
from medtextdiff.text.reading.faults import Faults
from medtextdiff.text.reading.lines import CutShortError, read_lines

BROKEN = "broken quoting, or a wrong number of fields"
ALONE = f"{BROKEN}, and no row was found after it (are the columns in another order than PhysioNet's?)"
CUT_SHORT = "the file is cut short or damaged from here on, get it again; the rest"
_LARGEST = 8 * 2**20  # bytes of a row; beyond it a quote was never closed
_FIELD = re.compile(rb'(?:"([^"]*+(?:""[^"]*+)*+)"|([^",\r\n]*+))(,|\r?\n?\Z)')  # possessive: linear time

Fields = list[bytes]


def read_rows(
    path: Path, columns: Sequence[str], begin: re.Pattern[bytes], faults: Faults
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows by number (from 1, header not counted), of each the fields called `columns` (lower case).

    A row that is broken or not UTF-8 is counted in `faults`, and so is the end of a file that is cut short; the rest
    is given. `begin` matches the beginning of a row, and of hardly any line within one.

    Raises:
        TextError: an empty file, no text, or a header without one of the columns.
    """
    records = _records(path, begin, faults)
    places = _places(path, next(records, (0, None))[1], columns)
    for number, fields in records:
        try:
            yield number, {name: fields[place].decode() for name, place in places.items()}
        except UnicodeDecodeError:
            faults.add(path.name, number, "not UTF-8")


def split_fields(record: bytes) -> Fields | None:
    """The fields of one csv record, doubled quotes made single; None if it is none."""
    fields, place = [], 0
    while True:
        found = _FIELD.match(record, place)
        if found is None:
            return None
        quoted, plain, end = found.groups()
        fields.append(plain if quoted is None else quoted.replace(b'""', b'"'))
        place = found.end()
        if end != b",":
            return fields


def _records(path: Path, begin: re.Pattern[bytes], faults: Faults) -> Iterator[tuple[int, Fields]]:
    """Number and fields of each record that can be read, the header's being 0; nothing where that is broken."""
    lines = _Lines(path)
    number, width = 0, None
    while record := lines.record():
        fields = split_fields(record)
        if fields is not None and width in (None, len(fields)):
            width = len(fields)
            yield number, fields
        elif number == 0:
            return
        else:
            found = lines.skip(begin)
            if not found and lines.cut_short:
                break  # the row that was cut
            faults.add(path.name, number, BROKEN if found else ALONE)
        number += 1
    if lines.cut_short:
        faults.add(path.name, number, CUT_SHORT)


class _Lines:
    """Lines of a file, gathered to records, with a way back to the lines of a record that was none.

    `cut_short`: the file ended in the middle. A lost quote may have gathered many good rows by then.
    """

    def __init__(self, path: Path) -> None:
        self.cut_short = False
        self._stream = read_lines(path)
        self._waiting: list[bytes] = []  # to be read again, the next one last
        self._last: list[bytes] = []

    def record(self) -> bytes:
        """The next lines with an even number of quotes together; fewer at the end; b"" after it."""
        self._last = []
        quotes = size = 0
        while line := self._next():
            if not self._last and not line.strip():
                continue
            self._last.append(line)
            quotes += line.count(b'"')
            size += len(line)
            if quotes % 2 == 0 or size > _LARGEST:
                break
        return b"".join(self._last)

    def skip(self, begin: re.Pattern[bytes]) -> bool:
        """Go on at the next line, after the first of the last record, that matches `begin`; False if there is none."""
        self._waiting += reversed(self._last[1:])
        while line := self._next():
            if begin.match(line):
                self._waiting.append(line)
                return True
        return False

    def _next(self) -> bytes:
        if self._waiting:
            return self._waiting.pop()
        try:
            return next(self._stream, b"")
        except CutShortError:
            self.cut_short = True
            return b""


def _places(path: Path, header: Fields | None, columns: Sequence[str]) -> dict[str, int]:
    if header is None:
        raise TextError(f"'{path.name}' is empty, or no csv table in UTF-8 from its first line on; get it again")
    try:
        names = [name.decode().strip().lower() for name in header]
    except UnicodeDecodeError:
        names = ["\0"]
    if any("\0" in name for name in names):
        raise TextError(f"'{path.name}' is not UTF-8 text; save it as UTF-8")
    missing = [name for name in columns if name not in names]
    if missing:  # what is there is not listed: without a header it is a note
        raise TextError(f"'{path.name}' has no column '{missing[0]}'; its first line must name {', '.join(columns)}")
    return {name: names.index(name) for name in columns}
