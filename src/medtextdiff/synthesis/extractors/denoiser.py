"""Features of a denoiser of ours: channel means of a few decoder levels at one noise level (arXiv 2112.03126)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, NonNegativeInt
from torch import Tensor

from medtextdiff import config
from medtextdiff.diffusion import denoiser as denoiser_part
from medtextdiff.diffusion import objective
from medtextdiff.synthesis.extraction import Extracted, sha256_of


class Config(config.Config):
    """Which denoiser, and what is read of it.

    Fields:
        path: a folder of a `UNet2DModel` on pixels; the default ships.
        taps: decoder blocks, counted as guided-diffusion's output_blocks.
        timestep: of the noise level; no noise is added, the image is only scaled, so features are the image's alone.
        size: side of the square it reads.
    """

    path: str = "builtin:ddpm-small/denoiser"
    patch: int | None = None
    taps: tuple[int, ...] = (1, 3, 5)
    timestep: NonNegativeInt = 50
    size: int = Field(default=128, ge=8)
    schedule: objective.Config = objective.Config()

    @classmethod
    def tiny(cls, folder: Path) -> "Config":
        """Write a random denoiser into `folder` and give its config."""
        torch.manual_seed(0)
        denoiser_part.Scratch.tiny().build().save_pretrained(folder)
        return cls(path=str(folder), taps=(0, 1), size=32)

    def build(self) -> "Extractor":
        """Load it.

        Raises:
            DenoiserError: no such folder, or a wrong one; ConfigError: taps or a size it does not have.
        """
        network = denoiser_part.Config(path=self.path, patch=self.patch).build().eval()
        if self.size % network.multiple:
            raise config.ConfigError(f"extractor: size must be a multiple of {network.multiple}; got {self.size}")
        for tap in self.taps:
            if not -1 <= tap < network.num_blocks:
                raise config.ConfigError(f"extractor: taps go from -1 to {network.num_blocks - 1}; got {tap}")
        return Extractor(self, network)


class Extractor(torch.nn.Module):
    """Images to channel means."""

    standardised = True

    def __init__(self, settings: Config, network: denoiser_part.Denoiser) -> None:
        super().__init__()
        self.denoiser, self.settings, self.size = network, settings, settings.size
        self._objective = settings.schedule.build()
        self.about = {
            "extractor": f"denoiser {Path(settings.path).parent.name}/{Path(settings.path).name}",
            "extractor sha256": sha256_of(Path(settings.path)),
            "features": f"means of {sum(network.channels(settings.taps))} channels, decoder blocks "
            f"{', '.join(map(str, settings.taps))}, t = {settings.timestep}, {settings.size} px, standardised",
        }

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Extracted:
        """Of images in [-1, 1]."""
        t = torch.full((len(images),), self.settings.timestep, device=images.device)
        x = self._objective.add_noise(images, torch.zeros_like(images), t)
        levels = self.denoiser.levels(x, t, self.settings.taps)
        vectors = torch.cat([level.mean(dim=(2, 3)) for level in levels], dim=1)
        maps = torch.cat([F.adaptive_avg_pool2d(level, 3) for level in levels], dim=1)
        return Extracted(vectors, maps)
