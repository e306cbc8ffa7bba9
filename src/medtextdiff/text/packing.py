"""Put documents end to end into rows of almost equal length: nothing padded, nothing cut but what exceeds a row."""

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

_OPEN = 256  # rows that are being filled at a time


@dataclass(frozen=True)
class Pieces:
    """Runs of a corpus's tokens, each to be read as a document of its own: first token and number of tokens."""

    starts: np.ndarray  # Int64[P]
    lengths: np.ndarray  # Int64[P]


def cut(lengths: np.ndarray, longest: int) -> Pieces:
    """Documents that lie end to end, as they are, or in equal pieces of at most `longest` tokens."""
    counts = -(-lengths // longest)
    document = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    begins = number * lengths[document] // counts[document]
    ends = (number + 1) * lengths[document] // counts[document]
    return Pieces(starts=(np.cumsum(lengths) - lengths)[document] + begins, lengths=ends - begins)


def pack(lengths: np.ndarray, capacity: int, seed: int = 0) -> list[np.ndarray]:
    """Rows of piece numbers whose lengths sum to at most `capacity` each; every piece is in one row.

    Pieces come in an order drawn from `seed` and go where they fit best, so that a row is a fair sample of the corpus:
    short and long together. No length may be more than `capacity`.
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens that are free, row) of the rows being filled, sorted
    for piece in np.random.default_rng(seed).permutation(len(lengths)).tolist():
        size = int(lengths[piece])
        place = bisect_left(room, (size, -1))
        if place == len(room):
            free, row = capacity, len(rows)
            rows.append([])
        else:
            free, row = room.pop(place)
        rows[row].append(piece)
        if free > size:
            insort(room, (free - size, row))
        if len(room) > _OPEN:
            del room[0]  # the fullest
    return [np.array(row) for row in rows]
