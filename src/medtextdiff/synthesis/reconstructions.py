"""The report that must be there before a latent model is trained: how well an autoencoder gives images back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medtextdiff.config import ConfigError
from medtextdiff.data.images import write_picture
from medtextdiff.diffusion.autoencoder import REPORT, Autoencoder
from medtextdiff.diffusion.reconstruction import psnr, ssim
from medtextdiff.evaluation.pictures import grid
from medtextdiff.types import Picture

SHEET = "reconstructions.png"
_PAIRS = 16
_BATCH = 8


@torch.no_grad()
def reconstruct(autoencoder: Autoencoder, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """The images as the autoencoder gives them back: no noise in the latents; in [-1, 1]."""
    device = next(autoencoder.parameters()).device
    given = [
        autoencoder.decode_raw(autoencoder.raw_moments(part.to(device))[0]).clamp(-1, 1).cpu()
        for part in images.split(_BATCH)
    ]
    return torch.cat(given)


def report(autoencoder: Autoencoder, images: Float[Tensor, "B 3 H W"], split: str) -> dict[str, Any]:
    """PSNR (dB), SSIM and L1 (in [0, 1] units) of held-out images in [-1, 1]: means and standard deviations."""
    given = reconstruct(autoencoder, images)
    error = (given - images).abs().mean(dim=(1, 2, 3)) / 2
    scores = {"psnr": psnr(given, images), "ssim": ssim(given, images), "l1": error}
    about = {"split": split, "images": len(images), "size": list(images.shape[-2:])}
    numbers = {
        name: {"mean": float(value.mean()), "sd": float(value.std(correction=0))} for name, value in scores.items()
    }
    return about | numbers


def write_sheet(path: Path, autoencoder: Autoencoder, images: Sequence[Float[Tensor, "3 H W"]]) -> None:
    """Originals beside what became of them, in pairs, as one PNG."""
    originals = torch.stack(list(images[:_PAIRS]))
    given = reconstruct(autoencoder, originals)
    shown = torch.stack([originals, given], dim=1).flatten(0, 1)  # (pairs, 2, 3, H, W): left original, right given
    pixels = ((shown + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    write_picture(path, Picture(grid(list(pixels), columns=8)), overwrite=True)


def require_report(autoencoder: Autoencoder, path: str) -> dict[str, Any]:
    """The report of an autoencoder that is to be the ground of a latent model.

    Raises:
        ConfigError: nobody looked at its reconstructions.
    """
    if autoencoder.report is None:
        raise ConfigError(
            f"{path} has no {REPORT}, so nobody knows whether its images can be trusted; finish its training "
            "(medtextdiff train synthesis.autoencoder_gi writes it at the end), or, for one of another project, "
            "medtextdiff.api.measure_autoencoder"
        )
    return autoencoder.report
