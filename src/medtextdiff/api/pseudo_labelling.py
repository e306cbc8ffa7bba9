"""Label images by a segmenter that is there: pairs of image and mask, to train another one on."""

import csv
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from medtextdiff import __version__
from medtextdiff.api.loading import load_segmenter
from medtextdiff.api.segmenting import why
from medtextdiff.config import ConfigError
from medtextdiff.data import generated, images, tables
from medtextdiff.data.atomic import check_place
from medtextdiff.data.errors import DataError, OutputExists
from medtextdiff.data.sources import detect
from medtextdiff.training.disk import whole_folder, write_json
from medtextdiff.types import IGNORE

Say = Callable[[str], None]


@dataclass(frozen=True)
class PseudoLabels:
    """What became of the images: pairs written, images the model was unsure of, and (file, why) of what failed."""

    kept: int
    unsure: int
    failures: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Image:
    path: Path
    note: str


def pseudo_label(
    source: str | Path,
    *,
    model: str | Path,
    out: str | Path,
    confidence: float = 0.8,
    sure: float = 0.9,
    with_notes: bool = True,
    device: str = "auto",
    precision: str = "auto",
    progress: Say = lambda line: None,
) -> PseudoLabels:
    """Write a data set of `source`'s images and the masks that `model` gives them (`images/`, `masks/`, `notes.csv`).

    A pixel whose most probable class has less than `confidence` is ignored in training (255 in the mask's palette); an
    image with a smaller share of sure pixels than `sure` is left out. Training takes the folder by `data.more=OUT`.
    Masks that `source` has are not read. A file that fails is listed, and the others go on.

    Args:
        source: what `medtextdiff generate` wrote, a data set (its training images), or a folder of images.
        with_notes: give the model each image's note or prompt, and write it beside the mask; False: neither.

    Raises:
        ConfigError, DataError, OutputExists: a source, model or threshold that cannot be used, or not one sure image.
    """
    out = Path(out)
    for name, value in (("confidence", confidence), ("sure", sure)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} lies between 0 and 1, got {value}")
    check_place(out)
    if out.exists():
        raise OutputExists(f"{out} exists already; give another folder with -o")
    todo = _images(Path(source))
    _check_names([image.path for image in todo])
    loaded = load_segmenter(model, device=device, precision=precision, progress=progress)
    rows: list[list[Any]] = []
    unsure, failures = 0, []
    with whole_folder(out) as folder:
        for part in ("images", "masks"):
            (folder / part).mkdir()
        for number, image in enumerate(todo, 1):
            note = image.note if with_notes else ""
            try:
                mask = _mask(loaded.segment(image.path, note).probabilities, confidence)
            except (ValueError, MemoryError) as error:
                failures.append((str(image.path), why(image.path, error)))
            else:  # what cannot be written (a full disk) is no fault of the image: it ends the command
                share = float((mask != IGNORE).mean())
                if share >= sure:
                    name = f"{image.path.stem}.png"
                    images.write_mask(folder / "masks" / name, mask)
                    shutil.copyfile(image.path, folder / "images" / image.path.name)
                    rows.append([image.path.name, name, "train", note, f"{share:.4f}"])
                else:
                    unsure += 1
            if number % 50 == 0 or (rows and number == len(todo)):
                progress(f"{number}/{len(todo)} images, {len(rows)} kept")
        if not rows:
            raise DataError(
                f"not one of {len(todo)} images is labelled: {unsure} are unsure, {len(failures)} failed; lower "
                "--confidence or --sure, or train the model longer"
            )
        report = PseudoLabels(len(rows), unsure, tuple(failures))
        _describe(folder, rows, report, {"model": loaded.name, "sha256": loaded.sha256}, confidence, sure)
    return report


def _images(source: Path) -> list[_Image]:
    if (source / generated.TABLE).is_file():
        return [_Image(one.image, one.prompt) for one in generated.read_generated(source)]
    if not source.is_dir():
        raise DataError(f"{source} is no folder; give generated images, a data set, or a folder of images")
    plain = [path for path in images.list_images(source) if path.parent == source]
    if plain:
        return [_Image(path, "") for path in plain]
    records = detect(source).build().records("train")  # type: ignore[attr-defined]
    found = [_Image(record.image, record.note) for record in records if record.image is not None]
    if not found:
        raise DataError(f"{source} has no training image to label")
    return found


def _mask(probabilities: Float[np.ndarray, "K H W"], confidence: float) -> Int[np.ndarray, "H W"]:
    ids = probabilities.argmax(axis=0).astype(np.int64)
    ids[probabilities.max(axis=0) < confidence] = IGNORE
    return ids


def _check_names(paths: Sequence[Path]) -> None:
    stems = [path.stem for path in paths]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise DataError(f"several images are called {tables.join(twice)}; a mask is found by its image's name: rename")


def _describe(
    folder: Path, rows: list[list[Any]], report: PseudoLabels, model: dict[str, str], confidence: float, sure: float
) -> None:
    with open(folder / "notes.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["image", "mask", "split", "note", "sure"], *rows])
    counts = {name: value for name, value in asdict(report).items() if name != "failures"}
    settings = {"confidence": confidence, "sure": sure, "medtextdiff": __version__}
    write_json(folder / "pseudo_labels.json", model | settings | counts | {"failed": len(report.failures)})
