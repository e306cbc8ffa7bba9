"""Several masks of each image, one folder a target: one record for each that was drawn, whose note names the target.

    root/images/a.png    root/masks_left_lung/a.png    root/masks_right_lung/a.png    root/notes.csv: image,[mask],split

So one model learns all targets, and the note alone says which is meant. The rest of the layout is that of `folders`.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import field_validator

from medtextdiff import config
from medtextdiff.data import made_up
from medtextdiff.data.errors import DataError
from medtextdiff.data.records import Listing, Source
from medtextdiff.data.sources import folders
from medtextdiff.types import Record, Side


class Config(config.Config):
    """A folder of images with several folders of masks.

    Fields:
        targets: mask folder within root -> how a note may ask for it. Training draws one of the phrasings, evaluation
            takes the first. A file that is not in the folder was not drawn: no record.
        notes, images, image_column, mask_column, split_column, patient_column: as in `folders`; the table's own notes
            are not read. Without a patient the records of one image stand for one patient.
        side: whose left the phrasings mean.
    """

    root: str = ""
    targets: dict[str, tuple[str, ...]]
    notes: str | None = "auto"
    images: str = "images"
    image_column: str = "image"
    mask_column: str = "mask"
    split_column: str = "split"
    patient_column: str | None = folders.PATIENT
    side: Side = "viewer"

    @field_validator("targets")
    @classmethod
    def _check_targets(cls, targets: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        first = [phrasings[0].strip() for phrasings in targets.values() if phrasings]
        if not targets or len(first) < len(targets) or not all(first):
            raise ValueError(
                "each target needs a phrasing or more: {'masks_left_lung': ['left lung', 'the left lung']}"
            )
        if len(set(first)) < len(first):
            raise ValueError("two targets have the same first phrasing, so a note could not tell them apart")
        return targets

    def build(self) -> Source:
        """The source; nothing is read yet."""
        return Source(self.root, partial(_scan, self), self.side)

    @classmethod
    def tiny(cls, folder: Path) -> "Config":
        """Write a made-up set into `folder` and give its config; only its discs on the left half are target "a"."""
        made = made_up.write(folder)
        for name in ("masks_a", "masks_b"):
            (folder / name).mkdir(exist_ok=True)
        for example in made:
            name = "masks_a" if "left" in example.note else "masks_b"
            (folder / "masks" / f"{example.name}.png").rename(folder / name / f"{example.name}.png")
        (folder / "masks").rmdir()
        lines = [f"{example.name}.png,{example.split}" for example in made]
        (folder / "notes.csv").write_text("\n".join(["image,split", *lines]) + "\n", encoding="utf-8")
        asked = {"masks_a": ("A bright disc a", "disc a"), "masks_b": ("A bright disc b",)}
        return cls(root=str(folder), targets=asked)


def _scan(settings: Config) -> Listing:
    listings = {name: _listing(settings, name) for name in settings.targets}
    drawn = {name: {record.image: record for record in found.records} for name, found in listings.items()}
    first = next(iter(listings.values()))  # every listing has the same images, in the table's order
    records = tuple(
        _asked(name, drawn[name][record.image], settings)
        for record in first.records
        for name in settings.targets
        if drawn[name][record.image].mask is not None
    )
    if first.records and not records:
        raise DataError(f"{settings.root}: none of {', '.join(settings.targets)} holds a mask of any image; check them")
    findings = dict.fromkeys(finding for found in listings.values() for finding in found.findings)
    return Listing(records, tuple(findings))


def _listing(settings: Config, name: str) -> Listing:
    if not settings.root:
        raise DataError("no data: name the data set's folder with --set data.root=DIR")
    if Path(settings.root).is_dir() and not (Path(settings.root) / name).is_dir():
        there = sorted(path.name for path in Path(settings.root).iterdir() if path.is_dir())
        raise DataError(f"{settings.root} has no folder '{name}' of masks; it has {', '.join(there) or 'none'}")
    same = {field: getattr(settings, field) for field in type(settings).model_fields if field != "targets"}
    return folders.Config(mask_folder=name, missing_masks="none", notes_columns=(), **same).build().scan()


def _asked(name: str, record: Record, settings: Config) -> Record:
    """The record as a question for one target."""
    note, *others = settings.targets[name]
    patient = record.patient or f"image {record.id}"
    return replace(record, id=f"{record.id}__{name}", note=note, other_notes=tuple(others), patient=patient)
