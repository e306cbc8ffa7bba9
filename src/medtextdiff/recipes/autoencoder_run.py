"""The run of an autoencoder: trained on views, its latents measured, its reconstructions reported."""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.data import augment
from medtextdiff.data.dataset import Dataset
from medtextdiff.data.records import unlabelled
from medtextdiff.diffusion import autoencoder, reconstruction
from medtextdiff.recipes.job import Job, Wrapped, on_component
from medtextdiff.recipes.run_folder import locate
from medtextdiff.recipes.synthesis_data import Data, also_read, hashes, whole_images
from medtextdiff.synthesis import reconstructions
from medtextdiff.training import engine
from medtextdiff.types import Record

_MOST = 512  # images that are measured, and held-out ones that are reported: an even choice where there are more
_BATCH = 8
SCORES = ("psnr", "ssim", "l1")  # of the held-out reconstructions


class Run(config.Config):
    """The training of an autoencoder.

    model: from random weights, or one that goes on from a folder. zoom: images are made up to so much larger than
    `data.size`, and a view of that size is cut out; prompts play no role here, so flips and turns are harmless.
    """

    model: SerializeAsAny[config.Config] = autoencoder.Scratch()
    data: Data = Data()
    zoom: float = Field(default=1.125, ge=1, le=4)
    augmentation: augment.Config = augment.Config(flips=True, rot90=True)
    loss: reconstruction.Config = reconstruction.Config()
    training: engine.Config = engine.Config(monitor="psnr")

    def job(self) -> Job:
        """Build it.

        Raises:
            ConfigError, DataError: no data, or a size that the autoencoder cannot halve so often.
        """
        torch.manual_seed(self.training.seed)  # new weights
        part = locate(self.model, None).build()  # type: ignore[attr-defined]
        if not isinstance(part, autoencoder.Autoencoder):
            raise ConfigError(f"a '{self.model.kind()}' is no autoencoder; `model` takes diffusion.autoencoder's")
        if self.data.size % part.downsampling:
            raise ConfigError(
                f"data.size {self.data.size} is no multiple of {part.downsampling}, by which this autoencoder shrinks "
                "images; choose a multiple"
            )
        records, heldout = unlabelled(self.data.training()), unlabelled(self.data.heldout())
        view = self.augmentation.replace(crop=self.data.size, scale=(1.0, self.zoom), note_dropout=0.0)
        data = Dataset(records, size=round(self.data.size * self.zoom), augmentation=view).check()
        shown = Heldout(heldout, self.data)
        return Job(
            Wrapped(autoencoder=part),
            on_component("autoencoder", self.loss.build()),
            data,
            validate=shown.validate,
            data_hashes=hashes(records),
            conclude=Conclusion(records, shown, self.data),
            also_read=also_read([], heldout),
            scores=SCORES,
        )


class Heldout:
    """The images that are held out, and the scores of their reconstructions."""

    def __init__(self, records: list[Record], data: Data) -> None:
        self.split, self._records, self._size = str(data.val_split), _some(records), data.size

    def images(self) -> Tensor:
        """Up to 512 of them, [N, 3, H, W] in [-1, 1]."""
        return torch.stack(list(whole_images(self._records, self._size)))

    def validate(self, model: nn.Module) -> dict[str, float]:
        """PSNR, SSIM and L1 of their reconstructions."""
        scores = reconstructions.report(_part(model), self.images(), self.split)
        return {name: scores[name]["mean"] for name in SCORES}


class Conclusion:
    """What follows the training: the latents are measured on training images, the held-out ones reported."""

    def __init__(self, records: list[Record], heldout: Heldout, data: Data) -> None:
        self._records, self._heldout, self._data = records, heldout, data

    def __call__(self, model: nn.Module, run_dir: Path) -> list[str]:
        """Measure and report into the model; the sheet goes into `run_dir`. Gives its name."""
        part = _part(model)
        part.eval()
        device = next(part.parameters()).device
        chosen = _some(self._records)
        batches = (chosen[first : first + _BATCH] for first in range(0, len(chosen), _BATCH))
        part.normalise(torch.stack(list(whole_images(batch, self._data.size))).to(device) for batch in batches)
        heldout = self._heldout.images()
        part.report = reconstructions.report(part, heldout, self._heldout.split)
        reconstructions.write_sheet(run_dir / reconstructions.SHEET, part, list(heldout))
        return [reconstructions.SHEET]


def _some(records: list[Record]) -> list[Record]:
    num = min(len(records), _MOST)
    return [records[k * len(records) // num] for k in range(num)]


def _part(model: Any) -> autoencoder.Autoencoder:
    part = model.autoencoder
    assert isinstance(part, autoencoder.Autoencoder)
    return part
