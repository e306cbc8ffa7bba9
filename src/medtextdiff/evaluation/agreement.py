"""Do raters agree, with themselves and with each other? Cohen's weighted kappa and Krippendorff's alpha."""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Literal

import numpy as np

Scale = Literal["nominal", "ordinal", "interval"]


def weighted_kappa(
    first: Sequence[int], second: Sequence[int], *, weights: Literal["none", "linear", "quadratic"] = "quadratic"
) -> float:
    """Agreement of two ratings of the same items beyond chance (Cohen 1968); 1 = perfect, 0 = chance.

    Quadratic weights count a difference by its square. NaN where all ratings are one: chance then explains all.

    Raises:
        ValueError: other lengths, or no items.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"kappa needs two ratings of each item; got {len(first)} and {len(second)}")
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    observed = _cost(a, b, weights).mean()
    expected = _cost(a[:, None], b[None, :], weights).mean()  # every a with every b: the product of the margins
    return math.nan if expected == 0 else float(1 - observed / expected)


def krippendorff_alpha(ratings: Mapping[Hashable, Sequence[int]], *, scale: Scale = "ordinal") -> float:
    """Agreement of any number of raters, items with missing ratings included (Krippendorff 2011); 1 = perfect.

    `ratings` holds the values each item got, in any order; items with a single one tell nothing and are left out. NaN
    where no item was rated twice, or all values are equal.
    """
    units = [list(values) for values in ratings.values() if len(values) > 1]
    margins: Counter[int] = Counter(value for values in units for value in values)
    total = sum(margins.values())
    if len(margins) < 2:
        return math.nan
    difference = _differences(margins, scale)
    observed = sum(
        2 * difference[a, b] / (len(values) - 1) for values in units for a, b in combinations(values, 2)
    ) / total  # fmt: skip
    expected = sum(
        margins[a] * margins[b] * difference[a, b] for a in margins for b in margins
    ) / (total * (total - 1))  # fmt: skip
    return float(1 - observed / expected)


def _cost(a: np.ndarray, b: np.ndarray, weights: str) -> np.ndarray:
    if weights == "none":
        return (a != b).astype(np.float64)
    return np.abs(a - b) ** (1 if weights == "linear" else 2)


def _differences(margins: Mapping[int, int], scale: Scale) -> dict[tuple[int, int], float]:
    """Squared difference of every pair of values that occur."""
    values = sorted(margins)

    def between(a: int, b: int) -> float:
        if scale == "nominal":
            return float(a != b)
        if scale == "interval":
            return float((a - b) ** 2)
        low, high = min(a, b), max(a, b)
        ranks = sum(margins[v] for v in values if low <= v <= high) - (margins[low] + margins[high]) / 2
        return float(ranks**2) if a != b else 0.0

    return {(a, b): between(a, b) for a in values for b in values}
