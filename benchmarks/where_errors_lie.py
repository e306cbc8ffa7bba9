"""What is a segmenter's error made of: the outline, whole objects, or the rest? And would another threshold mend it?

    python benchmarks/where_errors_lie.py MODEL DATA [--split val] [--unseen] [--band 3]

MODEL is a run folder or a shipped model with two classes; --unseen leaves out what it was trained on, as in `evaluate`.
Shares are percent of the summed areas of mask and truth, so that those of one image add up to 100 less its Dice.
"Best threshold" is found on the image's own truth: a bound, not a result.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

import medtextdiff
from medtextdiff.api.scored import read_pair, records_of, trained_images, unseen_of
from medtextdiff.config import ConfigError
from medtextdiff.data.errors import DataError
from medtextdiff.evaluation.segmentation import FOREGROUND, score_image
from medtextdiff.training.errors import RunError
from medtextdiff.types import IGNORE

THRESHOLDS = np.arange(0.05, 1.0, 0.05)
TOUCHED = 0.25  # an object of which less is found is missed; a found one of which less is true is false


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--unseen", action="store_true")
    parser.add_argument("--band", type=float, default=3.0, help="pixels to either side of the true outline")
    options = parser.parse_args()
    try:
        found = measured(options.model, options.data, options.split, options.unseen, options.band)
    except (ConfigError, DataError, RunError) as error:
        parser.error(str(error))
    print(f"{len(found)} images of {options.split}")
    for name in found[0]:
        print(f"{name:20} {np.mean([one[name] for one in found]):6.2f}")
    return 0


def measured(name: str, data: Path, split: str, unseen: bool, band: float) -> list[dict[str, float]]:
    """What `shares` says of each image."""
    model = medtextdiff.load(name)
    if model.num_classes != 2:
        raise ConfigError(f"{name} tells {model.num_classes} classes apart; give a model of two")
    records = records_of(model, data, split)
    if unseen:
        records = unseen_of(records, trained_images([name], required=True))
    if not records:
        raise ConfigError(f"every image of split '{split}' of {data} was trained on; give other data")
    found = []
    for record in records:
        image, truth = read_pair(model, record)
        found.append(shares(model.segment(image, record.note).probabilities[1], truth, band))
    return found


def shares(probs: np.ndarray, truth: np.ndarray, band: float) -> dict[str, float]:
    """Dice, Dice at the best threshold, and the parts of the error, in percent. Pixels that are IGNORE do not count."""
    counted = truth != IGNORE
    true, pred = (truth == 1) & counted, (probs > 0.5) & counted
    total = max(1, int(true.sum() + pred.sum()))
    wrong = true != pred
    missed, false = wrong & lost(true, pred), wrong & lost(pred, true)
    whole = missed | false
    near = wrong & ~whole & (distance_to_outline(true) <= band)
    best = max(dice(probs > threshold, truth) for threshold in THRESHOLDS)
    return {
        "Dice": dice(pred, truth),
        "at best threshold": best,
        f"within {band:g} px": 100 * near.sum() / total,
        "objects missed": 100 * missed.sum() / total,
        "objects made up": 100 * false.sum() / total,
        "rest": 100 * (wrong & ~whole & ~near).sum() / total,
    }


def lost(these: np.ndarray, those: np.ndarray) -> np.ndarray:
    """The connected objects of `these` of which less than a quarter is in `those`."""
    labels, _ = ndimage.label(these)
    areas = np.bincount(labels.ravel())
    kept = np.bincount(labels.ravel(), weights=those.ravel()) >= TOUCHED * areas
    return these & ~kept[labels]


def distance_to_outline(true: np.ndarray) -> np.ndarray:
    """Pixels to the nearest pixel of the other kind; endless without any."""
    if true.all() or not true.any():
        return np.full(true.shape, np.inf)
    return np.where(true, ndimage.distance_transform_edt(true), ndimage.distance_transform_edt(~true))


def dice(pred: np.ndarray, truth: np.ndarray) -> float:
    return 100 * score_image(pred.astype(np.int64), truth, 2, distances=False)[FOREGROUND]["dice"]


if __name__ == "__main__":
    sys.exit(main())
