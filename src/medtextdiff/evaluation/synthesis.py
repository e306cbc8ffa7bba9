"""The table of image quality: generated images, and rows to read them by, each against the same real images.

All rows have the same number of images on both sides, since most of these figures depend on it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from medtextdiff.evaluation import distances, manifold
from medtextdiff.evaluation.resampling import half_sample_interval, half_sample_intervals, seed_interval
from medtextdiff.evaluation.statistics import Interval

MIN_IMAGES = 20
NAMES = {
    "fid": "FD",
    "kid": "KD x 1000",
    "mifid": "MiFD",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "joint_fid": "Joint FD",
    "joint_kid": "Joint KD x 1000",
    "similarity": "MS-SSIM",
    "score": "IS",
}
SMALLER_IS_BETTER = frozenset({"fid", "kid", "mifid", "joint_fid", "joint_kid", "similarity"})


@dataclass(frozen=True)
class Sample:
    """A set of images by features; rows go together.

    Fields:
        claims: what each image's prompt says, 1, -1 or 0 (not said); None where prompts say nothing known.
        train: features of the training images that MiFID looks for copies in: never the set's own.
        score: the inception score of these rows, asked with places; None where there is no classifier.
        similarity: MS-SSIM of pairs of images of the set, with its interval.
        paired: row k is a version of the reference's row k (a reconstruction).
    """

    name: str
    vectors: Float[np.ndarray, "N D"]
    train: Float[np.ndarray, "M D"]
    claims: Float[np.ndarray, "N A"] | None = None
    score: Callable[[np.ndarray], float] | None = None
    similarity: Interval | None = None
    paired: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table. `spread` says what the intervals are over: "seeds" or "images"."""

    name: str
    images: int
    spread: str
    figures: dict[str, Interval] = field(default_factory=dict)


def rows(
    samples: Sequence[Sample], reference: Sample, *, seed: int, progress: Callable[[str], None] = lambda line: None
) -> list[Row]:
    """One row for each sample against the reference (real held-out images).

    Raises:
        ValueError: a sample with fewer than 20 images, or not as many as the reference.
    """
    made = []
    for sample in samples:
        if len(sample.vectors) != len(reference.vectors) or len(sample.vectors) < MIN_IMAGES:
            raise ValueError(
                f"'{sample.name}' has {len(sample.vectors)} images, the reference {len(reference.vectors)}; they need "
                f"the same number, at least {MIN_IMAGES}"
            )
        made.append(_row(sample, reference, seed))
        progress(f"quality: {sample.name}")
    return made


def over_rounds(name: str, each: Sequence[Row]) -> Row:
    """Rows of one generator, each with other seeds, as one; a single row stays as it is."""
    if len(each) == 1:
        return each[0]
    keys = each[0].figures
    figures = {key: _bounded(key, seed_interval([row.figures[key].mean for row in each])) for key in keys}
    return Row(name, each[0].images, f"{len(each)} seeds", figures)


def _row(sample: Sample, reference: Sample, seed: int) -> Row:
    def over(figure: Callable[..., float], *sets: np.ndarray) -> Interval:
        return half_sample_interval(figure, sets, seed=seed, paired=sample.paired)

    ours, real = sample.vectors, reference.vectors
    fid = over(distances.frechet, ours, real)
    informed = distances.memorisation_informed(fid.mean, ours, sample.train) / max(fid.mean, 1e-12)
    figures = {
        "fid": fid,
        "kid": _scaled(over(distances.kernel, ours, real), 1000.0),
        "mifid": _scaled(fid, informed),
    }
    shares = half_sample_intervals(lambda a, b: manifold.compare(b, a), [ours, real], seed=seed, paired=sample.paired)
    figures |= dict(zip(manifold.Manifold._fields, shares, strict=True))
    figures |= _joint(sample, reference, over)
    if sample.similarity is not None:
        figures["similarity"] = sample.similarity
    if sample.score is not None:
        figures["score"] = half_sample_interval(sample.score, [np.arange(len(ours))], seed=seed)
    return Row(sample.name, len(ours), "images", {key: _bounded(key, one) for key, one in figures.items()})


def _joint(sample: Sample, reference: Sample, over: Callable[..., Interval]) -> dict[str, Interval]:
    if sample.claims is None or reference.claims is None:
        return {}
    weight = distances.joint_weight(reference.vectors, reference.claims)
    ours = distances.joint(sample.vectors, sample.claims, weight)
    real = distances.joint(reference.vectors, reference.claims, weight)
    return {
        "joint_fid": over(distances.frechet, ours, real),
        "joint_kid": _scaled(over(distances.kernel, ours, real), 1000.0),
    }


def _bounded(name: str, interval: Interval) -> Interval:
    """Without what the figure cannot be: only kernel distances can be negative, shares end at 1, where IS begins."""
    low = -np.inf if name.endswith("kid") else float(name == "score")
    high = 1.0 if name in ("precision", "recall", "coverage", "similarity") else np.inf
    return Interval(interval.mean, *(min(high, max(low, end)) if end == end else end for end in interval[1:]))


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(*(factor * value for value in interval))
