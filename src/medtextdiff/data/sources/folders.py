"""`images/`, `masks/` and a table of notes: the layout of most public sets.

    root/images/a.png    root/masks/a.png    root/notes.csv: image,[mask],[split],[patient],note, further columns

A row names its image and, where there is a `mask` column, its mask; without one the mask has the image's name.
Several rows of an image are its several notes. Without a table every image is a record of the split "train".
"""

import json
import os
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from medtextdiff import config
from medtextdiff.data import made_up
from medtextdiff.data.errors import DataError
from medtextdiff.data.images import list_images
from medtextdiff.data.listing import Entry, gather
from medtextdiff.data.records import Finding, Listing, Source
from medtextdiff.data.tables import SUFFIXES, Row, join, normal, on_disk, read_table
from medtextdiff.types import Side

PATIENT = "patient"  # the column that is read unasked, where the table has it


class Config(config.Config):
    """A folder of images with masks and notes.

    Fields:
        notes: the table's name within root (csv, tsv, xlsx, jsonl); "auto" is `notes.*`; None: no table.
        images, mask_folder: folders within root; images None: a set of text alone; mask_folder None: no masks.
        mask_suffix: what a mask's name adds to its image's, where no `mask` column says it ("_1stHO").
        notes_columns: the first is the record's `note`, the others its `other_notes`.
        patient_column: whose image it is. A table need not have the column "patient", but must have one that is named
            here otherwise. None: no patients.
        missing_masks: "none" if a mask that is not there means that nothing was drawn.
        unlisted: what to do with images that have no row in the table.
        side: whose left the notes mean.
    """

    root: str
    notes: str | None = "auto"
    images: str | None = "images"
    mask_folder: str | None = "masks"
    mask_suffix: str = ""
    image_column: str = "image"
    mask_column: str = "mask"
    split_column: str = "split"
    patient_column: str | None = PATIENT
    notes_columns: tuple[str, ...] = ("note",)
    missing_masks: Literal["error", "none"] = "error"
    unlisted: Literal["error", "skip"] = "error"
    side: Side = "viewer"

    def build(self) -> Source:
        """The source; nothing is read yet."""
        return Source(self.root, partial(_scan, self), self.side)

    @classmethod
    def tiny(cls, folder: Path) -> "Config":
        """Write a made-up set into `folder` and give its config."""
        made = made_up.write(folder)
        lines = [f"{e.name}.png,{e.name}.png,{e.split},{e.note}" for e in made]
        (folder / "notes.csv").write_text("\n".join(["image,mask,split,note", *lines]) + "\n", encoding="utf-8")
        return cls(root=str(folder))


def _scan(settings: Config) -> Listing:
    root = Path(settings.root)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder that holds images/ and the table of notes")
    image_folder = root / settings.images if settings.images is not None else None
    if image_folder is not None and not image_folder.is_dir():
        raise DataError(f"{root} has no folder '{settings.images}'; put the images there or set `images`")
    table, masks = _table(settings, root), _masks_by_name(settings)
    if table is None:
        if image_folder is None:
            raise DataError(f"{root}: neither images nor a table of notes; set `images` or `notes`")
        bare = [_bare(settings, image_folder, path, masks) for path in list_images(image_folder)]
        listing = gather(bare, image_folder)
        return Listing(listing.records, (*listing.findings, *_masks_of_none(settings, masks, bare)))
    optional, needed = [settings.mask_column, settings.split_column], [settings.image_column, *settings.notes_columns]
    if settings.patient_column is not None:
        (optional if settings.patient_column == PATIENT else needed).append(settings.patient_column)
    rows = read_table(table, needed, optional)
    _check_mask_folder(settings, root, rows)
    entries = [_entry(settings, table, row, masks) for row in rows]
    listing = gather(entries, image_folder or root, settings.missing_masks)
    if image_folder is None or settings.unlisted == "skip":
        return listing
    further = [*_unlisted(settings, image_folder, entries), *_masks_of_none(settings, masks, entries)]
    return Listing(listing.records, (*listing.findings, *further))


def _table(settings: Config, root: Path) -> Path | None:
    if settings.notes is None:
        return None
    if settings.notes != "auto":
        return root / settings.notes
    found = [root / f"notes{suffix}" for suffix in SUFFIXES]
    found = [path for path in found if path.is_file()]
    if len(found) > 1:
        names = [path.name for path in found]
        raise DataError(
            f"{root} has {' and '.join(names)}; move one away, or say which: {_option(settings, notes=names[0])}"
        )
    if not found:
        raise DataError(
            f"{root} has no notes.csv (nor .tsv, .xlsx, .jsonl); add one, or do without: "
            f"{_option(settings, notes=None)}"
        )
    return found[0]


def _check_mask_folder(settings: Config, root: Path, rows: list[Row]) -> None:
    folder = settings.mask_folder
    if folder is None or (root / folder).is_dir():
        return
    if folder != Config.model_fields["mask_folder"].default or any(row.cells.get(settings.mask_column) for row in rows):
        others = sorted(path.name for path in root.iterdir() if path.is_dir() and "mask" in path.name.lower())
        hint = f"there is {join(others)}: --masks {others[0]}, or to train" if others else "add it, or do without"
        option = _option(settings, mask_folder=others[0] if others else None)
        raise DataError(f"{root} has no folder '{folder}'; {hint}: {option}")


def _entry(settings: Config, table: Path, row: Row, masks: dict[str, Path]) -> Entry:
    root, cells = Path(settings.root), row.cells
    name = cells[settings.image_column]
    if not name or not PurePosixPath(name).name:
        raise DataError(f"table {table}, line {row.number}: no image is named; fill in or delete the row")
    image = None
    if settings.images is not None:
        folder = root / settings.images
        name = os.path.relpath(folder / name, folder)  # of an absolute path, or one with `..`, what lies inside
        image = folder / name
    mask: Path | None = None
    if settings.mask_folder is not None and image is not None:
        named = cells.get(settings.mask_column, "")
        mask = root / settings.mask_folder / named if named else None
        if settings.mask_column not in cells:
            mask = _same_name(settings, masks, name)
    return Entry(
        place=f"{table.name} line {row.number}",
        image=image,
        mask=mask,
        notes=tuple(cells[column] for column in settings.notes_columns),
        split=cells.get(settings.split_column, ""),
        patient=(cells.get(settings.patient_column) or None) if settings.patient_column else None,
        id=Path(name).stem if image is None else None,
    )


def _bare(settings: Config, folder: Path, image: Path, masks: dict[str, Path]) -> Entry:
    name = image.relative_to(folder).as_posix()
    return Entry(place=name, image=image, mask=_same_name(settings, masks, name), notes=("",))


def _masks_by_name(settings: Config) -> dict[str, Path]:
    """Mask files by their path within the mask folder, without ending; a PNG goes before other endings."""
    if settings.mask_folder is None:
        return {}
    folder = Path(settings.root) / settings.mask_folder
    found = list_images(folder) if folder.is_dir() else []
    found.sort(key=lambda path: path.suffix.lower() == ".png")
    return {normal(path.relative_to(folder).with_suffix("").as_posix()): path for path in found}


def _same_name(settings: Config, masks: dict[str, Path], name: str) -> Path | None:
    """The mask of the image called `name` within the image folder; None where there is none."""
    return masks.get(normal(str(PurePosixPath(name).with_suffix("")) + settings.mask_suffix))


def _unlisted(settings: Config, folder: Path, entries: list[Entry]) -> list[Finding]:
    listed = {on_disk(entry.image) for entry in entries if entry.image is not None}
    extra = tuple(str(path.relative_to(folder)) for path in list_images(folder) if path not in listed)
    if not extra:
        return []
    message = f"{len(extra)} images have no row in the table of notes"
    mend = f"add rows (the note may be empty), or leave them out: {_option(settings, unlisted='skip')}"
    return [Finding("error", "image-without-row", extra, message, mend)]


def _masks_of_none(settings: Config, masks: dict[str, Path], entries: list[Entry]) -> list[Finding]:
    """Mask files that no image has: perhaps each has another name than its image."""
    used = {on_disk(entry.mask) for entry in entries if entry.mask is not None}
    extra = {name: path for name, path in masks.items() if path not in used}
    if not extra or settings.mask_folder is None:
        return []
    images = [normal(entry.image.stem) for entry in entries if entry.image is not None]
    ends = _common_ends([PurePosixPath(name).name for name in list(extra)[:20]], images)
    mend = "give each its image's name, or name them in a column `mask` of the table"
    if ends and not settings.mask_suffix:
        which = f"those in {' or '.join(ends)}" if len(ends) > 1 else f"the end {ends[0]}"
        mend = f"to take {which} for the masks: {_option(settings, mask_suffix=ends[0])}"
    folder = Path(settings.root) / settings.mask_folder
    where = tuple(path.relative_to(folder).as_posix() for path in extra.values())
    message = f"{len(extra)} files in {settings.mask_folder}/ are the mask of no image"
    return [Finding("warning", "mask-without-image", where, message, mend)]


def _common_ends(masks: list[str], images: list[str]) -> list[str]:
    """What masks' names add to those of images, where each mask adds one of a few ends."""
    found = [{mask.removeprefix(image) for image in images if mask.startswith(image)} - {""} for mask in masks]
    ends = sorted({min(own, key=len) for own in found if own})
    return ends if all(found) and len(ends) <= 3 else []


def _option(settings: Config, **fields: object) -> str:
    """What a person adds to `medtextdiff train` so that the source is this one with other `fields`."""
    mine = {name: value for name, value in settings if value != type(settings).model_fields[name].default}
    told = {"kind": settings.kind(), **mine, **fields}
    return f"--set 'data.source={json.dumps(told)}'"
