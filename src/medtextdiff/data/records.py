"""Lists of records: what a source yields, which of them to take, and how to split them."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from medtextdiff.config import nearest
from medtextdiff.data.errors import DataError
from medtextdiff.data.tables import join
from medtextdiff.types import Record, Side

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """Something about a data set that a person should know. `where` holds record ids or files, never a note's text."""

    severity: Severity
    code: str
    where: tuple[str, ...]
    message: str
    how_to_mend: str


@dataclass(frozen=True)
class Listing:
    """What a source found: its records in stable order, and what is wrong with the layout."""

    records: tuple[Record, ...]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Source:
    """A data set by its records. `side` is whose left its notes mean (each record says it); `name` is for messages."""

    name: str
    scan: Callable[[], Listing]
    side: Side = "viewer"
    _listings: list[Listing] = field(default_factory=list, repr=False, compare=False)

    def listing(self) -> Listing:
        """All records and the layout's findings; the disk is read once."""
        if not self._listings:
            listing = self.scan()
            records = tuple(replace(record, side=self.side) for record in listing.records)
            self._listings.append(Listing(records, (*listing.findings, *_shared_findings(records))))
        return self._listings[0]

    def records(self, split: str | None = None) -> list[Record]:
        """The records of a split, or all; always in the same order.

        Raises:
            DataError: the layout has an error (a missing file, an id given twice, a patient in two splits),
                there are no records, or no such split.
        """
        listing = self.listing()
        errors = [finding for finding in listing.findings if finding.severity == "error"]
        if errors:
            first = errors[0]
            more = f" ({len(errors) - 1} more kinds of error: see `medtextdiff data check`)" if len(errors) > 1 else ""
            raise DataError(f"{self.name}: {first.message} ({join(first.where)}); {first.how_to_mend}{more}")
        if not listing.records:
            raise DataError(f"{self.name}: no images found; put images there or check the path")
        if split is None:
            return list(listing.records)
        chosen = [record for record in listing.records if record.split == split]
        if not chosen:
            known = {shown_split(record.split) for record in listing.records}
            raise DataError(f"{self.name}: no split '{split}'; {nearest(split, known)}")
        return chosen


def shown_split(name: str) -> str:
    """A split's name for a message. Where columns were swapped it is a note, and is not repeated."""
    return name if len(name) <= 20 and len(name.split()) == 1 else "no name of a split"


def subset(records: Sequence[Record], ids: Sequence[str]) -> list[Record]:
    """The records with these ids, in the records' own order: a fixed few for few-label training.

    Raises:
        DataError: an id that no record has, or that is listed twice.
    """
    known = {record.id for record in records}
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(f"the subset lists {join(twice)} twice; list each id once")
    for name in ids:
        if name not in known:
            hint = nearest(name, known) if len(known) <= 40 else f"there are {len(known)} records, e.g. {join(known)}"
            told = f"the subset names '{name}', but no record has that id; name some of this data set, or [] for all"
            raise DataError(f"{told}; {hint}")
    wanted = set(ids)
    return [record for record in records if record.id in wanted]


def with_masks(records: Iterable[Record]) -> list[Record]:
    """Those that have a mask."""
    return [record for record in records if record.mask is not None]


def with_notes(records: Iterable[Record]) -> list[Record]:
    """Those that have a note."""
    return [record for record in records if record.note]


def unlabelled(records: Iterable[Record]) -> list[Record]:
    """Each image once, without its mask and notes: for pre-training."""
    seen: dict[Path, Record] = {}
    for record in records:
        if record.image is not None and record.image not in seen:
            seen[record.image] = replace(record, mask=None, note="", other_notes=())
    return list(seen.values())


def split_records(records: Sequence[Record], shares: Mapping[str, float], seed: int = 0) -> list[Record]:
    """The records with new splits in the given shares; a patient is never parted, an image neither.

    Each group (a patient; an image without one) falls by a hash of its name and the seed, so adding images moves
    no other. Shares are met on average, not exactly.

    Raises:
        DataError: shares that are negative or do not sum to 1.
    """
    if any(share < 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise DataError(f"shares must be positive and sum to 1, e.g. train 0.8, val 0.2; got {dict(shares)}")
    return [replace(record, split=_draw(_group(record), shares, seed)) for record in records]


def _group(record: Record) -> str:
    if record.patient:
        return f"patient {record.patient}"
    return f"image {record.image.name if record.image else record.id}"


def _draw(group: str, shares: Mapping[str, float], seed: int) -> str:
    digest = hashlib.sha256(f"{seed} {group}".encode()).digest()
    at = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in shares.items():
        if at < share:
            return name
        at -= share
    return list(shares)[-1]


def _shared_findings(records: Sequence[Record]) -> list[Finding]:
    """What must hold for every source."""
    findings = []
    twice = [name for name, count in Counter(record.id for record in records).items() if count > 1]
    if twice:
        findings.append(
            Finding("error", "id-twice", tuple(twice), f"{len(twice)} ids name two records", "give each its own id")
        )
    splits: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.patient:
            splits[record.patient].add(record.split)
    parted = {patient for patient, names in splits.items() if len(names) > 1}
    if parted:
        ids = tuple(record.id for record in records if record.patient in parted)
        message = f"{len(parted)} patients have images in two splits, so scores would be too good"
        findings.append(Finding("error", "patient-in-two-splits", ids, message, "move each patient to one split"))
    return findings
