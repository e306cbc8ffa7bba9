"""Small classifiers on features: one logistic probe an attribute, trained where the attribute is known.

Labels are 1 yes, 0 no, -1 not said; what is not said takes no part in loss or score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

UNKNOWN = -1
_STEPS = 100
_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # of the penalty, tried on a fifth of the training images
_CUTS = np.linspace(0.05, 0.95, 37)


@dataclass(frozen=True)
class Probe:
    """A linear classifier of A attributes on standardised features, with the cut of each."""

    mean: Float[np.ndarray, " D"]
    scale: Float[np.ndarray, " D"]
    weight: Float[np.ndarray, "A D"]
    bias: Float[np.ndarray, " A"]
    cut: Float[np.ndarray, " A"]
    strength: float

    def probabilities(self, features: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N A"]:
        """Of yes, in [0, 1]."""
        logits = ((features - self.mean) / self.scale) @ self.weight.T + self.bias
        return 1 / (1 + np.exp(-np.clip(logits, -60, 60)))

    def answers(self, features: Float[np.ndarray, "N D"]) -> Int[np.ndarray, "N A"]:
        """1 yes or 0 no."""
        return (self.probabilities(features) > self.cut).astype(np.int64)


def fit(
    features: Float[np.ndarray, "N D"],
    labels: Int[np.ndarray, "N A"],
    *,
    seed: int,
    strengths: Sequence[float] = _STRENGTHS,
    cuts: Literal["accuracy", "half"] = "accuracy",
) -> Probe:
    """Train by L-BFGS; the penalty, and each attribute's cut, are chosen on a fifth of the images held out by `seed`.

    Yes and no weigh the same in the loss. `cuts` "accuracy": with the most right answers, so that a rare attribute is
    seldom said; "half": 0.5, for balanced accuracy, in which a rare yes counts as much as all no. An attribute of which
    only one answer is known gives that answer.

    Raises:
        ValueError: fewer than ten images, or lengths that differ.
    """
    if len(features) != len(labels) or len(features) < 10:
        raise ValueError(f"a probe needs at least 10 labelled images; got {len(features)} and {len(labels)} labels")
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-6 * max(float(scale.max()), 1e-12), scale, 1.0)
    rows = ((features - mean) / scale).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(rows))
    held, kept = order[: len(order) // 5], order[len(order) // 5 :]
    scores, probabilities = [], []
    for strength in strengths:
        weight, bias = _solve(rows[kept], labels[kept], strength)
        probs = _sigmoid(rows[held] @ weight.T + bias)
        probabilities.append(probs)
        scores.append(_mean_loss(probs, labels[held]))
    best = int(np.argmin(scores))
    cut = _cuts(probabilities[best], labels[held]) if cuts == "accuracy" else np.full(labels.shape[1], 0.5)
    weight, bias = _solve(rows, labels, strengths[best])
    return Probe(mean, scale, weight, bias, cut, strengths[best])


def balanced_accuracy(answers: Int[np.ndarray, " N"], labels: Int[np.ndarray, " N"]) -> float:
    """The mean of the shares right among yes and among no; NaN where one of them does not occur."""
    yes, no = labels == 1, labels == 0
    if not yes.any() or not no.any():
        return float("nan")
    return float(((answers[yes] == 1).mean() + (answers[no] == 0).mean()) / 2)


def _solve(rows: np.ndarray, labels: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights [A, D] and biases [A] of least balanced cross-entropy plus penalty."""
    from scipy.optimize import minimize

    num_attributes, width = labels.shape[1], rows.shape[1]
    yes, weights = (labels == 1).astype(np.float32), _image_weights(labels)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight = flat[: num_attributes * width].reshape(num_attributes, width).astype(np.float32)
        logits = rows @ weight.T + flat[num_attributes * width :].astype(np.float32)  # (N, A)
        each = np.logaddexp(0, logits) - yes * logits
        slope = weights * (_sigmoid(logits) - yes)
        value = float((weights * each).sum(dtype=np.float64)) + strength / 2 * float(np.square(weight).sum())
        gradient = np.concatenate([(slope.T @ rows + strength * weight).ravel(), slope.sum(axis=0)])
        return value, gradient.astype(np.float64)

    start = np.zeros(num_attributes * (width + 1))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x
    return found[: num_attributes * width].reshape(num_attributes, width), found[num_attributes * width :]


def _image_weights(labels: np.ndarray) -> np.ndarray:
    """Half of each attribute's weight on its yes, half on its no; all on one where only it occurs; 0 where unknown."""
    yes, no = labels == 1, labels == 0
    num_yes, num_no = yes.sum(axis=0), no.sum(axis=0)
    share = np.where((num_yes > 0) & (num_no > 0), 0.5, 1.0)
    return (share * (yes / np.maximum(num_yes, 1) + no / np.maximum(num_no, 1))).astype(np.float32)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -60, 60)))


def _mean_loss(probs: np.ndarray, labels: np.ndarray) -> float:
    """Balanced as in training, over the attributes that occur with yes and no."""
    p = np.clip(probs, 1e-6, 1 - 1e-6)
    losses = []
    for a in range(labels.shape[1]):
        yes, no = labels[:, a] == 1, labels[:, a] == 0
        if yes.any() and no.any():
            losses.append(-(np.log(p[yes, a]).mean() + np.log(1 - p[no, a]).mean()) / 2)
    return float(np.mean(losses)) if losses else 0.0


def _cuts(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cut of each attribute with the most right answers among the held-out images; 0.5 where few are known."""
    cuts = np.full(labels.shape[1], 0.5)
    for a in range(labels.shape[1]):
        known = labels[:, a] != UNKNOWN
        if min((labels[known, a] == 1).sum(), (labels[known, a] == 0).sum()) < 5:
            continue
        right = [((probs[known, a] > cut) == (labels[known, a] == 1)).mean() for cut in _CUTS]
        best = np.flatnonzero(np.asarray(right) >= max(right) - 1e-9)
        cuts[a] = _CUTS[best[len(best) // 2]]
    return cuts
