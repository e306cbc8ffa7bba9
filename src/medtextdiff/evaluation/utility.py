"""Are synthetic images good to learn from? Train on them, test on real; against real, and both.

Every row trains the same small classifier with the same settings; synthetic images carry what their prompt claims.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from medtextdiff.evaluation.attribute_probe import balanced_accuracy, fit
from medtextdiff.evaluation.statistics import Interval

_MIN_OF_EACH = 5  # yes and no, in a training set and in the test set
_RESAMPLES = 500

Set = tuple[Float[np.ndarray, "_ D"], Int[np.ndarray, "_ A"]]  # features and labels (1, 0, -1)


@dataclass(frozen=True)
class Line:
    """One training set: its images, and the mean balanced accuracy on the test images over the attributes."""

    name: str
    images: int
    score: Interval


def table(
    sets: Mapping[str, Set], test: Set, *, seed: int, progress: Callable[[str], None] = lambda line: None
) -> tuple[list[Line], list[int]]:
    """A line for each training set, and the columns of the attributes that count: the same for all lines.

    An attribute counts where every set and the test images have at least 5 yes and 5 no of it. The interval is over
    test images (bootstrap). No lines where no attribute counts.
    """
    labels = [one[1] for one in (*sets.values(), test)]
    columns = [a for a in range(test[1].shape[1]) if all(_enough(each[:, a]) for each in labels)]
    if not columns:
        return [], []
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(test[1]), size=(_RESAMPLES, len(test[1])))
    lines = []
    for name, (features, known) in sets.items():
        probe = fit(features, known[:, columns], seed=seed, cuts="half")
        answers = probe.answers(test[0])
        lines.append(Line(name, len(features), _score(answers, test[1][:, columns], draws)))
        progress(f"utility: {name}")
    return lines, columns


def _enough(labels: Int[np.ndarray, " N"]) -> bool:
    return min(int((labels == 1).sum()), int((labels == 0).sum())) >= _MIN_OF_EACH


def _score(answers: np.ndarray, labels: np.ndarray, draws: np.ndarray) -> Interval:
    whole = _mean(answers, labels)
    values = [_mean(answers[rows], labels[rows]) for rows in draws]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Interval(whole, float(low), float(high))


def _mean(answers: np.ndarray, labels: np.ndarray) -> float:
    found: Sequence[float] = [balanced_accuracy(answers[:, a], labels[:, a]) for a in range(labels.shape[1])]
    return float(np.mean([value for value in found if not np.isnan(value)] or [np.nan]))
