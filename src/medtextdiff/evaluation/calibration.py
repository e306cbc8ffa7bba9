"""Does a probability keep its word: confidence of one mask, calibration over many."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from medtextdiff.types import IGNORE


@dataclass
class Calibration:
    """Pixels sorted by the probability of their predicted class, image after image; holds three rows of numbers.

    Bins are equally wide on [0, 1] (Guo et al. 2017).
    """

    num_bins: int = 15
    pixels: np.ndarray = field(init=False)  # per bin: how many
    confidence: np.ndarray = field(init=False)  # per bin: sum of the largest probability
    correct: np.ndarray = field(init=False)  # per bin: how many were right

    def __post_init__(self) -> None:
        if self.num_bins < 1:
            raise ValueError(f"num_bins is at least 1; got {self.num_bins}")
        self.pixels, self.confidence, self.correct = np.zeros((3, self.num_bins))

    def add(self, probs: Float[np.ndarray, "K h w"], truth: Int[np.ndarray, "H W"]) -> None:
        """Count one image. Pixels whose truth is 255 are left out.

        Raises:
            ValueError: sizes that differ, or probabilities outside [0, 1].
        """
        if probs.shape[1:] != truth.shape:
            raise ValueError(f"probabilities are {probs.shape[1:]} and the mask {truth.shape}: bring them to one size")
        _check_probs(probs)
        counted = truth != IGNORE
        top = probs.max(axis=0)[counted].astype(np.float64)
        correct = (probs.argmax(axis=0) == truth)[counted]
        bins = np.minimum((top * self.num_bins).astype(int), self.num_bins - 1)
        self.pixels += np.bincount(bins, minlength=self.num_bins)
        self.confidence += np.bincount(bins, weights=top, minlength=self.num_bins)
        self.correct += np.bincount(bins, weights=correct, minlength=self.num_bins)

    def error(self) -> float:
        """Expected calibration error in [0, 1]: mean gap between confidence and share of right pixels.

        Raises:
            ValueError: no pixel was counted.
        """
        if not self.pixels.sum():
            raise ValueError("no pixel was counted: add at least one image with a scored pixel")
        return float(np.abs(self.confidence - self.correct).sum() / self.pixels.sum())


def expected_calibration_error(
    probs: Float[np.ndarray, "K h w"], truth: Int[np.ndarray, "H W"], *, num_bins: int = 15
) -> float:
    """`Calibration.error` of one image; for many, keep a `Calibration` and add them one by one.

    Raises:
        ValueError: as `Calibration.add`; a mask without a pixel to score.
    """
    calibration = Calibration(num_bins)
    calibration.add(probs, truth)
    return calibration.error()


def confidence(probs: Float[np.ndarray, "K H W"]) -> float:
    """How sure a mask is, in [1/K, 1]: the largest class probability, averaged over the predicted foreground.

    When nothing is predicted it is the average over all pixels: how sure the model is that nothing is there. It is
    the model's own opinion, not a probability that the mask is right: see `Calibration`.

    Raises:
        ValueError: probabilities outside [0, 1].
    """
    _check_probs(probs)
    foreground = probs.argmax(axis=0) > 0
    top = probs.max(axis=0)
    return float(top[foreground].mean(dtype=np.float64) if foreground.any() else top.mean(dtype=np.float64))


def _check_probs(probs: Float[np.ndarray, "K H W"]) -> None:
    # 1e-3 leaves room for the rounding of a softmax in bf16.
    if not (np.isfinite(probs).all() and probs.min() >= -1e-3 and probs.max() <= 1 + 1e-3):
        raise ValueError("probabilities lie between 0 and 1; apply a softmax to logits first")
