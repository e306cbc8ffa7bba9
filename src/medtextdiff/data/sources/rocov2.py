"""ROCOv2 (arXiv 2405.10004): radiology figures with captions and UMLS concepts, in its official files.

root/{train,valid,test}_captions.csv: ID,Caption    root/{train,valid,test}_images/ID.jpg
root/{train,valid,test}_concepts.csv: ID,CUIs (parted by ;)    root/cui_mapping.csv: CUI, name
"""

import shutil
from functools import partial
from pathlib import Path

from medtextdiff import config
from medtextdiff.data import made_up
from medtextdiff.data.errors import DataError
from medtextdiff.data.images import list_images
from medtextdiff.data.listing import Entry, gather
from medtextdiff.data.records import Finding, Listing, Source
from medtextdiff.data.tables import read_table
from medtextdiff.types import Side

SPLITS = {"train": "train", "val": "valid", "test": "test"}  # ours -> theirs
CAPTIONS = "_captions.csv"


class Config(config.Config):
    """ROCOv2. `concepts`: the names of an image's concepts, in one line, are a further note beside its caption.

    Captions are reports: "left" is the patient's.
    """

    root: str
    concepts: bool = False
    side: Side = "patient"

    def build(self) -> Source:
        """The source; nothing is read yet."""
        return Source(self.root, partial(_scan, self), self.side)

    @classmethod
    def tiny(cls, folder: Path) -> "Config":
        """Write a made-up set into `folder` and give its config."""
        for number, split in enumerate(("train", "valid")):
            made = made_up.write(folder / split, ".jpg", num=4, seed=number)
            (folder / split / "images").rename(folder / f"{split}_images")
            shutil.rmtree(folder / split)
            names = [f"ROCOv2_2023_{split}_{k:06d}" for k in range(len(made))]
            for example, name in zip(made, names, strict=True):
                (folder / f"{split}_images" / f"{example.name}.jpg").rename(folder / f"{split}_images" / f"{name}.jpg")
            captions = [f'{name},"{e.note}"\n' for e, name in zip(made, names, strict=True)]
            (folder / f"{split}{CAPTIONS}").write_text("ID,Caption\n" + "".join(captions), encoding="utf-8")
            concepts = "".join(f"{name},C0000001;C0000002\n" for name in names)
            (folder / f"{split}_concepts.csv").write_text("ID,CUIs\n" + concepts, encoding="utf-8")
        mapping = "CUI,Canonical name\nC0000001,Disc\nC0000002,Noise\n"
        (folder / "cui_mapping.csv").write_text(mapping, encoding="utf-8")
        return cls(root=str(folder), side="viewer")


def _scan(settings: Config) -> Listing:
    root = Path(settings.root)
    present = [split for split, name in SPLITS.items() if (root / f"{name}{CAPTIONS}").is_file()]
    if not present:
        raise DataError(f"{root} has none of {', '.join(f'{name}{CAPTIONS}' for name in SPLITS.values())}")
    names = _names(root) if settings.concepts else {}
    entries: list[Entry] = []
    findings: list[Finding] = []
    for split in present:
        found, problems = _read_split(settings, split, names)
        entries += found
        findings += problems
    listing = gather(entries, root)
    return Listing(listing.records, (*listing.findings, *findings))


def _read_split(settings: Config, split: str, names: dict[str, str]) -> tuple[list[Entry], list[Finding]]:
    root, theirs = Path(settings.root), SPLITS[split]
    folder = root / f"{theirs}_images"
    if not folder.is_dir():
        raise DataError(f"{root} has no folder '{theirs}_images'; unpack {theirs}_images.zip there")
    images = {path.stem: path for path in list_images(folder)}
    concepts = _concepts(root / f"{theirs}_concepts.csv", names) if settings.concepts else {}
    entries = []
    for row in read_table(root / f"{theirs}{CAPTIONS}", ["ID", "Caption"]):
        name = row.cells["ID"]
        if not name:
            raise DataError(f"table {root / theirs}{CAPTIONS}, line {row.number}: no ID; fill in or delete the row")
        notes = [row.cells["Caption"], concepts.get(name, "")]
        place = f"{theirs}{CAPTIONS} line {row.number}"
        image = images.get(name, folder / f"{name}.jpg")
        entries.append(Entry(place, image, None, tuple(note for note in notes if note), split))
    listed = {entry.image for entry in entries}
    extra = tuple(path.name for path in images.values() if path not in listed)
    if not extra:
        return entries, []
    message = f"{len(extra)} images have no row in {theirs}{CAPTIONS}"
    return entries, [Finding("warning", "image-without-row", extra, message, "add rows, or delete the images")]


def _concepts(table: Path, names: dict[str, str]) -> dict[str, str]:
    found = {}
    for row in read_table(table, ["ID", "CUIs"]):
        codes = [code.strip() for code in row.cells["CUIs"].split(";") if code.strip()]
        found[row.cells["ID"]] = ", ".join(names.get(code, code) for code in codes)
    return found


def _names(root: Path) -> dict[str, str]:
    table = root / "cui_mapping.csv"
    rows = [list(row.cells.values()) for row in read_table(table)]
    if any(len(cells) < 2 for cells in rows):
        raise DataError(f"table {table} needs two columns, a CUI and its name")
    return {cells[0]: cells[1] for cells in rows}
