"""The folders of LViT (arXiv 2206.14718), which MoNuSeg, QaTa-COV19 and MosMedData+ are passed around in.

    root/{Train,Val,Test}_Folder/{img/, labelcol/, <Split>_text.xlsx}    columns Image, Description

QaTa-COV19 has one `Train_Val_text.xlsx` for two splits. The table names *masks*; an image's own name is taken too.
"""

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from medtextdiff import config
from medtextdiff.data import made_up
from medtextdiff.data.errors import DataError
from medtextdiff.data.images import list_images
from medtextdiff.data.listing import Entry, gather, shown
from medtextdiff.data.records import Finding, Listing, Source
from medtextdiff.data.tables import read_table
from medtextdiff.types import Side

FOLDERS = {"train": "Train_Folder", "val": "Val_Folder", "test": "Test_Folder"}
Naming = Literal["auto", "same", "png", "mask_"]


class Config(config.Config):
    """A data set in LViT's folders.

    Fields:
        naming: how a mask's name comes from its image's: "same" (MosMedData+), "png" (the ending becomes .png:
            MoNuSeg), "mask_" (that is put before it: QaTa-COV19); "auto" takes the rule whose masks exist.
        missing_notes: "empty" if an image without a row has no note; the published code stops there.
        side: whose left the notes mean.
    """

    root: str
    naming: Naming = "auto"
    missing_notes: Literal["error", "empty"] = "error"
    side: Side = "viewer"

    def build(self) -> Source:
        """The source; nothing is read yet."""
        return Source(self.root, partial(_scan, self), self.side)

    @classmethod
    def tiny(cls, folder: Path) -> "Config":
        """Write a made-up set into `folder` and give its config."""
        import openpyxl

        for split, name in list(FOLDERS.items())[:2]:
            here = folder / name
            made = made_up.write(here, num=4, seed=len(split))
            (here / "images").rename(here / "img")
            (here / "masks").rename(here / "labelcol")
            book = openpyxl.Workbook()
            for line in [("Image", "Description"), *((f"{e.name}.png", e.note) for e in made)]:
                book.worksheets[0].append(line)
            book.save(here / f"{split.capitalize()}_text.xlsx")
        return cls(root=str(folder))


def _scan(settings: Config) -> Listing:
    root = Path(settings.root)
    present = {split: root / name for split, name in FOLDERS.items() if (root / name).is_dir()}
    if not present:
        raise DataError(f"{root} has none of {', '.join(FOLDERS.values())}; is this LViT's layout?")
    entries: list[Entry] = []
    findings: list[Finding] = []
    for split, folder in present.items():
        found, problems = _read_split(settings, split, folder)
        entries += found
        findings += problems
    listing = gather(_named(entries), root)
    return Listing(listing.records, (*listing.findings, *findings))


def _named(entries: list[Entry]) -> list[Entry]:
    """Ids are the images' names; where two splits share one, with the split before it."""
    stems = [entry.image.stem if entry.image else "" for entry in entries]
    count = Counter(stems)
    return [
        replace(entry, id=stem if count[stem] == 1 else f"{entry.split}__{stem}")
        for entry, stem in zip(entries, stems, strict=True)
    ]


def _read_split(settings: Config, split: str, folder: Path) -> tuple[list[Entry], list[Finding]]:
    for name in ("img", "labelcol"):
        if not (folder / name).is_dir():
            raise DataError(f"{folder} has no folder '{name}'; LViT's layout has img/ and labelcol/")
    pictures = list_images(folder / "img")
    naming = settings.naming if settings.naming != "auto" else _find_naming(folder, pictures)
    table = _find_table(folder, split)
    rows = read_table(table, ["Image", "Description"])
    notes: dict[str, list[str]] = {}
    for row in rows:
        notes.setdefault(row.cells["Image"], []).append(row.cells["Description"])
    entries, without, used = [], [], set()
    for image in pictures:
        mask = folder / "labelcol" / _mask_name(image.name, naming)
        keys = [key for key in (mask.name, image.name, mask.stem, image.stem) if key in notes]
        if not keys:
            without.append(f"{folder.name}/{image.name}")
        used.update(keys)
        found = tuple(notes[keys[0]]) if keys else ("",)
        entries.append(Entry(f"{folder.name} {image.name}", image, mask, found, split))
    findings = _row_findings(
        settings, table, without, [] if table.name == "Train_Val_text.xlsx" else notes.keys() - used
    )
    return entries, findings


def _row_findings(settings: Config, table: Path, without: list[str], unused: object) -> list[Finding]:
    findings = []
    if without:
        severity: Literal["error", "info"] = "error" if settings.missing_notes == "error" else "info"
        message = f"{len(without)} images have no row in {table.name}"
        mend = "add rows that name the mask, or set missing_notes=empty"
        findings.append(Finding(severity, "image-without-row", tuple(without), message, mend))
    names = tuple(shown(name) for name in sorted(unused)) if isinstance(unused, set) else ()
    if names:
        message = f"{len(names)} rows of {table.name} name no image of its folder"
        findings.append(Finding("warning", "row-without-image", names, message, "delete the rows or add the images"))
    return findings


def _find_naming(folder: Path, pictures: list[Path]) -> Naming:
    """The rule under which most masks are there; a rule is never guessed from the folder's name."""
    there = {path.name for path in (folder / "labelcol").iterdir()}
    rules: tuple[Naming, ...] = ("same", "png", "mask_")
    counts = {rule: sum(_mask_name(path.name, rule) in there for path in pictures) for rule in rules}
    best = max(rules, key=lambda rule: counts[rule])
    if pictures and counts[best] == 0:
        raise DataError(
            f"{folder}: no mask in labelcol/ is named after an image of img/; the rules known are {', '.join(rules)}"
        )
    return best


def _mask_name(image_name: str, naming: Naming) -> str:
    if naming == "png":
        return f"{image_name.rpartition('.')[0]}.png"
    if naming == "mask_":
        return image_name if image_name.startswith("mask_") else f"mask_{image_name}"
    return image_name


def _find_table(folder: Path, split: str) -> Path:
    names = [f"{split.capitalize()}_text.xlsx"] + ([] if split == "test" else ["Train_Val_text.xlsx"])
    places = [folder, folder.parent, folder.parent / FOLDERS["train"]]
    for path in (place / name for name in names for place in places):
        if path.is_file():
            return path
    raise DataError(f"{folder} has no table of notes; looked for {' and '.join(names)} there and above")
