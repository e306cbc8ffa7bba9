"""Tables of notes: csv, tsv, xlsx and jsonl as rows of strings that know their line."""

import csv
import difflib
import errno
import io
import json
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medtextdiff.config import nearest
from medtextdiff.data.errors import DataError

_LONGEST_CELL = 10_000_000  # characters; a hospital stay's notes fit
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab"}  # in this order


@dataclass(frozen=True)
class Row:
    """One line of a table: `number` as an editor or a spreadsheet counts it; `cells` by column, stripped."""

    number: int
    cells: Mapping[str, str]


def read_table(
    path: str | Path,
    required: Sequence[str] = (),
    optional: Sequence[str] = (),
    *,
    only_known: bool = False,
    option: str = "",
) -> list[Row]:
    """All rows of a .csv, .tsv (UTF-8), .xlsx (first sheet) or .jsonl table; blank lines are left out.

    `optional` names columns that may be absent; a column that is spelled almost like an absent one is an error, since
    it would be overlooked. Other columns are kept, unless `only_known`. `option` is the one by which a user names a
    required column. A .csv without a comma in its header is separated by the semicolons (as spreadsheets of many
    countries save it) or tabs there, or by what a first line `sep=;` says. Merged cells of a spreadsheet all have the
    value that they show.

    Raises:
        DataError: missing, empty, not UTF-8, ragged, another type, a missing or misspelt column. The message names
            the file and the line, never a cell's text.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"table {path} must end in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"table {path} does not exist; check the path")
    try:
        columns, rows = _READERS[path.suffix.lower()](path)
    except OSError as error:
        raise DataError(f"table {path} cannot be opened: {error.strerror or 'not readable'}") from None
    _check_columns(path, columns, required, optional, only_known, option)
    if not rows:
        raise DataError(f"table {path} has no rows below its header")
    return rows


def _check_columns(
    path: Path, columns: list[str], required: Sequence[str], optional: Sequence[str], only_known: bool, option: str
) -> None:
    known = [*required, *optional]
    or_name = f", or name the column with {option}" if option else ""
    lower = [column.lower() for column in columns]
    if required and not any(difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6) for name in known):
        # A table without a header begins with a note, so the line is not repeated here.
        place = " of its first sheet" if path.suffix.lower() == ".xlsx" else ""
        raise DataError(
            f"table {path}: the first line{place} names none of the columns {', '.join(known)}; add a header line"
            f"{or_name}"
        )
    found = f"its columns are: {', '.join(columns) or 'none'}"
    for name in required:
        if name not in columns:
            close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
            hint = f"; rename '{columns[lower.index(close[0])]}' to '{name}'?" if close else or_name
            raise DataError(f"table {path} has no column '{name}'; {found}{hint}")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"table {path} has the column '{twice[0]}' twice; rename one ({found})")
    absent = [name for name in optional if name not in columns]
    for column in columns:
        if column in known:
            continue
        close = difflib.get_close_matches(column.lower(), absent, n=1, cutoff=0.75)
        if close and not _is_about(column.lower(), close[0]):
            raise DataError(f"table {path}: unknown column '{column}'; did you mean '{close[0]}'? ({found})")
        if only_known:
            raise DataError(f"table {path}: unknown column '{column}'; {nearest(column, known)}")


def _is_about(column: str, name: str) -> bool:
    """Whether the column tells something about a `name`, so is no misspelling of it: "patient_age" for "patient"."""
    told = re.fullmatch(rf"{re.escape(name)}[_ -]+(\w+)", column)
    return told is not None and told[1] not in ("id", "ids", "no", "nr", "number")


def _read_csv(path: Path, delimiter: str = "") -> tuple[list[str], list[Row]]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"table {path} is not UTF-8 (byte {data[error.start]:#04x} in line {line}); "
            "save it as 'CSV UTF-8', Excel's plain CSV is not"
        ) from None
    csv.field_size_limit(_LONGEST_CELL)
    if told := re.match(r"sep=(.)\r?\n", text):  # Excel's own first line
        delimiter, text = told[1], text[told.end(1) :]
    delimiter = delimiter or _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        # A blank line is no row; in a table of one column a quoted nothing is one, with an empty cell.
        lines = [(line, cells) for line, cells in _numbered(reader) if cells == [""] or any(map(str.strip, cells))]
    except csv.Error as error:
        raise DataError(f"table {path}, line {reader.line_num}: {error}; check its quotes") from None
    if not lines:
        raise DataError(f"table {path} is empty")
    columns = [cell.strip() for cell in lines[0][1]]
    if len(columns) > 1:
        lines = [(line, cells) for line, cells in lines if cells != [""]]
    for line, cells in lines[1:]:
        if len(cells) != len(columns):
            raise DataError(
                f"table {path}, line {line}: {len(cells)} cells, but the header has {len(columns)}; "
                f"a note with a {_NAMES.get(delimiter, delimiter)} needs quotes"
            )
    return columns, [Row(line, dict(zip(columns, map(str.strip, cells), strict=True))) for line, cells in lines[1:]]


def _delimiter(text: str) -> str:
    """Of a .csv, by its header."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return next((one for one in _NAMES if one in header), ",")


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line on which it begins."""
    begin = 1
    for cells in reader:
        yield begin, cells
        begin = reader.line_num + 1


def _read_xlsx(path: Path) -> tuple[list[str], list[Row]]:
    import openpyxl

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles, of which we use none
            sheet = openpyxl.load_workbook(file, data_only=True).worksheets[0]
            _check_computed(path, sheet, openpyxl.load_workbook(file).worksheets[0])
            lines = [[_excel_cell(path, cell) for cell in line] for line in sheet.iter_rows()]
            for merged in sheet.merged_cells.ranges:
                value = lines[merged.min_row - 1][merged.min_col - 1]
                for row, column in merged.cells:
                    lines[row - 1][column - 1] = value
    except (DataError, OSError, MemoryError):
        raise
    except Exception:  # openpyxl, zlib and the XML reader raise a dozen types at a damaged file
        raise DataError(f"table {path} is damaged or not an .xlsx file; save it again from a spreadsheet") from None
    filled = [(number, cells) for number, cells in enumerate(lines, 1) if any(cells)]
    if not filled:
        raise DataError(f"table {path}: the first sheet is empty")
    columns = filled[0][1]
    while columns and not columns[-1]:
        columns.pop()
    if "" in columns:
        raise DataError(f"table {path}: column {columns.index('') + 1} has no name in the header")
    return columns, [Row(number, _padded(path, number, columns, cells)) for number, cells in filled[1:]]


def _check_computed(path: Path, values: Any, formulas: Any) -> None:
    """A formula that no spreadsheet has computed has no value: it would be read as an empty cell."""
    for line in formulas.iter_rows():
        for cell in line:
            if cell.data_type == "f" and values[cell.coordinate].value is None:
                raise DataError(
                    f"table {path}: cell {cell.coordinate} holds a formula without a computed value; open the file in "
                    "a spreadsheet, save it there, or put the values in"
                )


def _padded(path: Path, number: int, columns: list[str], cells: list[str]) -> dict[str, str]:
    if any(cells[len(columns) :]):
        raise DataError(
            f"table {path}, row {number}: a cell lies right of the last named column; name each column in the first "
            "row, and put no title above it"
        )
    cells = cells[: len(columns)] + [""] * (len(columns) - len(cells))
    return dict(zip(columns, cells, strict=True))


def _read_jsonl(path: Path) -> tuple[list[str], list[Row]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise DataError(f"table {path} is not UTF-8; save it as UTF-8") from None
    rows = [Row(number, _json_cells(path, number, line)) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DataError(f"table {path} is empty")
    columns = list(dict.fromkeys(name for row in rows for name in row.cells))
    return columns, [Row(row.number, {name: row.cells.get(name, "") for name in columns}) for row in rows]


def _json_cells(path: Path, number: int, line: str) -> dict[str, str]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # not JSON; a number of thousands of digits; thousands of brackets
        raise DataError(f"table {path}, line {number}: not JSON; each line is one object") from None
    if not isinstance(value, dict):
        raise DataError(f'table {path}, line {number}: not an object; write {{"image": "...", "note": "..."}}')
    for name, cell in value.items():
        if isinstance(cell, list | dict):
            raise DataError(f"table {path}, line {number}: '{name}' is a list or object; give text")
    cells = {name: _cell(path, cell) for name, cell in value.items()}
    try:
        "".join([*cells, *cells.values()]).encode()
    except UnicodeEncodeError:  # JSON can spell halves of a pair, UTF-8 cannot
        raise DataError(
            f"table {path}, line {number}: half of a surrogate pair (\\ud800 to \\udfff) is no letter; save it as UTF-8"
        ) from None
    return cells


def _cell(path: Path, value: Any) -> str:
    if value is None or value != value:  # a gap; NaN is saved as such in a .jsonl
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a spreadsheet keeps 12 as 12.0
    return str(value).strip()


def _excel_cell(path: Path, cell: Any) -> str:
    if cell.data_type == "e":
        raise DataError(f"table {path}, cell {cell.coordinate}: Excel could not compute it ({cell.value}); fill it in")
    return _cell(path, cell.value)


def normal(name: str) -> str:
    """A file's name with one spelling for each letter: a Mac writes \u00e4 as a and dots, most others as one letter."""
    return unicodedata.normalize("NFC", name)


def on_disk(path: Path) -> Path:
    """The path with the spelling that a file there has; itself where there is none."""
    if path.name.isascii() or is_file(path):
        return path
    spellings = (path.with_name(unicodedata.normalize(form, path.name)) for form in ("NFC", "NFD"))
    return next((spelt for spelt in spellings if is_file(spelt)), path)


def is_file(path: Path) -> bool:
    """Whether what a cell names is a file. A note is none: where columns were swapped, it is too long for a name, and
    the system's own error would repeat it.
    """
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def join(names: Iterable[str], most: int = 5) -> str:
    """Names for a message: the first few, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


_READERS: dict[str, Callable[[Path], tuple[list[str], list[Row]]]] = {
    ".csv": _read_csv,
    ".tsv": partial(_read_csv, delimiter="\t"),
    ".xlsx": _read_xlsx,
    ".jsonl": _read_jsonl,
}
SUFFIXES = tuple(_READERS)
