"""Are generated images copies of training images? Nearest neighbours, with a threshold that real images calibrate."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from medtextdiff.evaluation.manifold import distances
from medtextdiff.evaluation.resampling import share_interval
from medtextdiff.evaluation.statistics import Interval

RATE = 0.01  # of held-out real images that the threshold calls copies
_ROWS = 256  # at a time
_SAME = 1e-5  # of the usual length of a row: nearer ones are the same picture


@dataclass(frozen=True)
class Audit:
    """The nearest training image of each generated one, in one space.

    `threshold` is the distance below which at most 1 % of held-out real images lie, `rate` the share that does.
    `copies` is the share of generated images below it, with its interval. `p_value`: the chance of so many, or more, if
    generated images were as far from the training images as held-out ones are. `repeated` counts held-out images that
    are training images: they are no measure of what a new image is like, and left out before the threshold is found.
    """

    nearest: Int[np.ndarray, " N"]
    distance: Float[np.ndarray, " N"]
    threshold: float
    rate: float
    copies: Interval
    p_value: float
    repeated: int = 0

    @property
    def copied(self) -> np.ndarray:
        """Which generated images are closer than the threshold: Bool[N]."""
        return self.distance < self.threshold

    @property
    def more_than_calibrated(self) -> bool:
        """Are there more copies than chance explains, at 5 %?"""
        return self.p_value < 0.05


def audit(
    generated: Float[np.ndarray, "N D"],
    train: Float[np.ndarray, "M D"],
    held_out: Float[np.ndarray, "V D"],
    *,
    rate: float = RATE,
) -> Audit:
    """Compare with every training image, once as it is; give mirrored training images as further rows if they count.

    `held_out` are real images that were not trained on. With few of them the threshold is rough: with 100, a rate of
    1 % rests on one image. The p value knows that: it is exact for the r-th nearest held-out image as threshold (a
    negative hypergeometric count, as in Wilks' tolerance limits).

    Raises:
        ValueError: an empty set, held-out images that are all training images, or a rate outside (0, 1).
    """
    if not 0 < rate < 1:
        raise ValueError(f"the calibrated rate lies between 0 and 1, e.g. 0.01; got {rate}")
    if not (len(generated) and len(train) and len(held_out)):
        raise ValueError(
            f"memorisation needs generated, training and held-out images; got {len(generated)}, {len(train)} and "
            f"{len(held_out)}"
        )
    _, usual = nearest(held_out, train)
    # Features of one picture differ in the last bits from batch to batch; other pictures differ by far more.
    same = usual <= _SAME * float(np.sqrt(np.square(held_out).sum(axis=1).mean()))
    repeated = int(same.sum())
    usual = usual[~same]
    if not len(usual):
        raise ValueError("every held-out image is a training image, too; memorisation needs others")
    rank = int(rate * len(usual)) + 1
    threshold = float(np.sort(usual)[rank - 1])
    index, distance = nearest(generated, train)
    hits = int((distance < threshold).sum())
    copies = share_interval(hits, len(distance))
    p_value = _chance_of(hits, len(distance), rank, len(usual))
    return Audit(index, distance, threshold, float((usual < threshold).mean()), copies, p_value, repeated)


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


def _chance_of(hits: int, num: int, rank: int, num_held_out: int) -> float:
    """Of `hits` or more of `num` below the `rank`-th smallest of the others, if both are of one kind: the smallest
    hits + rank - 1 of all together must hold at least `hits` of ours.
    """
    from scipy.stats import hypergeom

    return float(hypergeom.sf(hits - 1, num + num_held_out, num, hits + rank - 1))
