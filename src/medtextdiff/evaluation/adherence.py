"""Does an image show what its prompt says? Attribute by attribute, asked of classifiers trained on real images.

The classifiers are not perfect, so beside each share stands what they reach on real held-out images with the same
prompts, and what images score against each other's prompts (chance, given how prompts and images are distributed).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from medtextdiff.evaluation.attribute_probe import UNKNOWN
from medtextdiff.evaluation.resampling import share_interval
from medtextdiff.evaluation.statistics import Interval

MIN_CLAIMS = 5  # fewer claims of an attribute tell nothing
_SHUFFLES = 20


@dataclass(frozen=True)
class Line:
    """One attribute, or a group of them. Shares of claims that the classifier affirms, in [0, 1].

    `kept` is the balanced share above that of shuffled prompts, as a share of what real images have: 1 is as good as
    real, 0 as good as chance; NaN where real images are no better than shuffled ones.
    """

    name: str
    claims: int
    right: Interval
    shuffled: float
    real: Interval
    real_claims: int
    real_shuffled: float

    @property
    def relative(self) -> float:
        """The share as a share of the classifier's own accuracy on real images."""
        return self.right.mean / self.real.mean if self.real.mean else float("nan")

    @property
    def kept(self) -> float:
        """(generated - its shuffled) / (real - its shuffled)."""
        gain = self.real.mean - self.real_shuffled
        return (self.right.mean - self.shuffled) / gain if gain > 0.02 else float("nan")


def table(
    names: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    *,
    answers: Int[np.ndarray, "N A"],
    claims: Int[np.ndarray, "N A"],
    real_answers: Int[np.ndarray, "V A"],
    real_claims: Int[np.ndarray, "V A"],
    seed: int,
) -> tuple[list[Line], list[Line]]:
    """Lines of the groups, and of every attribute, that generated and real images both claim at least 5 times.

    Args:
        names: of the A attributes.
        groups: names of attributes by group; a group's share is over all its claims.
        answers: the classifiers', 1 or 0. claims: the prompts', 1, 0 or -1 (not said). `real_*`: of held-out images.
        seed: of the shuffles.
    """
    shuffled, real_shuffled = _shuffled(answers, claims, seed), _shuffled(real_answers, real_claims, seed)

    def line(name: str, columns: list[int]) -> Line | None:
        right, total = _hits(answers, claims, columns)
        real_right, real_total = _hits(real_answers, real_claims, columns)
        if min(total, real_total) < MIN_CLAIMS:
            return None
        return Line(
            name,
            total,
            share_interval(right, total),
            _share(shuffled, columns),
            share_interval(real_right, real_total),
            real_total,
            _share(real_shuffled, columns),
        )

    place = {name: column for column, name in enumerate(names)}
    grouped = [line(group, [place[name] for name in members]) for group, members in groups.items()]
    single = [line(name, [column]) for name, column in place.items()]
    return [one for one in grouped if one], [one for one in single if one]


def right_per_image(answers: Int[np.ndarray, "N A"], claims: Int[np.ndarray, "N A"]) -> list[tuple[int, int]]:
    """Claims affirmed, and claims made, of each image."""
    known = claims != UNKNOWN
    agreed = known & (answers == claims)
    return list(zip(agreed.sum(axis=1).tolist(), known.sum(axis=1).tolist(), strict=True))


def _hits(answers: np.ndarray, claims: np.ndarray, columns: list[int]) -> tuple[int, int]:
    known = claims[:, columns] != UNKNOWN
    return int((known & (answers[:, columns] == claims[:, columns])).sum()), int(known.sum())


def _shuffled(answers: np.ndarray, claims: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hits and claims of each attribute when every image is asked for another image's prompt, over 20 shuffles."""
    rng = np.random.default_rng(seed)
    hits, known = np.zeros(claims.shape[1]), (claims != UNKNOWN).sum(axis=0) * _SHUFFLES
    for _ in range(_SHUFFLES):
        other = answers[rng.permutation(len(answers))]
        hits += ((claims != UNKNOWN) & (other == claims)).sum(axis=0)
    return hits, known


def _share(found: tuple[np.ndarray, np.ndarray], columns: list[int]) -> float:
    hits, known = found
    return float(hits[columns].sum() / max(1, known[columns].sum()))
