"""A KL autoencoder: images to a few latent channels on a coarse grid, and back (diffusers' `AutoencoderKL`).

Outside, latents are normalised: about mean 0 and deviation 1 in every channel, by numbers that were estimated from
data and stand in the folder's config.json. diffusers reads them as (z - latents_mean) * scaling_factor / latents_std.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.diffusion import folders
from medtextdiff.diffusion.folders import load_strictly

REPORT = "reconstruction.json"
_IMAGE_CHANNELS = 3


class AutoencoderError(ValueError):
    """An autoencoder that cannot be loaded or used so; the message says why, in one line."""


@dataclass(frozen=True)
class Moments:
    """What the encoder says of images: a normal distribution for every latent number, in normalised units."""

    mean: Float[Tensor, "B C h w"]
    std: Float[Tensor, "B C h w"]

    def draw(self, rng: torch.Generator) -> Float[Tensor, "B C h w"]:
        """Latents drawn image by image and on the CPU: the same whatever the batch size and device."""
        noise = torch.stack([torch.randn(self.mean.shape[1:], generator=rng) for _ in range(len(self.mean))])
        return self.mean + self.std * noise.to(self.mean)


class Autoencoder(nn.Module):
    """An `AutoencoderKL` with its normalisation. With `patch` p it sees squares of p x p pixels as channels.

    `report` is what `reconstruction.json` in its folder holds: how well it gives held-out images back; None: nobody
    looked. Not trainable means: no parameter requires a gradient.
    """

    def __init__(self, vae: Any, trainable: bool = False, report: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(trainable)
        self.patch = _patch(vae.config.in_channels)
        self.trainable, self.report = trainable, report
        self._settle()
        self.train(trainable)

    @property
    def latent_channels(self) -> int:
        """C of the latents."""
        return int(self.vae.config.latent_channels)

    @property
    def downsampling(self) -> int:
        """Image pixels along a side for one latent position; each side of an image must be a multiple."""
        return self.patch * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def normalisation(self) -> tuple[list[float], list[float]]:
        """What is taken from each channel, and what it is multiplied with then."""
        return self._shifts, self._scales

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Moments:
        """Normalised latents of images in [-1, 1], as a distribution.

        Raises:
            ValueError: a side that is no multiple of `downsampling`.
        """
        mean, logvar = self.raw_moments(images)
        return Moments((mean - self._shift(mean)) * self._scale(mean), (0.5 * logvar).exp() * self._scale(mean))

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Images, about in [-1, 1], of normalised latents."""
        return self.decode_raw(latents / self._scale(latents) + self._shift(latents))

    def raw_moments(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, Tensor]:
        """Mean and log variance as the network gives them, before normalisation; log variance in [-30, 20]."""
        height, width = images.shape[-2:]
        if height % self.downsampling or width % self.downsampling:
            raise ValueError(f"image sides must be multiples of {self.downsampling}; got {height} x {width}: resize")
        x = F.pixel_unshuffle(images, self.patch) if self.patch > 1 else images  # (B, 3 p^2, H/p, W/p)
        moments = self.vae.encoder(x)
        if self.vae.quant_conv is not None:
            moments = self.vae.quant_conv(moments)
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def decode_raw(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Images of latents as the network knows them."""
        x = latents if self.vae.post_quant_conv is None else self.vae.post_quant_conv(latents)
        x = self.vae.decoder(x)
        return F.pixel_shuffle(x, self.patch) if self.patch > 1 else x

    @torch.no_grad()
    def normalise(self, images: Iterable[Float[Tensor, "B 3 H W"]]) -> None:
        """Estimate each channel's mean and deviation over the latents of `images`, and keep them.

        Raises:
            ValueError: no images, or a channel that says nothing (its deviation is 0).
        """
        count, total, squares = 0, torch.zeros(1), torch.zeros(1)
        for batch in images:
            mean, logvar = self.raw_moments(batch)
            mean, variance = mean.double(), logvar.double().exp()
            count += mean.numel() // mean.shape[1]
            total = total + mean.sum(dim=(0, 2, 3)).cpu()
            squares = squares + (mean**2 + variance).sum(dim=(0, 2, 3)).cpu()
        if not count:
            raise ValueError("no images to estimate the latents' scale from")
        means = total / count
        deviations = (squares / count - means**2).clamp(min=0).sqrt()
        if not bool((deviations > 0).all()):
            raise ValueError("a latent channel is the same in every image; train the autoencoder longer")
        overall = float((squares.mean() / count - means.mean() ** 2).sqrt())
        self.vae.register_to_config(
            scaling_factor=1 / overall,
            shift_factor=float(means.mean()),
            latents_mean=means.tolist(),
            latents_std=(deviations / overall).tolist(),  # diffusers multiplies by scaling_factor beside
        )
        self._settle()

    def train(self, mode: bool = True) -> "Autoencoder":
        """Training mode; a frozen autoencoder stays in evaluation mode."""
        return super().train(mode and self.trainable)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `Config` and `AutoencoderKL.from_pretrained` load, with the report if there is one."""
        folders.save_plainly(self.vae, folder)
        if self.report is not None:
            (Path(folder) / REPORT).write_text(json.dumps(self.report, indent=2) + "\n", encoding="utf-8")

    def _settle(self) -> None:
        """Read the normalisation from the config, as diffusers' pipelines read it."""
        told = self.vae.config
        scale = float(told.scaling_factor or 1.0)
        ones = [1.0] * self.latent_channels
        shifts = told.latents_mean or [told.shift_factor or 0.0] * self.latent_channels
        self._shifts = [float(value) for value in shifts]
        self._scales = [scale / float(std) for std in (told.latents_std or ones)]

    def _shift(self, like: Tensor) -> Tensor:
        return torch.tensor(self._shifts, dtype=like.dtype, device=like.device)[:, None, None]

    def _scale(self, like: Tensor) -> Tensor:
        return torch.tensor(self._scales, dtype=like.dtype, device=like.device)[:, None, None]


class Config(config.Config):
    """An autoencoder from a folder: a diffusers `AutoencoderKL`, or a run whose component `autoencoder` is one."""

    path: str = ""
    trainable: bool = False

    def build(self) -> Autoencoder:
        """Load it.

        Raises:
            AutoencoderError: no folder was named, it is not there, or a file is missing, damaged or another's.
        """
        from diffusers import AutoencoderKL  # heavy

        if not self.path:
            raise AutoencoderError(
                "no autoencoder: train one (medtextdiff train synthesis.autoencoder_gi ...) and name its folder, "
                "--set model.autoencoder.path=RUN/autoencoder"
            )
        inside = Path(self.path) / "autoencoder"
        folder = inside if inside.is_dir() else Path(self.path)
        vae = load_strictly(AutoencoderKL, str(folder), "an autoencoder", AutoencoderError)
        return Autoencoder(vae, trainable=self.trainable, report=_read_report(folder))

    def saved(self, path: str) -> "Config":
        """The config of this autoencoder once it was written to `path`."""
        return self.replace(path=path)


class Scratch(config.Config):
    """An autoencoder with random weights (from torch's global generator) to be trained.

    The first step down is a regrouping of pixels (`patch`), each further width halves again: patch 2 and three widths
    give latents an eighth as wide and as high as the image.
    """

    patch: int = Field(default=2, ge=1)
    block_out_channels: tuple[int, ...] = (48, 96, 192)
    layers_per_block: int = Field(default=1, ge=1)
    latent_channels: int = Field(default=8, ge=1)
    norm_num_groups: int = Field(default=16, ge=1)
    trainable: bool = True

    @classmethod
    def tiny(cls) -> "Scratch":
        """Small enough for tests: latents a fourth as wide, 10 thousand parameters."""
        return cls(block_out_channels=(8, 16), latent_channels=4, norm_num_groups=4)

    def build(self) -> Autoencoder:
        """Make it.

        Raises:
            AutoencoderError: widths and groups that do not go together.
        """
        from diffusers import AutoencoderKL  # heavy

        levels, channels = len(self.block_out_channels), _IMAGE_CHANNELS * self.patch**2
        if not levels or any(width % self.norm_num_groups for width in self.block_out_channels):
            raise AutoencoderError(
                f"widths {self.block_out_channels} must be multiples of norm_num_groups, {self.norm_num_groups}"
            )
        vae = AutoencoderKL(
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=self.block_out_channels,
            layers_per_block=self.layers_per_block,
            latent_channels=self.latent_channels,
            norm_num_groups=self.norm_num_groups,
            scaling_factor=1.0,
            force_upcast=False,
            use_quant_conv=False,
            use_post_quant_conv=False,
            mid_block_add_attention=False,
        )
        return Autoencoder(vae, trainable=self.trainable)

    def saved(self, path: str) -> Config:
        """The config of this autoencoder once it was trained and written to `path`."""
        return Config(path=path)


def _patch(in_channels: int) -> int:
    side = math.isqrt(in_channels // _IMAGE_CHANNELS)
    if not side or in_channels != _IMAGE_CHANNELS * side**2:
        raise AutoencoderError(f"an autoencoder with {in_channels} input channels: 3, 12, 48 are known")
    return side


def _read_report(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, OSError):
        raise AutoencoderError(f"{folder / REPORT} is damaged; train the autoencoder again, or restore it") from None
    return found if isinstance(found, dict) else None
