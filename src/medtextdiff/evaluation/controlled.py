"""The controlled comparison: several runs of each of several models, scored on the same images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from medtextdiff.evaluation.statistics import NUM_RESAMPLES, bootstrap_two_level, holm, paired_test


def compare_runs(
    scores: Mapping[str, Float[np.ndarray, "_ _"]],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    groups: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """One plain dict for each model, whose R runs (seeds) were scored on the same N images; the first is the reference.

    Fields: name, num_runs, num_images, dice and difference (this less the reference; mean, low, high, over other
    seeds and other images), p_value (Wilcoxon on the images' means over seeds), p_holm (over all models but the
    reference), verdict ("higher", "lower" or "not shown": the interval leaves out zero *and* p_holm is below
    1 - level). Seeds are paired where both have as many runs; else the means over seeds are compared. Images of one of
    `groups` (e.g. a patient) are drawn together, and count as one in the test.

    Raises:
        ValueError: models that were scored on different numbers of images, or values that are not finite.
    """
    names = list(scores)
    reference = scores[names[0]]
    lines: list[dict[str, Any]] = []
    resampling: dict[str, Any] = {"seed": seed, "num_resamples": num_resamples, "level": level, "groups": groups}
    for name, values in scores.items():
        if values.shape[1] != reference.shape[1]:
            raise ValueError(f"'{name}' was scored on {values.shape[1]} images, '{names[0]}' on {reference.shape[1]}")
        dice = bootstrap_two_level(values, **resampling)._asdict()
        lines.append({"name": name, "num_runs": len(values), "num_images": values.shape[1], "dice": dice})
    tests = [paired_test(values.mean(axis=0), reference.mean(axis=0), **resampling) for values in scores.values()]
    corrected = holm([test.p_value for test in tests[1:]])
    for line, test, p_holm in zip(lines[1:], tests[1:], corrected, strict=True):
        difference = bootstrap_two_level(_less(scores[line["name"]], reference), **resampling)
        shown = not difference.low <= 0 <= difference.high and p_holm < 1 - level
        line |= {
            "difference": difference._asdict(),
            "p_value": test.p_value,
            "p_holm": p_holm,
            "verdict": ("higher" if difference.mean > 0 else "lower") if shown else "not shown",
        }
    return lines


def _less(a: Float[np.ndarray, "R N"], b: Float[np.ndarray, "Q N"]) -> Float[np.ndarray, "S N"]:
    if len(a) == len(b):
        return a - b
    return (a.mean(axis=0) - b.mean(axis=0))[None]
