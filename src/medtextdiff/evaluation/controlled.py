"""The controlled comparison: several runs of each of several models, scored on the same images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from medtextdiff.evaluation.statistics import NUM_RESAMPLES, bootstrap_two_level, holm, paired_test


def compare_runs(
    scores: Mapping[str, Mapping[int, Float[np.ndarray, " _"]]],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    groups: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """One plain dict for each model, whose runs (by seed) were scored on the same N images; the first is the reference.

    Fields: name, num_runs, num_images, dice and difference (this less the reference; mean, low, high, over other
    seeds and other images), num_paired (seeds that both have: only these are compared, seed by seed; where there is
    none, 0, the means over each one's own seeds are), p_value (Wilcoxon on the images' means over seeds), p_holm (over
    all models but the reference), verdict ("higher", "lower" or "not shown": the interval leaves out zero *and* p_holm
    is below 1 - level). With several runs but fewer than two seeds in pairs nothing is shown: the interval does not
    cover seeds then. Images of one of `groups` (e.g. a patient) are drawn together, and count as one in the test.

    Raises:
        ValueError: models that were scored on different numbers of images, or values that are not finite.
    """
    names = list(scores)
    lines: list[dict[str, Any]] = []
    resampling: dict[str, Any] = {"seed": seed, "num_resamples": num_resamples, "level": level, "groups": groups}
    num_images = len(next(iter(scores[names[0]].values())))
    for name, runs in scores.items():
        for values in runs.values():
            if len(values) != num_images:
                raise ValueError(f"'{name}' was scored on {len(values)} images, '{names[0]}' on {num_images}")
        dice = bootstrap_two_level(np.stack(list(runs.values())), **resampling)._asdict()
        lines.append({"name": name, "num_runs": len(runs), "num_images": num_images, "dice": dice})
    pairs = [_paired(scores[name], scores[names[0]]) for name in names[1:]]
    tests = [paired_test(own.mean(axis=0), reference.mean(axis=0), **resampling) for _, own, reference in pairs]
    corrected = holm([test.p_value for test in tests])
    for line, (num, own, reference), test, p_holm in zip(lines[1:], pairs, tests, corrected, strict=True):
        difference = bootstrap_two_level(own - reference, **resampling)
        needed = min(2, max(line["num_runs"], len(scores[names[0]])))
        shown = num >= needed and not difference.low <= 0 <= difference.high and p_holm < 1 - level
        line |= {
            "difference": difference._asdict(),
            "num_paired": num,
            "p_value": test.p_value,
            "p_holm": p_holm,
            "verdict": ("higher" if difference.mean > 0 else "lower") if shown else "not shown",
        }
    return lines


def _paired(
    own: Mapping[int, Float[np.ndarray, " N"]], reference: Mapping[int, Float[np.ndarray, " N"]]
) -> tuple[int, Float[np.ndarray, "S N"], Float[np.ndarray, "S N"]]:
    """How many seeds both have, and their runs in the same order; without any the mean over each one's runs."""
    shared = [seed for seed in own if seed in reference]
    if shared:
        return len(shared), np.stack([own[seed] for seed in shared]), np.stack([reference[seed] for seed in shared])
    mean, other = (np.mean(list(runs.values()), axis=0)[None] for runs in (own, reference))
    return 0, mean, other
