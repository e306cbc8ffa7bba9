"""Intervals for figures of whole sets (distances, shares of neighbours), which no mean over images gives."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from medtextdiff.evaluation.statistics import Interval

_NORMAL = 1.959964  # two-sided 95 %


def half_sample_interval(
    figure: Callable[..., float], sets: Sequence[Any], *, seed: int, num_resamples: int = 60, paired: bool = False
) -> Interval:
    """`half_sample_intervals` of a single figure."""
    one = lambda *parts: [figure(*parts)]  # noqa: E731
    return half_sample_intervals(one, sets, seed=seed, num_resamples=num_resamples, paired=paired)[0]


def half_sample_intervals(
    figures: Callable[..., Sequence[float]],
    sets: Sequence[Any],
    *,
    seed: int,
    num_resamples: int = 60,
    paired: bool = False,
) -> list[Interval]:
    """`figures(*sets)`, each with its 95 % interval, from its spread over random halves of every set (delete-half
    jackknife).

    A bootstrap would draw images twice, which such figures take for a memorised or collapsed set. Halves have no
    doubles; a bias that depends on the number of images shifts all halves alike, so only their spread is used, around
    the figure of the whole sets. Each set is anything that an array of places indexes. `paired`: row k of every set is
    of the same image, so all sets take the same half.
    """
    rng = np.random.default_rng(seed)
    values = [float(value) for value in figures(*sets)]
    halves = []
    for _ in range(num_resamples):
        places = [rng.permutation(len(one))[: max(2, len(one) // 2)] for one in (sets[:1] if paired else sets)]
        places = places * len(sets) if paired else places
        halves.append(list(figures(*(one[place] for one, place in zip(sets, places, strict=True)))))
    wide = _NORMAL * np.std(halves, axis=0, ddof=1) if num_resamples > 1 else np.full(len(values), math.nan)
    return [Interval(value, value - float(w), value + float(w)) for value, w in zip(values, wide, strict=True)]


def seed_interval(values: Sequence[float]) -> Interval:
    """The mean over seeds and its 95 % interval by Student's t; without bounds for a single seed (NaN)."""
    from scipy.stats import t

    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    wide = float(t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(mean, mean - wide, mean + wide)


def share_interval(hits: int, total: int) -> Interval:
    """A share and its 95 % interval by Wilson's score (1927): sensible at 0 and 1 and for few cases.

    Raises:
        ValueError: no cases, or more hits than cases.
    """
    if total < 1 or not 0 <= hits <= total:
        raise ValueError(f"a share needs hits between 0 and the number of cases; got {hits} of {total}")
    return _wilson(hits / total, float(total))


def clustered_share_interval(
    hits: Int[np.ndarray, " K"] | Sequence[int], cases: Int[np.ndarray, " K"] | Sequence[int]
) -> Interval:
    """A share over K clusters of cases (one image's claims, say), and its 95 % interval.

    Cases of a cluster are not independent, so Wilson's score counts the effective number of cases: as many as would
    give a plain share the variance that the clusters show (Korn and Graubard 1998; the variance is that of a ratio).
    Never more than there are cases; where all or none hit, the clusters themselves.

    Raises:
        ValueError: no cases, or a cluster with more hits than cases.
    """
    hit, case = np.asarray(hits, dtype=np.float64), np.asarray(cases, dtype=np.float64)
    if not case.sum() or (hit < 0).any() or (hit > case).any():
        raise ValueError("a share needs cases, and in each cluster hits between 0 and the number of cases")
    hit, case = hit[case > 0], case[case > 0]
    num, total = len(case), float(case.sum())
    share = float(hit.sum()) / total
    if num == 1 or not 0 < share < 1:
        return _wilson(share, float(num))
    variance = num / (num - 1) * float(((hit - share * case) ** 2).sum()) / total**2
    effective = share * (1 - share) / variance if variance else math.inf
    return _wilson(share, min(float(effective), total))


def _wilson(share: float, total: float) -> Interval:
    z = _NORMAL**2
    centre = (share + z / (2 * total)) / (1 + z / total)
    wide = _NORMAL / (1 + z / total) * math.sqrt(share * (1 - share) / total + z / (4 * total**2))
    return Interval(share, 0.0 if share == 0 else centre - wide, 1.0 if share == 1 else centre + wide)
