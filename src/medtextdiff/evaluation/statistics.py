"""Intervals and tests: how sure a figure is, and whether two runs differ.

All resampling takes a seed, so a report can be made again to the last digit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

NUM_RESAMPLES = 10_000
_CHUNK = 4_000_000  # resampling weights held at once (32 MB)


class Interval(NamedTuple):
    """A mean and the ends of its interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """Does `a` differ from `b` on the same images? `difference` is the mean of a - b with its interval."""

    difference: Interval
    p_value: float  # Wilcoxon signed rank, two-sided
    num_pairs: int


def bootstrap_interval(
    values: Float[np.ndarray, " N"] | Sequence[float],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    groups: Sequence[str] | None = None,
) -> Interval:
    """The mean of `values` and its percentile bootstrap interval (Efron 1979).

    For paired data give the differences. With `groups` (one name a value, e.g. the patient) whole groups are drawn,
    since two images of one patient are not two independent cases. A single value, or group, gives an interval of
    width zero: nothing can be said from one case. Below some 20 cases percentile intervals are too narrow.

    Raises:
        ValueError: no values, values that are not finite, `groups` of another length, `level` outside (0, 1).
    """
    column = _checked(values)[:, None]
    return bootstrap_intervals(column, seed=seed, num_resamples=num_resamples, level=level, groups=groups)[0]


def bootstrap_intervals(
    table: Float[np.ndarray, "N M"],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    groups: Sequence[str] | None = None,
) -> list[Interval]:
    """`bootstrap_interval` of each of M columns from the same draws of the N rows, hence one pass for all.

    Raises:
        ValueError: as `bootstrap_interval`.
    """
    table = _checked(table)
    _check_resampling(num_resamples, level)
    sums, sizes = _sum_by_group(table, groups)
    rng = np.random.default_rng(seed)
    means = []
    for rows in _pieces(len(sizes), num_resamples):
        weights = _draw_weights(rng, len(sizes), rows)
        means.append(weights @ sums / (weights @ sizes)[:, None])  # (rows, M)
    low, high = _percentiles(np.concatenate(means), level)
    return [Interval(*map(float, ends)) for ends in zip(table.mean(axis=0), low, high, strict=True)]


def bootstrap_two_level(
    values: Float[np.ndarray, "R N"],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    groups: Sequence[str] | None = None,
) -> Interval:
    """The mean of R runs scored on the same N images; runs and images are both drawn anew (the pigeonhole bootstrap,
    Owen 2007).

    The interval covers another training seed as well as other images. With 3 runs it is rough: three draws can hit
    one run thrice. With `groups` (one name an image, e.g. the patient) whole groups of images are drawn.

    Raises:
        ValueError: no values, values that are not finite, `groups` of another length, `level` outside (0, 1).
    """
    values = _checked(values)
    _check_resampling(num_resamples, level)
    sums, sizes = _sum_by_group(values.T, groups)  # (G, R): of the images of a group
    num_groups, num_runs = sums.shape
    rng = np.random.default_rng(seed)
    means = []
    for rows in _pieces(max(num_runs, num_groups), num_resamples):
        by_run, by_group = _draw_weights(rng, num_runs, rows), _draw_weights(rng, num_groups, rows)
        means.append(((by_run @ sums.T) * by_group).sum(axis=1) / (by_group @ sizes) / num_runs)
    low, high = _percentiles(np.concatenate(means), level)
    return Interval(float(values.mean()), float(low), float(high))


def paired_test(
    a: Float[np.ndarray, " N"] | Sequence[float],
    b: Float[np.ndarray, " N"] | Sequence[float],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    groups: Sequence[str] | None = None,
) -> PairedTest:
    """Wilcoxon signed-rank test of a - b, and the bootstrap interval of its mean.

    The p value is exact up to 50 pairs without ties and 13 with them, asymptotic otherwise (scipy's `auto`). Equal
    pairs carry no sign and are left out of the test, not of the mean; p is 1 when all are equal. With 5 pairs no
    result can get below p = 0.0625. With `groups` whole groups are drawn for the interval, and the test takes the mean
    difference of each group for one pair.

    Raises:
        ValueError: lengths that differ, no pairs, values that are not finite.
    """
    a, b = _checked(a), _checked(b)
    if a.shape != b.shape:
        raise ValueError(f"a paired test needs the same images on both sides; got {len(a)} and {len(b)} scores")
    # 0.8 - 0.7 and 0.5 - 0.4 differ in the 17th digit: without rounding, ties would be broken by noise.
    differences = np.round(a - b, 12)
    interval = bootstrap_interval(differences, seed=seed, num_resamples=num_resamples, level=level, groups=groups)
    if groups is not None:
        sums, sizes = _sum_by_group(differences[:, None], groups)
        differences = np.round(sums[:, 0] / sizes, 12)
    return PairedTest(interval, _wilcoxon(differences[differences != 0]), len(a))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979) for several comparisons, in the order given.

    Raises:
        ValueError: a value outside [0, 1].
    """
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError(f"p values lie between 0 and 1; got {list(p_values)}")
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = floor
    return adjusted


def _wilcoxon(differences: Float[np.ndarray, " N"]) -> float:
    from scipy import stats

    if len(differences) == 0:
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def _checked(values: Shaped[np.ndarray, "..."] | Sequence[float]) -> Float[np.ndarray, "..."]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("no values: an interval needs at least one image")
    if not np.isfinite(array).all():
        raise ValueError(f"{int((~np.isfinite(array)).sum())} of {array.size} values are not finite numbers")
    return array


def _check_resampling(num_resamples: int, level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1, e.g. 0.95; got {level}")
    if num_resamples < 1:
        raise ValueError(f"num_resamples is at least 1; got {num_resamples}")


def _sum_by_group(
    table: Float[np.ndarray, "N M"], groups: Sequence[str] | None
) -> tuple[Float[np.ndarray, "G M"], Float[np.ndarray, " G"]]:
    """Sums and numbers of the rows of each group; without groups each row is its own."""
    if groups is None:
        return table, np.ones(len(table))
    if len(groups) != len(table):
        raise ValueError(f"one group name a value: got {len(groups)} groups for {len(table)} values")
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), table.shape[1]))
    np.add.at(sums, index, table)
    return sums, np.bincount(index).astype(np.float64)


def _pieces(width: int, num_resamples: int) -> list[int]:
    """Resamples to draw at a time, so that 2,000 images do not need 160 MB of weights at once."""
    rows = max(1, _CHUNK // width)
    return [min(rows, num_resamples - done) for done in range(0, num_resamples, rows)]


def _draw_weights(rng: np.random.Generator, num: int, num_resamples: int) -> Float[np.ndarray, "R N"]:
    """How often each of `num` items is in each resample."""
    drawn = rng.integers(num, size=(num_resamples, num)) + num * np.arange(num_resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=num_resamples * num)
    return counts.reshape(num_resamples, num).astype(np.float64)


def _percentiles(means: Float[np.ndarray, "R *M"], level: float) -> Float[np.ndarray, "2 *M"]:
    tail = 100 * (1 - level) / 2
    return np.percentile(means, [tail, 100 - tail], axis=0)
