"""What the note is worth: the Dice of every image under each way of telling it, and whether asking is answered.

Arrays and names alone; who made them is `api.sensitivity`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from medtextdiff.evaluation.statistics import NUM_RESAMPLES, bootstrap_intervals, holm, paired_test

NOTHING = "nothing"  # what is given when the mask is empty, or meets none of the targets


def summarise_tellings(
    names: Sequence[str],
    dice: Float[np.ndarray, "V N"],
    changed: Bool[np.ndarray, "V N"],
    groups: Sequence[str] | None = None,
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """One plain dict for each of V ways to tell the note; the first is the reference.

    Fields: notes (its name), num_changed (how many of N notes it changed), dice and difference (this less the
    reference; mean, low, high in [0, 1]), p_value, p_holm (over the V - 1 tests), num_pairs, verdict ("lower",
    "higher" or "not shown": the interval leaves out zero *and* p_holm is below 1 - level). Unchanged notes count as
    differences of zero: nothing is dropped. `groups` are drawn together in the intervals.

    Raises:
        ValueError: shapes that do not agree, or values that are not finite.
    """
    if dice.shape != changed.shape or len(names) != len(dice):
        raise ValueError(f"{len(names)} names, dice of {dice.shape} and changed of {changed.shape} do not agree")
    resampling: dict[str, Any] = {"seed": seed, "num_resamples": num_resamples, "level": level, "groups": groups}
    intervals = bootstrap_intervals(dice.T, **resampling)
    tests = [paired_test(row, dice[0], **resampling) for row in dice[1:]]
    corrected = holm([test.p_value for test in tests])
    found: list[dict[str, Any]] = [
        {"notes": name, "num_changed": int(row.sum()), "dice": interval._asdict()}
        for name, row, interval in zip(names, changed, intervals, strict=True)
    ]
    for line, test, p_holm in zip(found[1:], tests, corrected, strict=True):
        shown = not test.difference.low <= 0 <= test.difference.high and p_holm < 1 - level
        line |= {
            "difference": test.difference._asdict(),
            "p_value": test.p_value,
            "p_holm": p_holm,
            "num_pairs": test.num_pairs,
            "verdict": ("lower" if test.difference.mean < 0 else "higher") if shown else "not shown",
        }
    return found


def what_was_given(
    prediction: Bool[np.ndarray, "H W"], targets: Mapping[str, Bool[np.ndarray, "H W"]], asked: str
) -> str:
    """The target that the mask overlaps best by Dice, or NOTHING. Where several are best, the one that was asked.

    Targets may be equal (all lesions, where all are ground glass), so a tie is no mistake.
    """
    scores = {name: _dice(prediction, truth) for name, truth in targets.items()}
    best = max(scores.values())
    if best == 0:
        return NOTHING
    return asked if scores[asked] == best else max(scores, key=lambda name: scores[name])


def confusion(asked: Sequence[str], given: Sequence[str], names: Sequence[str]) -> Int[np.ndarray, "T U"]:
    """How often each of T targets (rows) was answered by each of them, or by NOTHING (the last column, U = T + 1)."""
    counts = Counter(zip(asked, given, strict=True))
    return np.array([[counts[row, column] for column in (*names, NOTHING)] for row in names], dtype=np.int64)


def swapped(asked: Sequence[str], given: Sequence[str], mirror: Mapping[str, str]) -> dict[str, float | int]:
    """How often the other side was given: {"num", "of", "share", "low", "high"}, the ends of Wilson's 95 % interval.

    `mirror` names the other side of each target that has one; only these count.
    """
    pairs = [(one, other) for one, other in zip(asked, given, strict=True) if one in mirror]
    num = sum(mirror[one] == other for one, other in pairs)
    share, low, high = _wilson(num, len(pairs))
    return {"num": num, "of": len(pairs), "share": share, "low": low, "high": high}


def _dice(a: Bool[np.ndarray, "H W"], b: Bool[np.ndarray, "H W"]) -> float:
    size = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / size if size else 0.0


def _wilson(num: int, of: int, z: float = 1.959964) -> tuple[float, float, float]:
    """A share with its interval (Wilson 1927), which says something at 0 of 18, too."""
    if of == 0:
        return 0.0, 0.0, 1.0
    share = num / of
    middle, spread = share + z * z / (2 * of), z * ((share * (1 - share) + z * z / (4 * of)) / of) ** 0.5
    scale = 1 + z * z / of
    return share, max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
