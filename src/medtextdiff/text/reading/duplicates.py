"""Which documents were seen before, by their hashes: 8 bytes each in a table that is never more than half full."""

import hashlib
import re
from array import array
from typing import Literal

Kind = Literal["exact", "near", "keep"]

_BLANKS = re.compile(r"\s+")
_CHANGES = re.compile(r"\d+|\b(?:date|name|hospital|place|phone|age|number|company|redacted)\b")


class Seen:
    """A set of 64-bit hashes. Two texts of ten million share one by chance in one corpus of 400,000."""

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 * 1024))
        self._count = 0

    def __len__(self) -> int:
        """Hashes held."""
        return self._count

    def add(self, hash_value: int) -> bool:
        """Take a hash in; False if it was there already."""
        if not _put(self._table, hash_value or 1):  # 0 marks a free place
            return False
        self._count += 1
        if 2 * self._count > len(self._table):
            larger = array("Q", bytes(16 * len(self._table)))
            for value in self._table:
                if value:
                    _put(larger, value)
            self._table = larger
        return True


def text_hash(text: str, kind: Kind = "exact") -> int:
    """64 bits of a text; with "near", of what is left when case, blanks, numbers and de-identified words are alike."""
    if kind == "near":
        text = _BLANKS.sub(" ", _CHANGES.sub("0", text.lower())).strip()
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _put(table: array, value: int) -> bool:
    last = len(table) - 1  # the length is a power of two
    place = value & last
    while table[place]:
        if table[place] == value:
            return False
        place = (place + 1) & last
    table[place] = value
    return True
