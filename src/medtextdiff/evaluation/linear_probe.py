"""How much of a property can be read off features by a straight line: a multinomial logistic regression.

Arrays only: whose features they are and what the labels mean is told elsewhere (`api.probing`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_HELD_OUT = 4  # one group in so many chooses the ridge


@dataclass(frozen=True)
class ProbeResult:
    """Which test rows were right, and the ridge that a part of the training rows chose."""

    correct: Bool[np.ndarray, " N"]
    ridge: float


def linear_probe(
    train: Float[np.ndarray, "M D"],
    train_labels: Sequence[str],
    test: Float[np.ndarray, "N D"],
    test_labels: Sequence[str],
    groups: Sequence[str],
    ridges: Sequence[float] = RIDGES,
) -> ProbeResult:
    """Fit on the training rows and classify the test rows.

    Features are standardised by the training rows' mean and deviation. The ridge is chosen on training rows of whole
    `groups` (the wordings) that the trial fits never saw, then the fit is repeated on all; no test row chooses.
    A label that only the test has is always wrong.

    Raises:
        ValueError: lengths that differ, fewer than two labels, or values that are not finite.
    """
    if not len(train) == len(train_labels) == len(groups) or len(test) != len(test_labels):
        raise ValueError("each row of features needs its label, and each training row its group")
    names = sorted(set(train_labels))
    if len(names) < 2:
        raise ValueError("a probe needs two labels or more to tell apart")
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        raise ValueError("some features are not finite numbers; the encoder is damaged, or needs float32")
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    scale = 1 / np.where(deviation > 1e-8 * max(1e-8, float(deviation.max())), deviation, np.inf)
    x, z = (train - mean) * scale, (test - mean) * scale
    y = np.array([names.index(label) for label in train_labels])
    ridge = _choose(x, y, len(names), groups, ridges)
    found = np.array(names)[_classify(_fit(x, y, len(names), ridge), z)]
    return ProbeResult(found == np.array(test_labels), ridge)


def _choose(
    x: Float[np.ndarray, "M D"], y: Int[np.ndarray, " M"], num: int, groups: Sequence[str], ridges: Sequence[float]
) -> float:
    """The ridge that is best on held-out groups; of equals the largest."""
    by_label: dict[int, list[str]] = {}
    for label, group in zip(y.tolist(), groups, strict=True):
        kept = by_label.setdefault(label, [])
        if group not in kept:
            kept.append(group)
    out = {group for kept in by_label.values() for group in sorted(kept)[::_HELD_OUT]}
    held = np.array([group in out for group in groups])
    if held.all() or len(set(y[~held].tolist())) < num or not held.any():
        return max(ridges)
    rights = {
        ridge: float((_classify(_fit(x[~held], y[~held], num, ridge), x[held]) == y[held]).mean()) for ridge in ridges
    }
    return max(ridges, key=lambda ridge: (rights[ridge], ridge))


def _fit(x: Float[np.ndarray, "M D"], y: Int[np.ndarray, " M"], num: int, ridge: float) -> Float[np.ndarray, "E K"]:
    """Weights (D rows and the intercept's, K columns) of least mean cross-entropy + K * ridge / 2 * |weights|^2 / D."""
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    rows = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    truth = np.eye(num)[y]
    decay = np.full((rows.shape[1], 1), ridge / x.shape[1] * num)
    decay[-1] = 0.0  # the intercept is free

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(rows.shape[1], num)
        scores = rows @ weights
        logs = scores - logsumexp(scores, axis=1, keepdims=True)
        loss = -float((truth * logs).sum()) / len(rows) + 0.5 * float((decay * weights**2).sum())
        slope = rows.T @ (np.exp(logs) - truth) / len(rows) + decay * weights
        return loss, slope.ravel()

    found = minimize(objective, np.zeros(rows.shape[1] * num), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return found.x.reshape(rows.shape[1], num)


def _classify(weights: Float[np.ndarray, "E K"], x: Float[np.ndarray, "N D"]) -> Int[np.ndarray, " N"]:
    return (x @ weights[:-1] + weights[-1]).argmax(axis=1)
