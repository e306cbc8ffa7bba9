"""Precision, recall, density and coverage of generated images: how much of them is real-like, how much of real is met.

Precision and recall: arXiv 1904.06991. Density and coverage: arXiv 2002.09797; they do not take one outlier for a
whole region.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Manifold(NamedTuple):
    """Shares in [0, 1]; density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def compare(real: Float[np.ndarray, "N D"], generated: Float[np.ndarray, "M D"], k: int = 5) -> Manifold:
    """By balls around each image that reach to its k-th neighbour of its own set (k = 5 as in arXiv 2002.09797).

    They depend on the numbers of images, so compare only figures of the same N and M.

    Raises:
        ValueError: a set with no more than k images.
    """
    if k < 1 or min(len(real), len(generated)) <= k:
        raise ValueError(f"k = {k} neighbours need more than {k} images a set; got {len(real)} and {len(generated)}")
    own_real, own_generated = _reach(real, k), _reach(generated, k)
    between = distances(real, generated)  # (N, M)
    inside = between <= own_real[:, None]  # generated j within the ball of real i
    return Manifold(
        precision=float(inside.any(axis=0).mean()),
        recall=float((between <= own_generated[None, :]).any(axis=1).mean()),
        density=float(inside.sum(axis=0).mean() / k),
        coverage=float((between.min(axis=1) <= own_real).mean()),
    )


def distances(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"]) -> Float[np.ndarray, "N M"]:
    """Euclidean distances of all pairs of rows."""
    from scipy.spatial.distance import cdist

    return cdist(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))


def _reach(rows: np.ndarray, k: int) -> np.ndarray:
    """Distance of each row to its k-th neighbour, itself not counted."""
    return np.partition(distances(rows, rows), k, axis=1)[:, k]
