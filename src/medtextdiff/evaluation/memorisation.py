"""Are generated images copies of training images? Nearest neighbours, with a threshold that real images calibrate."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from medtextdiff.evaluation.manifold import distances
from medtextdiff.evaluation.resampling import share_interval
from medtextdiff.evaluation.statistics import Interval

RATE = 0.01  # of held-out real images that the threshold calls copies
_ROWS = 256  # at a time


@dataclass(frozen=True)
class Audit:
    """The nearest training image of each generated one, in one space.

    `threshold` is the distance below which only `rate` of held-out real images lie; `copies` the share of generated
    images below it, with its interval. A generator that does not copy stays near `rate`.
    """

    nearest: Int[np.ndarray, " N"]
    distance: Float[np.ndarray, " N"]
    threshold: float
    rate: float  # that the threshold has on the held-out images; steps of 1 / their number
    copies: Interval

    @property
    def copied(self) -> np.ndarray:
        """Which generated images are closer than the threshold: Bool[N]."""
        return self.distance < self.threshold

    @property
    def more_than_calibrated(self) -> bool:
        """Is the whole interval above the calibrated rate?"""
        return self.copies.low > max(self.rate, RATE)


def audit(
    generated: Float[np.ndarray, "N D"],
    train: Float[np.ndarray, "M D"],
    held_out: Float[np.ndarray, "V D"],
    *,
    rate: float = RATE,
) -> Audit:
    """Compare with every training image, once as it is; give mirrored training images as further rows if they count.

    `held_out` are real images that were not trained on. With few of them the threshold is rough: with 100, a rate of
    1 % rests on one image.

    Raises:
        ValueError: an empty set, or a rate outside (0, 1).
    """
    if not 0 < rate < 1:
        raise ValueError(f"the calibrated rate lies between 0 and 1, e.g. 0.01; got {rate}")
    if not (len(generated) and len(train) and len(held_out)):
        raise ValueError(
            f"memorisation needs generated, training and held-out images; got {len(generated)}, {len(train)} and "
            f"{len(held_out)}"
        )
    _, usual = nearest(held_out, train)
    threshold = float(np.quantile(usual, rate))
    index, distance = nearest(generated, train)
    copies = share_interval(int((distance < threshold).sum()), len(distance))
    return Audit(index, distance, threshold, float((usual < threshold).mean()), copies)


def nearest(
    rows: Float[np.ndarray, "N D"], others: Float[np.ndarray, "M D"]
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """The nearest of `others` for each row: its place and distance."""
    places, found = [], []
    for start in range(0, len(rows), _ROWS):
        part = distances(rows[start : start + _ROWS], others)
        places.append(part.argmin(axis=1))
        found.append(part.min(axis=1))
    return np.concatenate(places), np.concatenate(found)
