"""One table that names everything: columns image, mask, note, split, patient, id (only image is needed).

Paths are relative to the table's folder. Several rows of one image and mask are its several notes.
"""

import json
from functools import partial
from pathlib import Path

from medtextdiff import config
from medtextdiff.data import made_up
from medtextdiff.data.errors import DataError
from medtextdiff.data.listing import Entry, gather
from medtextdiff.data.records import Listing, Source
from medtextdiff.data.tables import read_table
from medtextdiff.types import Side

OPTIONAL = ("mask", "note", "split", "patient", "id")


class Config(config.Config):
    """A data set listed in one table; `root` is the table (csv, tsv, jsonl, xlsx), `side` whose left notes mean.

    Further columns are left alone, unless `notes_columns` names them: the first is `note`, the rest `other_notes`.
    """

    root: str
    notes_columns: tuple[str, ...] = ("note",)
    side: Side = "viewer"

    def build(self) -> Source:
        """The source; nothing is read yet."""
        return Source(self.root, partial(_scan, self), self.side)

    @classmethod
    def tiny(cls, folder: Path) -> "Config":
        """Write a made-up set into `folder` and give its config."""
        lines = [
            {
                "image": f"images/{e.name}.png",
                "mask": f"masks/{e.name}.png",
                "note": e.note,
                "split": e.split,
                "patient": e.name,
            }
            for e in made_up.write(folder)
        ]
        (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return cls(root=str(folder / "manifest.jsonl"))


def _scan(settings: Config) -> Listing:
    table = Path(settings.root)
    further = [column for column in settings.notes_columns if column != "note"]
    rows = read_table(table, ["image", *further], OPTIONAL)
    entries = []
    for row in rows:
        cells = row.cells
        if not cells["image"]:
            raise DataError(f"table {table}, line {row.number}: no image is named; fill in or delete the row")
        mask = cells.get("mask")
        entries.append(
            Entry(
                place=f"{table.name} line {row.number}",
                image=table.parent / cells["image"],
                mask=table.parent / mask if mask else None,
                notes=tuple(cells.get(column, "") for column in settings.notes_columns),
                split=cells.get("split", ""),
                patient=cells.get("patient") or None,
                id=cells.get("id") or None,
            )
        )
    return gather(entries, table.parent)
