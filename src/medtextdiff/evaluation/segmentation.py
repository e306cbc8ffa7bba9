"""How good a mask is: Dice, IoU and HD95 of one image, and of many with intervals.

Nothing is dropped: a structure that was not found, or found where there is none, has a score like any other.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from medtextdiff.evaluation.statistics import NUM_RESAMPLES, bootstrap_intervals
from medtextdiff.types import IGNORE

Scores = dict[str, dict[str, float]]  # region -> metric -> value

FOREGROUND = "foreground"  # every class but 0, as one region
AS_PUBLISHED = "as_published"  # where `score_as_published` goes beside it
LOWER_IS_BETTER = frozenset({"hd95"})
_COUNTED = ("present", "missed", "false_alarm")  # flags, 0 or 1: summed, not averaged
_SMOOTH = 1e-5  # of the published score


@dataclass(frozen=True)
class Row:
    """One image's scores. Rows of one `group` (a patient, an image of several masks) are drawn together."""

    id: str
    scores: Scores
    has_note: bool = True
    group: str | None = None


def score_image(
    pred: Int[np.ndarray, "h w"],  # h w must be H W: checked here, with a message
    truth: Int[np.ndarray, "H W"],
    num_classes: int,
    spacing: tuple[float, float] | None = None,
    *,
    tolerance: float | None = None,
    distances: bool = True,
) -> Scores:
    """Scores of one mask: region "foreground" and, for more than two classes, "class_1", "class_2", ...

    Each region has dice and iou in [0, 1], hd95 in pixels (mm when `spacing` of a pixel is given as row, column),
    and the flags present, missed (in truth only), false_alarm (in pred only), 0 or 1; with `tolerance`, in the unit
    of hd95, also nsd: the share of both outlines that lies within it (Nikolov et al. 2021). `distances=False` leaves
    out hd95 and nsd, the slow part (0.2 s for 1000 x 1000 pixels), e.g. while training.
    A region in neither mask scores dice = iou = nsd = 1, hd95 = 0. In one of the two only: dice = iou = nsd = 0 and
    hd95 = the image's diagonal. (MONAI's own HD95 is infinite there, and its mean leaves such images out.)
    Pixels whose truth is 255 count nowhere; for outlines they are background in both masks.

    Raises:
        ValueError: sizes that differ, a label outside 0..num_classes - 1, no pixel to score, spacing not positive.
    """
    _check_masks(pred, truth, num_classes)
    _check_spacing(spacing)
    counted = truth != IGNORE
    regions = {FOREGROUND: ((pred > 0) & counted, (truth > 0) & counted)}
    if num_classes > 2:
        regions |= {f"class_{k}": ((pred == k) & counted, truth == k) for k in range(1, num_classes)}
    return {name: _score_region(*pair, spacing, tolerance, distances) for name, pair in regions.items()}


def score_as_published(
    prediction: Float[np.ndarray, "K h w"] | Int[np.ndarray, "h w"],
    truth: Int[np.ndarray, "H W"],
) -> dict[str, float]:
    """Foreground iou and dice of one image as the published code has them: `train.py:iou_score`, a batch of one.

    `prediction` is logits or their argmax. The published figures are macro means over images at 256 px against masks
    shrunk as `*_as_published` recipes do; the caller brings both to that size. Put the result into
    `Row.scores[AS_PUBLISHED]` and `summarise` gives the mean.

    Raises:
        ValueError: sizes that differ.
    """
    return _overlap_as_published(prediction.argmax(axis=0) if prediction.ndim == 3 else prediction, truth)


def score_as_published_pooled(
    predictions: Float[np.ndarray, "B K h w"] | Int[np.ndarray, "B h w"],
    truths: Int[np.ndarray, "B H W"],
) -> dict[str, float]:
    """The same formula with the pixels of a batch counted as one image: what that code gives for a batch above one.

    Raises:
        ValueError: sizes that differ.
    """
    return _overlap_as_published(predictions.argmax(axis=1) if predictions.ndim == 4 else predictions, truths)


def summarise(
    rows: Sequence[Row],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
) -> dict[str, Any]:
    """Means over images with bootstrap intervals, and counts, as plain values for JSON.

    `{"num_images", "num_with_notes", "num_groups", "level", "seed", "num_resamples", "regions": {region: {metric:
    {"mean", "low", "high"}, "num_present", "num_missed", "num_false_alarm"}}}`. Every image weighs the same.
    When some row has a group, images of one group are drawn together (a row without one is its own).

    Raises:
        ValueError: no rows, an id that occurs twice, rows that do not all have the same regions and metrics.
    """
    check_rows(rows)
    regions = rows[0].scores
    columns = [(region, metric) for region in regions for metric in metrics_of(rows[0], region)]
    table = np.array([[row.scores[region][metric] for region, metric in columns] for row in rows], dtype=np.float64)
    groups = groups_of(rows)
    intervals = bootstrap_intervals(table, seed=seed, num_resamples=num_resamples, level=level, groups=groups)
    found: dict[str, dict[str, Any]] = {region: {} for region in regions}
    for (region, metric), interval in zip(columns, intervals, strict=True):
        found[region][metric] = interval._asdict()
    for region, flag in ((region, flag) for region in regions for flag in _COUNTED if flag in regions[region]):
        found[region][f"num_{flag}"] = int(sum(row.scores[region][flag] for row in rows))
    return {
        "num_images": len(rows),
        "num_with_notes": sum(row.has_note for row in rows),
        "num_groups": len(rows) if groups is None else len(set(groups)),
        "level": level,
        "seed": seed,
        "num_resamples": num_resamples,
        "regions": found,
    }


def metrics_of(row: Row, region: str) -> list[str]:
    """The metrics of a region that have a mean: all but the flags."""
    return [metric for metric in row.scores[region] if metric not in _COUNTED]


def groups_of(rows: Sequence[Row]) -> list[str] | None:
    """A group name for each row, or None when no row has one."""
    if all(row.group is None for row in rows):
        return None
    return [f"image {row.id}" if row.group is None else f"group {row.group}" for row in rows]


def check_rows(rows: Sequence[Row]) -> None:
    """Refuse rows that cannot be averaged.

    Raises:
        ValueError: no rows, an id that occurs twice, rows that do not all have the same regions and metrics.
    """
    if not rows:
        raise ValueError("no images were scored: a report needs at least one row")
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise ValueError(f"image '{row.id}' was scored twice; give each image one row")
        seen.add(row.id)
        if _shape(row.scores) != _shape(rows[0].scores):
            raise ValueError(
                f"image '{row.id}' has other regions or metrics than '{rows[0].id}'; score all images alike"
            )


def _shape(scores: Mapping[str, Mapping[str, float]]) -> dict[str, set[str]]:
    return {region: set(metrics) for region, metrics in scores.items()}


def _check_masks(pred: Int[np.ndarray, "h w"], truth: Int[np.ndarray, "H W"], num_classes: int) -> None:
    _check_sizes(pred, truth)
    if num_classes < 2:
        raise ValueError(f"num_classes counts the background too, so it is at least 2; got {num_classes}")
    counted = truth[truth != IGNORE]
    if not counted.size:
        raise ValueError(f"every pixel of the true mask is {IGNORE} (ignored): nothing to score; leave the image out")
    allowed = f"0 to {num_classes - 1}"
    for name, labels, more in (("predicted", pred, ""), ("true", counted, f" and {IGNORE} (ignored)")):
        for label in (int(labels.min()), int(labels.max())):
            if not 0 <= label < num_classes:
                raise ValueError(f"the {name} mask has label {label}; allowed are {allowed}{more}")


def _check_sizes(pred: Int[np.ndarray, "..."], truth: Int[np.ndarray, "..."]) -> None:
    if pred.shape != truth.shape:
        raise ValueError(
            f"the predicted mask is {_size(pred)} and the true one {_size(truth)}; bring the prediction to the "
            "true mask's size first"
        )


def _size(mask: Int[np.ndarray, "..."]) -> str:
    return " x ".join(map(str, mask.shape))


def _check_spacing(spacing: tuple[float, float] | None) -> None:
    if spacing is not None and not (len(spacing) == 2 and all(math.isfinite(side) and side > 0 for side in spacing)):
        raise ValueError(f"spacing is the size of a pixel in mm, (row, column), both above 0; got {spacing}")


def _score_region(
    pred: Bool[np.ndarray, "H W"],
    truth: Bool[np.ndarray, "H W"],
    spacing: tuple[float, float] | None,
    tolerance: float | None,
    distances: bool,
) -> dict[str, float]:
    both, either = int((pred & truth).sum()), int((pred | truth).sum())
    found, present = bool(pred.any()), bool(truth.any())
    scores = {
        "dice": 2 * both / (both + either) if either else 1.0,
        "iou": both / either if either else 1.0,
    }
    if distances:
        scores["hd95"] = _hd95(pred, truth, spacing) if either else 0.0
    if distances and tolerance is not None:
        scores["nsd"] = _nsd(pred, truth, spacing, tolerance) if found and present else float(not either)
    return scores | {
        "present": float(present),
        "missed": float(present and not found),
        "false_alarm": float(found and not present),
    }


def _hd95(pred: Bool[np.ndarray, "H W"], truth: Bool[np.ndarray, "H W"], spacing: tuple[float, float] | None) -> float:
    rows, columns = spacing or (1.0, 1.0)
    if not (pred.any() and truth.any()):
        return math.hypot(pred.shape[0] * rows, pred.shape[1] * columns)
    if np.array_equal(pred, truth):
        return 0.0
    from monai.metrics import compute_hausdorff_distance

    pair = pred[None, None], truth[None, None]
    with _quiet_monai():
        return float(compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing))


def _nsd(
    pred: Bool[np.ndarray, "H W"],
    truth: Bool[np.ndarray, "H W"],
    spacing: tuple[float, float] | None,
    tolerance: float,
) -> float:
    from monai.metrics import compute_surface_dice
    from torch import from_numpy

    pair = (from_numpy(mask[None, None]) for mask in (pred, truth))
    with _quiet_monai():
        return float(compute_surface_dice(*pair, [tolerance], include_background=True, spacing=spacing))


@contextmanager
def _quiet_monai() -> Iterator[None]:
    """MONAI 1.6 warns of an argument that it passes to itself; nothing the reader of a score could act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*always_return_as_numpy", category=FutureWarning)
        yield


def _overlap_as_published(pred: Int[np.ndarray, "..."], truth: Int[np.ndarray, "..."]) -> dict[str, float]:
    _check_sizes(pred, truth)
    pred, truth = pred > 0, truth > 0
    iou = float(((pred & truth).sum() + _SMOOTH) / ((pred | truth).sum() + _SMOOTH))
    return {"dice": 2 * iou / (1 + iou), "iou": iou}
