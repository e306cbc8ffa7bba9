"""What was left out of a corpus, and why: counted by reason, with the place of the first, never with its text."""

from collections import Counter


class Faults:
    """Rows that were left out. Only reasons and places come in here, so no note can come out."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()  # (file, reason) -> rows
        self._first: dict[tuple[str, str], int] = {}  # the same -> number of the first such row
        self._expected: set[str] = set()

    def add(self, file: str, row: int, reason: str, *, expected: bool = False) -> None:
        """Row `row` (from 1, the header not counted) of `file` was left out; `expected`: as was asked for."""
        self._counts[file, reason] += 1
        self._first.setdefault((file, reason), row)
        if expected:
            self._expected.add(reason)

    def by_reason(self) -> dict[str, int]:
        """Rows by reason, over all files."""
        sums: Counter[str] = Counter()
        for (_, reason), count in self._counts.items():
            sums[reason] += count
        return dict(sorted(sums.items()))

    def lines(self) -> list[str]:
        """One line for each file and reason that was not expected."""
        told = ((place, count) for place, count in sorted(self._counts.items()) if place[1] not in self._expected)
        return [f"{file}, row {self._first[file, reason]}: {reason}{_more(count)}" for (file, reason), count in told]


def _more(count: int) -> str:
    return f" (and {count - 1} more such rows); left out" if count > 1 else "; left out"
