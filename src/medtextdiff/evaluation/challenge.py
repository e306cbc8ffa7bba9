"""The figures of the two ImageCLEF MEDVQA-GI challenges, as their scripts compute them: for comparison, not for truth.

`medvqa2024` resizes by repeating the raw buffer, so that it hardly looks at the picture, and its "FID" of class
probabilities cannot exceed 4. `medvqa2025` fits covariances of 768 dimensions to ten images, scores half of the
pairs, and calls a collapsed model consistent. Both are told as they are, beside the same formulas without the faults.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from medtextdiff.evaluation.distances import frechet, inception_score

SIDE_2024 = 299
_SPLITS = 10


@dataclass(frozen=True)
class Pair:
    """Features of the images of two wordings of one thing, and of the real images that show it."""

    first: Float[np.ndarray, "N D"]
    second: Float[np.ndarray, "N D"]
    real: Float[np.ndarray, "R D"]


def resize_2024(image: UInt8[np.ndarray, "H W 3"], side: int = SIDE_2024) -> UInt8[np.ndarray, "S S 3"]:
    """What the 2024 script calls resizing: the raw buffer, cut or begun again, in rows of the new width."""
    return np.resize(image, (side, side, 3))


def medvqa2024(
    generated: Sequence[UInt8[np.ndarray, "H W 3"]],
    real: Sequence[UInt8[np.ndarray, "H W 3"]],
    classify: Callable[[Sequence[np.ndarray]], Float[np.ndarray, "N K"]],
) -> dict[str, float]:
    """ "FID" of class probabilities, and the inception score in ten splits (mean, standard deviation, median).

    `classify` gives the probabilities of images of 299 x 299; the challenge's is Keras' InceptionV3 on ImageNet.
    """
    probs, real_probs = (classify([resize_2024(image) for image in images]) for images in (generated, real))
    parts = [part for part in np.array_split(probs, _SPLITS) if len(part)]
    scores = [inception_score(part) for part in parts]
    return {
        "fid of probabilities": frechet(probs, real_probs),
        "inception score, mean": float(np.mean(scores)),
        "inception score, std": float(np.std(scores)),
        "inception score, median": float(np.median(scores)),
    }


def medvqa2025(pairs: Sequence[Pair]) -> dict[str, float]:
    """Fidelity, agreement, diversity and FBD (Fréchet distance of all); "all pairs" where the script stops half-way.

    Raises:
        ValueError: no pairs.
    """
    if not pairs:
        raise ValueError("protocol medvqa2025 needs at least one pair of prompts")
    scored = pairs[: max(1, len(pairs) // 2)]  # the script's loop ends there
    everything = np.concatenate([part for pair in pairs for part in (pair.first, pair.second)])
    real = np.concatenate([pair.real for pair in pairs])
    found = {}
    for name, chosen in (("", scored), (", all pairs", pairs)):
        found["fidelity" + name] = float(np.mean([_fidelity(pair) for pair in chosen]))
        found["agreement" + name] = float(np.mean([_cosine(pair.first, pair.second) for pair in chosen]))
        spread = [_spread(part) for pair in chosen for part in (pair.first, pair.second)]
        found["diversity" + name] = float(np.mean(spread))
    return found | {"fbd": frechet(everything, real)}


def _fidelity(pair: Pair) -> float:
    apart = (frechet(pair.first, pair.real) + frechet(pair.second, pair.real)) / 2
    return 1000 / (1 + apart)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Of image k of the one wording with image k of the other."""
    num = min(len(first), len(second))
    return float((_unit(first[:num]) * _unit(second[:num])).sum(axis=1).mean())


def _spread(rows: np.ndarray) -> float:
    """The mean distance between different images, as unit vectors."""
    unit = _unit(rows)
    apart = np.linalg.norm(unit[:, None] - unit[None, :], axis=2)
    return float(apart[np.triu_indices(len(unit), 1)].mean()) if len(unit) > 1 else 0.0
