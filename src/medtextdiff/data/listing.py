"""Rows of a table become records: files are looked up, rows of one image become one record with several notes."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medtextdiff.data.images import SUFFIXES
from medtextdiff.data.records import Finding, Listing
from medtextdiff.data.tables import is_file, on_disk
from medtextdiff.types import Record


@dataclass(frozen=True)
class Entry:
    """One row: paths are not checked yet; `place` says where it stands, e.g. "notes.csv row 12"; split "": not said."""

    place: str
    image: Path | None
    mask: Path | None
    notes: tuple[str, ...]
    split: str = ""
    patient: str | None = None
    id: str | None = None


def gather(entries: Sequence[Entry], root: Path, missing_masks: str = "error") -> Listing:
    """Entries in order as a Listing. Missing files become findings that name each row.

    `missing_masks` "none": a mask that is named but not there counts as not drawn. Where no entry says its split, all
    are "train".
    """
    findings = _without_split(entries)
    spelt = {path: on_disk(path) for entry in entries for path in (entry.image, entry.mask) if path is not None}
    entries = [
        replace(
            entry,
            image=spelt[entry.image] if entry.image else None,
            mask=spelt[entry.mask] if entry.mask else None,
            split=entry.split or "train",
        )
        for entry in entries
    ]
    there = {path: is_file(path) for entry in entries for path in (entry.image, entry.mask) if path is not None}
    lost = [entry for entry in entries if entry.image is not None and not there[entry.image]]
    _report(findings, lost, "image", lambda entry: entry.image)
    if missing_masks == "error":
        no_mask = [entry for entry in entries if entry.mask is not None and not there[entry.mask]]
        _report(findings, no_mask, "mask", lambda entry: entry.mask)
    kept = [
        replace(entry, mask=None) if entry.mask is not None and not there[entry.mask] else entry
        for entry in entries
        if entry.image is None or there[entry.image]
    ]
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for number, entry in enumerate(kept):
        key = (entry.image, entry.mask, entry.id) if entry.image else ("text", number)
        groups.setdefault(key, []).append(entry)
    findings += _disagreements([entry for entry in kept if entry.image is not None])
    names = _ids([group[0] for group in groups.values()], root)
    records = tuple(_record(name, group) for name, group in zip(names, groups.values(), strict=True))
    return Listing(records, tuple(findings))


def shown(name: Path | str | None) -> str:
    """A cell that should name a file, for a message. Where columns were swapped it is a note, and is not repeated."""
    if name is not None and Path(name).suffix.lower() in SUFFIXES:
        return str(name)
    return "not the name of an image, which needs its ending, as .png"


def _without_split(entries: Sequence[Entry]) -> list[Finding]:
    """A gap in the column of splits is no word for "train": the image might be one to test on."""
    where = tuple(entry.place for entry in entries if not entry.split)
    if not where or len(where) == len(entries):
        return []
    message = f"{len(where)} rows name no split, while others do"
    return [Finding("error", "no-split", where, message, "fill in their split, e.g. train, val or test")]


def _report(findings: list[Finding], entries: list[Entry], what: str, path: Callable[[Entry], Path | None]) -> None:
    if entries:
        where = tuple(f"{entry.place}: {shown(path(entry))}" for entry in entries)
        message = f"{len(entries)} rows name {'an' if what == 'image' else 'a'} {what} that is not there"
        findings.append(Finding("error", f"missing-{what}", where, message, "add the files or correct the rows"))


def _disagreements(entries: list[Entry]) -> list[Finding]:
    """Rows of one image, be they of several masks or ids, that tell it apart from itself."""
    groups: dict[Path | None, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.image, []).append(entry)
    torn = [group for group in groups.values() if len({(entry.split, entry.patient) for entry in group}) > 1]
    if not torn:
        return []
    where = tuple(entry.place for group in torn for entry in group)
    message = f"{len(torn)} images have rows with different splits or patients"
    return [Finding("error", "rows-disagree", where, message, "give all rows of an image one split and one patient")]


def _record(name: str, group: list[Entry]) -> Record:
    first = group[0]
    notes = list(dict.fromkeys(note for entry in group for note in entry.notes if note))
    # A first column that is empty means "no note": further notes then still serve training.
    note = first.notes[0] if first.notes else ""
    others = tuple(other for other in notes if other != note)
    return Record(name, note, first.image, first.mask, first.patient, first.split, others)


def _ids(entries: Sequence[Entry], root: Path) -> list[str]:
    """The given id; else the image's name without its ending; else, where that is not enough, with its folders.

    An image with several masks has its mask's name added.
    """
    paths = {entry.image for entry in entries if entry.image is not None}
    stems = Counter(path.stem for path in paths)
    inside = {path: path.relative_to(root) if path.is_relative_to(root) else Path(path.name) for path in paths}
    bases = Counter("__".join(path.with_suffix("").parts) for path in inside.values())
    masks = Counter(entry.image for entry in entries if entry.id is None)

    def name(entry: Entry) -> str:
        if entry.id or entry.image is None:
            return entry.id or entry.place.replace(" ", "_")
        base = entry.image.stem
        if stems[base] > 1:
            base = "__".join(inside[entry.image].with_suffix("").parts)
            base += entry.image.suffix if bases[base] > 1 else ""
        return f"{base}__{entry.mask.stem}" if masks[entry.image] > 1 and entry.mask else base

    return [name(entry) for entry in entries]
