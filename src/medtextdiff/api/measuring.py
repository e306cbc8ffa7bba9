"""Make an autoencoder of anyone's ready for latent models: its scale measured, its reconstructions reported."""

from pathlib import Path
from typing import Any

import torch

from medtextdiff.config import ConfigError
from medtextdiff.data.atomic import check_place
from medtextdiff.diffusion import autoencoder
from medtextdiff.recipes.autoencoder_run import Conclusion, Heldout
from medtextdiff.recipes.job import Wrapped
from medtextdiff.recipes.synthesis_data import Data
from medtextdiff.training.disk import whole_folder


def measure_autoencoder(folder: str | Path, *, data: str | Path, out: str | Path, size: int = 256) -> dict[str, Any]:
    """Write `folder` (a diffusers `AutoencoderKL`) to `out/autoencoder` with the latents' scale and the report.

    The scale is estimated on the split "train" of `data`, the report made on "val", both at `size` x `size`. What our
    own autoencoder recipes do at their end. Returns the report.

    Raises:
        ConfigError, AutoencoderError, DataError: no autoencoder, no data, a size that does not fit, or `out` is there.
    """
    target = Path(out)
    if target.exists():
        raise ConfigError(f"{target} exists; give another folder")
    check_place(target)
    part = autoencoder.Config(path=str(folder)).build()
    if size % part.downsampling:
        raise ConfigError(f"size {size} is no multiple of {part.downsampling}; choose a multiple")
    settings = Data(root=str(data), size=size)
    records, heldout = settings.training(), Heldout(settings.heldout(), settings)
    with torch.random.fork_rng(devices=[]), whole_folder(target) as new:
        Conclusion(records, heldout, settings)(Wrapped(autoencoder=part), new)
        (new / "autoencoder").mkdir()
        part.save_pretrained(new / "autoencoder")
    assert part.report is not None
    return part.report
