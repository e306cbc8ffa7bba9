"""Fill a feature bank: the levels of every image of a folder or data set, as the model reads it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medtextdiff.api.loading import load_segmenter
from medtextdiff.api.segmenting import why
from medtextdiff.config import ConfigError
from medtextdiff.data import images
from medtextdiff.data.errors import DataError
from medtextdiff.data.sources import detect
from medtextdiff.segmentation import feature_bank

Say = Callable[[str], None]


@dataclass
class BankReport:
    """What became of the images, and of their views (whole images or tiles) in the bank.

    found: were there already. made: computed now. unkept: of these, refused by the disk, or with numbers beyond the
    bank's dtype. dropped: least used entries, of any origin, that the budget had no room for.
    """

    images: int = 0
    found: int = 0
    made: int = 0
    unkept: int = 0
    dropped: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)  # (file, why)


def fill_bank(
    source: str | Path,
    *,
    model: str | Path,
    bank: str | Path | None,
    budget_gb: float | None = None,
    device: str = "auto",
    precision: str = "auto",
    progress: Say = lambda line: None,
) -> BankReport:
    """Keep the levels of an image, of a folder's images, or of a data set's, in the folder `bank`.

    What is there already is not computed again, so a stopped filling goes on where it was. A bad file is listed in
    the report, and the others go on.

    Raises:
        ConfigError, DataError: a model without a denoiser, no images, or a bank that cannot be.
    """
    if bank is None:
        raise ConfigError("levels need a place: give -o FILE.safetensors for one image, or --bank DIR for many")
    if budget_gb is not None and not budget_gb > 0:
        raise ConfigError(f"a bank of {budget_gb:g} GB holds nothing; give a budget above 0")
    settings = feature_bank.Config(folder=str(bank))
    settings = settings if budget_gb is None else settings.replace(budget_gb=budget_gb)
    paths = _paths(Path(source))
    loaded = load_segmenter(model, device=device, precision=precision, bank=settings)
    keeper: feature_bank.FeatureBank = loaded.segmenter.bank
    report, started = BankReport(), time.monotonic()
    for number, path in enumerate(paths, 1):
        try:
            loaded.warm(path)
            report.images += 1
        except (ValueError, OSError, MemoryError) as error:
            report.failures.append((str(path), why(path, error)))
        left = (time.monotonic() - started) / number * (len(paths) - number)
        progress(f"{number}/{len(paths)} {path.name}  {keeper.made} made, {keeper.found} there  {_clock(left)} left")
    report.found, report.made, report.dropped = keeper.found, keeper.made, keeper.store.dropped
    report.unkept = keeper.made - keeper.store.kept
    return report


def _paths(source: Path) -> list[Path]:
    """The image, or the images of the data set or folder."""
    if source.is_file() and source.suffix.lower() in images.SUFFIXES:
        return [source]
    try:
        found = detect(source)
    except DataError:  # no data set: a folder of images then
        if not source.is_dir():
            raise
        paths: Sequence[Path] = images.list_images(source)
    else:
        paths = [record.image for record in found.build().records() if record.image]  # type: ignore[attr-defined]
    if not paths:
        raise DataError(f"{source} holds no image; it may hold {', '.join(sorted(images.SUFFIXES))}")
    return sorted(set(paths))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
