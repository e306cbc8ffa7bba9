"""Put documents end to end into rows of almost equal length: nothing padded, nothing cut but what exceeds a row."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_AT_ONCE = 4096  # pieces that are sorted together


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

    Best fit, longest first, over a few thousand pieces at a time, in an order drawn from `seed`. No length may be more
    than `capacity`.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    rows = [row for part in _parts(order) for row in _fit(part, lengths, capacity)]
    return [rng.permutation(row) for row in rows]


def _parts(order: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(order), _AT_ONCE):
        yield order[start : start + _AT_ONCE]


def _fit(pieces: np.ndarray, lengths: np.ndarray, capacity: int) -> list[list[int]]:
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens that are free, row), sorted
    for piece in pieces[np.argsort(-lengths[pieces], kind="stable")].tolist():
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
    return rows
