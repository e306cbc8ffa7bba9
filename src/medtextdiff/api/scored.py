"""Which images of a data set can be scored for a model, and each of them with its mask."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from medtextdiff.api import shelf
from medtextdiff.api.model import Model, as_picture
from medtextdiff.config import ConfigError
from medtextdiff.data import images, note_edits, transforms
from medtextdiff.data.dataset import check_scorable, read_labels
from medtextdiff.data.errors import DataError
from medtextdiff.training.provenance import trained_on
from medtextdiff.types import Record


def records_of(model: Model, data: str | Path, split: str, masks: str | None = None) -> list[Record]:
    """The records of `data` that can be scored, read as the model's own data was; `masks` names another folder.

    Raises:
        DataError: no data set, no such split, or no image with a mask.
    """
    records = model.run.data.at(data, masks).build().records(split)
    scored = [record for record in records if record.mask is not None and record.image is not None]
    if not scored:
        raise DataError(f"split '{split}' of {data} has no image with a mask; nothing can be scored")
    return scored


def drawn_together(records: Sequence[Record]) -> list[str] | None:
    """A group name for each record: those of one patient, or of one image, are no independent cases. None: all are."""
    first: dict[Path | None, str] = {}  # the names go into reports, where paths have no place
    names = [
        f"patient {record.patient}" if record.patient else f"image {first.setdefault(record.image, record.id)}"
        for record in records
    ]
    return names if len(set(names)) < len(names) else None


def trained_images(models: Sequence[str | Path], *, required: bool) -> frozenset[str] | None:
    """The hashes of all images that one of the models is known to be trained on; None where no model tells.

    Raises:
        ConfigError: a model that does not tell, with `required`; RunError: a damaged lock.json.
    """
    told = {model: trained_on(shelf.find(model)) for model in models}
    silent = [model for model, hashes in told.items() if hashes is None]
    if silent and required:
        raise ConfigError(f"{silent[0]} has no lock.json, which tells what it was trained on; leave out --unseen")
    found = [hashes for hashes in told.values() if hashes is not None]
    return frozenset[str]().union(*found) if found else None


def unseen_of(records: Sequence[Record], known: frozenset[str] | None) -> list[Record]:
    """The records whose images are not among the `known`."""
    return [r for r in records if r.image is None or not known or images.content_hash(r.image) not in known]


def wrong_notes(records: Sequence[Record]) -> list[str]:
    """For each record another image's note, not that of another mask of its own image.

    Raises:
        ValueError: one has none.
    """
    notes, of = [record.note for record in records], [record.image for record in records]
    return [note_edits.another(notes, k, of) for k in range(len(notes))]


def read_pair(model: Model, record: Record, at: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The image as floats [H W C] in [0, 1] and its mask [H W], at its own size or made `at` x `at`.

    Raises:
        ImageError, DataError: a file that cannot be read, or a mask that does not fit or leaves nothing to score.
    """
    assert record.image is not None
    foreground = getattr(model.run.data, "foreground", "ids")
    labels = read_labels(record, model.num_classes, "any" if foreground == "any" else "ids")
    assert labels is not None
    pixels = torch.from_numpy(as_picture(images.read(record.image)).pixels).permute(2, 0, 1)
    if labels.shape != pixels.shape[-2:]:
        raise DataError(f"record '{record.id}': the mask's size is not its image's; run medtextdiff data check")
    truth = labels.long()
    if at is not None:
        pixels = transforms.resize_image(pixels, at)
        truth = transforms.resize_mask(truth, at)
    check_scorable(record, truth)
    return pixels.permute(1, 2, 0).clamp(0, 1).numpy(), truth.numpy()
