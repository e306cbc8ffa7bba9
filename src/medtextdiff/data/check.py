"""What is wrong with a data set, and how to mend it. One image in memory at a time; no note's text leaves."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from medtextdiff.data import images
from medtextdiff.data.errors import DataError
from medtextdiff.data.privacy import traces
from medtextdiff.data.records import Finding, Severity, Source, shown_split, with_masks, with_notes
from medtextdiff.data.sides import contradiction, denies
from medtextdiff.types import IGNORE, Record

__all__ = ["Finding", "check"]

_THUMB = 24  # pixels; near-same images are found on grey pictures of this size
_NEAR = 0.995  # their correlation
_ROWS = 512  # of the correlation matrix at a time
_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}

# code: severity, message (after the count), how to mend
_TEXTS: dict[str, tuple[Severity, str, str]] = {
    "unreadable": ("error", "records have a file that cannot be read", "export or copy these files again"),
    "sizes-differ": ("error", "masks have another size than their image", "give the mask drawn on this very image"),
    "mask-codings": (
        "error",
        "masks are 0/255 among masks of label ids, so 255 has two meanings",
        "save all masks as label ids",
    ),
    "mask-levels": (
        "warning",
        "masks have many values, as if blurred or drawn per object",
        "threshold them or save class ids; for objects, set foreground=any",
    ),
    "mask-all-ignored": ("warning", "masks have no pixel that counts (all 255)", "draw them, or leave the records out"),
    "mask-marks-nothing": (
        "warning",
        "masks have only background (0) and pixels that are not counted (255)",
        "if 255 is what was drawn, save it as 1; if these pixels are left open on purpose, nothing to do",
    ),
    "no-mask": ("warning", "records have no mask", "add masks, or use them for pre-training only"),
    "no-mask-at-all": ("info", "records have no mask, that is all of them", "fine for pre-training and synthesis"),
    "no-note": ("info", "records have no note", "add notes; without one the model segments from the image alone"),
    "empty-mask": (
        "warning",
        "masks are empty though the note does not begin with 'No'",
        "check that nothing was left undrawn",
    ),
    "empty-mask-said": ("info", "masks are empty, and their notes say so", "nothing to do if that is so"),
    "note-denies-mask": ("warning", "notes begin with 'No' but the mask is not empty", "correct the note or the mask"),
    "note-side": (
        "warning",
        "notes name one side but the mask lies on the other",
        "correct the note or the mask; if there are many, `side` (viewer, patient) of the source is wrong",
    ),
    "note-one-sided": (
        "warning",
        "notes name both sides but the mask lies on one",
        "correct the note or the mask",
    ),
    "note-too-long": (
        "warning",
        "notes are longer than the text encoder takes; their end would be cut",
        "shorten them or choose an encoder that takes more",
    ),
    "same-image-in-two-splits": (
        "error",
        "records share the same image file across splits, so scores would be too good",
        "keep each image in one split",
    ),
    "near-image-in-two-splits": (
        "warning",
        "records have a nearly identical image in another split",
        "look at the pairs; keep images of one patient in one split",
    ),
    "same-image-twice": ("warning", "records share the same image file", "keep one of each, or join their notes"),
    "near-image-twice": ("info", "records have a nearly identical image in the same split", "look at the pairs"),
    "looks-like-name": ("warning", "notes have what looks like a person's name", "remove names from the notes"),
    "looks-like-date": ("warning", "notes have what looks like a date", "remove or shift dates"),
    "looks-like-id": ("warning", "notes have what looks like a record number", "remove numbers that name a person"),
    "looks-like-contact": ("warning", "notes have what looks like a phone number or address", "remove them"),
}


@dataclass
class _Seen:
    """What is kept of each image: its hash and a thumbnail, some kB."""

    where: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    records: list[Record] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    thumbs: list[Float[np.ndarray, " n"]] = field(default_factory=list)
    codings: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    beyond_one: bool = False  # some mask of label ids (grey, or by a palette) has an id above 1


def check(
    source: Source,
    *,
    max_words: int | None = None,
    count_words: Callable[[str], int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Everything found, errors first. Findings name ids and columns, never a note's text.

    Args:
        source: its layout's findings are included; it may be broken.
        max_words: what the text encoder takes, in the unit of `count_words`; None: note lengths are not checked.
        count_words: words of a note as the encoder counts; None: by spaces.
        progress: called with (done, total) after each record.

    Raises:
        DataError: there is nothing to check (no such folder, no table, no images).
    """
    listing = source.listing()
    if not listing.records and not listing.findings:
        raise DataError(f"{source.name}: no images found; put images there or check the path")
    seen = _Seen()
    for number, record in enumerate(listing.records, 1):
        _check_note(seen, record, max_words, count_words or (lambda note: len(note.split())))
        if record.image is not None:
            _check_image(seen, record, source)
        if progress is not None:
            progress(number, len(listing.records))
    _check_codings(seen)
    _check_copies(seen)
    if len(seen.where["no-mask"]) == len(seen.records):
        seen.where["no-mask-at-all"] = seen.where.pop("no-mask")
    findings = [*listing.findings, *_check_splits(listing.records)]
    findings += [_finding(code, where) for code, where in seen.where.items() if where]
    return sorted(findings, key=lambda finding: (_ORDER[finding.severity], finding.code))


def summary(source: Source) -> str:
    """What a data set holds, in a line: "train: 24 records, 24 with a mask, 24 with a note; val: ..."."""
    records = source.listing().records
    splits: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        splits[shown_split(record.split)].append(record)
    told = [
        f"{name}: {len(own)} records, {len(with_masks(own))} with a mask, {len(with_notes(own))} with a note"
        for name, own in splits.items()
    ]
    return "; ".join(told) or "no records"


def _check_splits(records: Sequence[Record]) -> list[Finding]:
    """Recipes train on "train" and validate on "val"."""
    names = sorted({shown_split(record.split) for record in records})
    needs = {"train": "data.train_split=NAME", "val": "data.val_split=NAME (null: without validation)"}
    return [
        Finding(
            "warning",
            f"no-split-{name}",
            tuple(names),
            f"no images are in the split '{name}', which recipes use",
            f"fill the column `split`, or say another: --set {setting}",
        )
        for name, setting in needs.items()
        if name not in names and records
    ]


def _finding(code: str, where: Sequence[str]) -> Finding:
    severity, message, mend = _TEXTS[code]
    return Finding(severity, code, tuple(where), f"{len(where)} {message}", mend)


def _check_note(seen: _Seen, record: Record, max_words: int | None, count_words: Callable[[str], int]) -> None:
    if not record.note:
        seen.where["no-note"].append(record.id)
    notes = [record.note, *record.other_notes]
    if max_words is not None and any(count_words(note) > max_words for note in notes):
        seen.where["note-too-long"].append(record.id)
    for number, note in enumerate(notes):
        which = f" of note {number + 1}" if number else ""
        for trace in traces(note):
            seen.where[f"looks-like-{trace.kind}"].append(f"{record.id}: column {trace.column}{which}")


def _check_image(seen: _Seen, record: Record, source: Source) -> None:
    assert record.image is not None
    try:
        picture = images.read(record.image)
    except DataError as error:
        seen.where["unreadable"].append(f"{record.id}: {error}")
        return
    seen.records.append(record)
    seen.hashes.append(images.content_hash(record.image))
    seen.thumbs.append(_thumbnail(picture.pixels))
    if record.mask is None:
        seen.where["no-mask"].append(record.id)
        return
    try:
        mask, coding = images.read_coded_mask(record.mask)
    except DataError as error:
        seen.where["unreadable"].append(f"{record.id}: {error}")
        return
    if mask.shape != picture.pixels.shape[:2]:
        sizes = f"{mask.shape[1]} x {mask.shape[0]}, image {picture.pixels.shape[1]} x {picture.pixels.shape[0]}"
        seen.where["sizes-differ"].append(f"{record.id}: mask {sizes}")
        return
    _check_mask(seen, record, mask, coding, source)


def _check_mask(seen: _Seen, record: Record, mask: Int[np.ndarray, "H W"], coding: str, source: Source) -> None:
    ids = np.unique(mask)
    seen.codings[coding].append(record.id)
    labels = ids[ids != IGNORE]
    seen.beyond_one |= coding != "0/255" and bool((labels > 1).any())
    if len(labels) > 32 or (coding == "labels" and len(labels) > 2 and IGNORE in ids and labels.max() > 64):
        seen.where["mask-levels"].append(record.id)
    if len(labels) == 0:
        seen.where["mask-all-ignored"].append(record.id)
    elif not labels.any() and IGNORE in ids:
        seen.where["mask-marks-nothing"].append(record.id)
    elif not labels.any():
        seen.where["empty-mask-said" if denies(record.note) else "empty-mask"].append(record.id)
    elif denies(record.note):
        seen.where["note-denies-mask"].append(record.id)
    else:
        found = contradiction(record.note, mask, source.side)
        if found:
            seen.where["note-side" if found == "side" else "note-one-sided"].append(record.id)


def _check_codings(seen: _Seen) -> None:
    if seen.beyond_one and seen.codings["0/255"]:
        seen.where["mask-codings"] += seen.codings["0/255"]


def _check_copies(seen: _Seen) -> None:
    """Same files by hash, near-same ones by thumbnails; records that share one file (several masks) are no copies."""
    by_hash: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(seen.hashes):
        by_hash[digest].append(index)
    for group in by_hash.values():
        members = [seen.records[index] for index in group]
        if len({record.split for record in members}) > 1:
            seen.where["same-image-in-two-splits"].append(" = ".join(record.id for record in members))
        elif len({record.image for record in members}) > 1:
            seen.where["same-image-twice"].append(" = ".join(record.id for record in members))
    for first, second in _near_pairs(seen.thumbs):
        if seen.hashes[first] == seen.hashes[second]:
            continue
        one, other = seen.records[first], seen.records[second]
        code = "near-image-twice" if one.split == other.split else "near-image-in-two-splits"
        seen.where[code].append(f"{one.id} ~ {other.id}")


def _near_pairs(thumbs: Sequence[Float[np.ndarray, " n"]]) -> Iterable[tuple[int, int]]:
    """Pairs whose thumbnails correlate above the limit; `_ROWS` rows of the matrix are in memory at a time."""
    if not thumbs:
        return
    table = np.stack(thumbs)
    for start in range(0, len(table), _ROWS):
        near = table[start : start + _ROWS] @ table[start:].T > _NEAR
        for row, column in zip(*np.nonzero(np.triu(near, 1)), strict=True):
            yield start + int(row), start + int(column)


def _thumbnail(pixels: Float[np.ndarray, "H W C"]) -> Float[np.ndarray, " n"]:
    """Grey, 24 x 24, mean 0 and length 1, so that a product of two is their correlation. Flat images are all 0."""
    grey = pixels.mean(axis=2)
    small = _shrink(_shrink(grey, _THUMB).T, _THUMB).ravel()
    small = small - small.mean()
    length = float(np.linalg.norm(small))
    return (small / length if length > 1e-3 else small * 0).astype(np.float32)


def _shrink(values: Float[np.ndarray, "H W"], rows: int) -> Float[np.ndarray, "h W"]:
    edges = np.linspace(0, len(values), rows + 1).round().astype(int)
    if len(values) < rows:
        return values[np.minimum(edges[:-1], len(values) - 1)]
    return np.add.reduceat(values, edges[:-1], axis=0) / np.diff(edges)[:, None]
