"""Does an image show what its prompt says? Attribute by attribute, asked of classifiers trained on real images.

The classifiers are not perfect, so beside each share stands what they reach on real held-out images with the same
prompts, and what images score against each other's prompts (chance, given how prompts and images are distributed).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from medtextdiff.evaluation.attribute_probe import UNKNOWN
from medtextdiff.evaluation.resampling import clustered_share_interval
from medtextdiff.evaluation.statistics import Interval

MIN_IMAGES = 5  # fewer images with a claim tell nothing
_SHUFFLES = 20


@dataclass(frozen=True)
class Line:
    """One attribute, or a group of them. Shares of claims that the classifier affirms, in [0, 1].

    `images` have the `claims`; intervals are over images, since claims of one image hang together. `kept` is the share
    above that of shuffled prompts, as a share of the same of real images: 1 is as good as real, 0 as good as chance;
    NaN where real images are not 2 points better than shuffled ones.
    """

    name: str
    claims: int
    images: int
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
    real_images: Int[np.ndarray, " V"],
    seed: int,
) -> tuple[list[Line], list[Line]]:
    """Lines of the groups, and of every attribute, that at least 5 generated and 5 real images are asked for.

    Args:
        names: of the A attributes.
        groups: names of attributes by group; a group's share is over all its claims.
        answers: the classifiers', 1 or 0. claims: the prompts', 1, 0 or -1 (not said). `real_*`: of held-out images.
        seed: of the shuffles.
    """
    shuffled, real_shuffled = _shuffled(answers, claims, seed), _shuffled(real_answers, real_claims, seed)

    def line(name: str, columns: list[int]) -> Line | None:
        asked, hits = _by_image(answers, claims, columns, np.arange(len(claims)))
        real_asked, real_hits = _by_image(real_answers, real_claims, columns, real_images)
        if min(len(asked), len(real_asked)) < MIN_IMAGES:
            return None
        return Line(
            name,
            int(asked.sum()),
            len(asked),
            clustered_share_interval(hits, asked),
            _share(shuffled, columns),
            clustered_share_interval(real_hits, real_asked),
            int(real_asked.sum()),
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


def _by_image(
    answers: np.ndarray, claims: np.ndarray, columns: list[int], image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Claims of some attributes, and those affirmed, of each image that has any."""
    known = claims[:, columns] != UNKNOWN
    hit = known & (answers[:, columns] == claims[:, columns])
    asked = np.bincount(image, weights=known.sum(axis=1)).astype(np.int64)
    hits = np.bincount(image, weights=hit.sum(axis=1)).astype(np.int64)
    return asked[asked > 0], hits[asked > 0]


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
