"""Notes out of csv tables: the columns of a data set's notes.csv that hold text, training rows only."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field

from medtextdiff import config
from medtextdiff.text.corpora.plain import split_documents
from medtextdiff.text.errors import TextError
from medtextdiff.text.reading.splits import Split

_LONGEST_CELL = 10_000_000  # characters, as in the tables of data sets


class Config(config.Config):
    """Which tables, and which of their columns and rows."""

    paths: tuple[str, ...] = ()  # csv files with a header
    columns: tuple[str, ...] = ("note",)  # text columns; a table needs at least one of them
    split: str | None = "train"  # rows of this value in the column `split`; None: all rows
    heldout: float = Field(default=0.02, ge=0, lt=1)
    repeat: int = Field(default=1, ge=1)

    def build(self) -> "TableCorpus":
        """The corpus; tables are read when asked for."""
        return TableCorpus(self)


class TableCorpus:
    """The distinct notes of csv tables."""

    def __init__(self, config: Config) -> None:
        """Look up the tables.

        Raises:
            TextError: no path given, or a table that is not there.
        """
        if not config.paths:
            raise TextError("a table corpus needs files; give paths=NOTES.csv")
        self.files = [Path(path).expanduser() for path in config.paths]
        for path in self.files:
            if not path.is_file():
                raise TextError(f"no table '{path}'; check the path")
        self._config = config

    def documents(self, split: Split = "train", once: bool = False) -> Iterator[str]:
        """The notes of one split; `heldout` is a share of the rows chosen, not the data set's own validation rows.

        Raises:
            TextError: a table without any of the columns, with broken quotes or rows of other lengths, or that is not
                UTF-8.
        """
        for _ in range(self._config.repeat if split == "train" and not once else 1):
            notes = (note for path in self.files for note in self._notes(path))
            yield from split_documents(notes, split, self._config.heldout)

    def _notes(self, path: Path) -> Iterable[str]:
        wanted = self._config.split
        try:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                csv.field_size_limit(_LONGEST_CELL)
                table = csv.DictReader(stream, strict=True)  # else a lost quote makes all that follows one note
                columns = [name for name in self._config.columns if name in (table.fieldnames or ())]
                self._check(path, table.fieldnames or (), columns)
                for row in table:
                    if None in row or None in row.values():
                        raise TextError(
                            f"'{path.name}', line {table.line_num}: more or fewer cells than the header has; a note "
                            "with a comma needs quotes"
                        )
                    if wanted is None or row["split"] == wanted:
                        yield from (row[name].strip() for name in columns if row[name].strip())
        except UnicodeDecodeError:
            raise TextError(f"'{path.name}' is not UTF-8 text; save it as UTF-8") from None
        except csv.Error as error:
            raise TextError(
                f"'{path.name}' is not a csv table near line {table.line_num}: {error}; check its quotes"
            ) from None

    def _check(self, path: Path, present: Iterable[str], columns: list[str]) -> None:
        if not columns:
            wanted = ", ".join(self._config.columns)
            # What is there is not listed: without a header it is a note.
            raise TextError(f"'{path.name}' has none of the columns {wanted}; add a header line, or set `columns`")
        if self._config.split is not None and "split" not in present:
            raise TextError(f"'{path.name}' has no column 'split'; add one that says train or another")
