"""How far apart two sets of images lie, by their features: Fréchet (FID), kernel (KID), and MiFID.

The distance is "FID" in the published sense only where the features are those of its Inception network; so every
table names the extractor. Arithmetic in float64, checked against torchmetrics in the tests.
"""

import numpy as np
from jaxtyping import Float

MIFID_THRESHOLD = 0.1  # of torchmetrics and the Kaggle challenge that defined it


def frechet(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"]) -> float:
    """The squared Fréchet distance of two Gaussians fitted to the rows (FID, arXiv 1706.08500).

    Too large for few rows: it falls towards its limit about as 1/N, the faster the smaller D is. Compare only figures
    of the same N.

    tr sqrt(A B) of two covariances is the nuclear norm of the product of their factors, so no matrix root is taken and
    fewer rows than dimensions are no special case.

    Raises:
        ValueError: fewer than two rows, other widths, or values that are not finite.
    """
    a, b = _checked(a, b, least=2)
    shift = a.mean(axis=0) - b.mean(axis=0)
    x = (a - a.mean(axis=0)) / np.sqrt(len(a) - 1)  # A = x' x
    y = (b - b.mean(axis=0)) / np.sqrt(len(b) - 1)
    traces = np.square(x).sum() + np.square(y).sum()
    cross = _triangle(x) @ _triangle(y).T
    root = np.linalg.svd(cross, compute_uv=False).sum()
    return float(max(0.0, shift @ shift + traces - 2 * root))


def kernel(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"]) -> float:
    """The unbiased squared maximum mean discrepancy with the kernel (x.y / D + 1)^3 (KID, arXiv 1801.01401).

    On average right for any number of rows; it may be negative where the sets agree.

    Raises:
        ValueError: as `frechet`.
    """
    a, b = _checked(a, b, least=2)
    return float(_mean_of_pairs(a) + _mean_of_pairs(b) - 2 * _cubic(a, b).mean())


def memorisation_informed(
    fid: float,
    generated: Float[np.ndarray, "N D"],
    train: Float[np.ndarray, "M D"],
    threshold: float = MIFID_THRESHOLD,
) -> float:
    """MiFID: `fid` divided by the mean cosine distance of each generated row to its nearest training row.

    The divisor counts only below `threshold`, as published; else it is 1. For centred features a cosine says more.

    Raises:
        ValueError: no rows, other widths, or values that are not finite.
    """
    generated, train = _checked(generated, train, least=1)
    cosines = np.abs(_unit(generated) @ _unit(train).T)
    distance = float((1 - cosines).min(axis=1).mean())
    return fid / (distance + 1e-14) if distance < threshold else fid


def inception_score(probs: Float[np.ndarray, "N K"]) -> float:
    """exp of the mean divergence of each image's class probabilities from their mean (arXiv 1606.03498); 1 to K.

    Raises:
        ValueError: no rows, or rows that are no probabilities.
    """
    probs = np.asarray(probs, dtype=np.float64)
    if not len(probs) or (probs < 0).any() or not np.allclose(probs.sum(axis=1), 1, atol=1e-3):
        raise ValueError("the inception score needs class probabilities: each row positive, with sum 1")
    return float(np.exp(_divergence(probs, probs.mean(axis=0)).mean()))


def attribute_score(probs: Float[np.ndarray, "N A"]) -> float:
    """The inception score's idea for A yes-or-no attributes: exp of the mean divergence an attribute, 1 to 2.

    Not comparable with an inception score over classes.
    """
    probs = np.asarray(probs, dtype=np.float64)
    mean = probs.mean(axis=0)
    both = _plogp(probs, mean) + _plogp(1 - probs, 1 - mean)
    return float(np.exp(both.mean()))


def joint(
    features: Float[np.ndarray, "N D"], claims: Float[np.ndarray, "N A"], weight: float
) -> Float[np.ndarray, "N E"]:
    """Rows of an image's features and `weight` times what its prompt claims: their Fréchet distance also grows when
    images are given each other's prompts (the Fréchet joint distance, arXiv 1907.08175, whose alpha `weight` is).
    """
    return np.concatenate([features, weight * claims], axis=1)


def joint_weight(features: Float[np.ndarray, "N D"], claims: Float[np.ndarray, "N A"]) -> float:
    """The ratio of mean norms of the real images, as the Fréchet joint distance has it."""
    return float(np.linalg.norm(features, axis=1).mean() / max(1e-12, np.linalg.norm(claims, axis=1).mean()))


def _checked(a: np.ndarray, b: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"both sets need features of one width; got {a.shape[1]} and {b.shape[1]}")
    if min(len(a), len(b)) < least:
        raise ValueError(f"a distance needs at least {least} images on each side; got {len(a)} and {len(b)}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("features hold values that are not finite; look for a broken image or extractor")
    return a, b


def _triangle(x: np.ndarray) -> np.ndarray:
    """R' of x = R' Q with as few columns as it can: its products have the norms of x's."""
    return np.asarray(np.linalg.qr(x, mode="r")) if len(x) > x.shape[1] else x


def _cubic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _mean_of_pairs(a: np.ndarray) -> float:
    values = _cubic(a, a)
    return (values.sum() - np.trace(values)) / (len(a) * (len(a) - 1))


def _unit(a: np.ndarray) -> np.ndarray:
    return a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-12)


def _divergence(probs: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return _plogp(probs, mean).sum(axis=1)


def _plogp(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.where(p > 0, p * np.log(np.maximum(p, 1e-300) / np.maximum(q, 1e-300)), 0.0)
