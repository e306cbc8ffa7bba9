"""A denoiser as feature extractor: images to levels.

An image is noised to each of a few timesteps, the denoiser reads all of them in one batch, and for each tapped
decoder block the maps of the timesteps lie behind each other in the channels, timestep by timestep
(arXiv 2112.03126; arXiv 2407.05323 uses timesteps 50, 150, 250).
"""

import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import NonNegativeInt
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.diffusion import objective
from medtextdiff.types import Levels

Noise = Literal["shared", "none", "per_image"]
Normalise = Literal["none", "rms", "channel"]


@runtime_checkable
class Backbone(Protocol):
    """What a feature extractor needs of a denoiser; strides are in image pixels."""

    @property
    def multiple(self) -> int:
        """Each side of an image must be a multiple of this."""
        ...

    def enter(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """What noise is added to: the images themselves, or their latents."""
        ...

    def levels(self, x: Float[Tensor, "B C h w"], t: Int[Tensor, " B"], taps: Sequence[int]) -> Levels:
        """One map per tap."""
        ...

    def channels(self, taps: Sequence[int]) -> tuple[int, ...]:
        """Of each map."""
        ...

    def strides(self, taps: Sequence[int]) -> tuple[int, ...]:
        """Image pixels per grid cell of each map."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its weights; frozen where none requires a gradient."""
        ...


class Config(config.Config):
    """Which levels are read, at which noise.

    noise: "shared": one fixed noise for every image and timestep (as published); "per_image": a noise that
        follows from the image's own values, so it is the same image's in any batch; "none": the image is only
        scaled by sqrt(abar), which makes the levels a plain function of the image.
    noise_seed: 40 as published; the published noise is that of a CPU generator at 256 x 256.
    normalise: "rms" divides each timestep's map by its root mean square, "channel" standardises each channel over
        the image; "none" as published.
    image: the finest level also carries the image's own pixels (unnoised, unshuffled to the level's grid).
    schedule: the denoiser's noise schedule; its default is DDPM's and the ADM checkpoints'.
    channel_order: "bgr" reproduces the published code, which fed BGR to a denoiser trained on RGB.
    """

    taps: tuple[int, ...]
    timesteps: tuple[NonNegativeInt, ...] = (50, 150, 250)
    noise: Noise = "shared"
    noise_seed: NonNegativeInt = 40
    normalise: Normalise = "none"
    image: bool = False
    channel_order: Literal["rgb", "bgr"] = "rgb"
    schedule: objective.Config = objective.Config()

    def build(self) -> "Features":
        """The extractor.

        Raises:
            ConfigError: no taps, no timesteps, or a timestep beyond the schedule.
        """
        if not self.taps or not self.timesteps:
            raise config.ConfigError("features: give at least one tap and one timestep, e.g. taps=1,3 timesteps=50")
        num_timesteps = self.schedule.num_timesteps
        if max(self.timesteps) >= num_timesteps:
            raise config.ConfigError(
                f"features: timesteps go from 0 to {num_timesteps - 1}, got {', '.join(map(str, self.timesteps))}"
            )
        return Features(self)


class Features:
    """Images to levels through a denoiser. It has no weights of its own: the caller keeps the denoiser."""

    def __init__(self, settings: Config) -> None:
        self.settings = settings
        self._objective = settings.schedule.build()

    def channels(self, denoiser: Backbone) -> tuple[int, ...]:
        """C of each level."""
        settings = self.settings
        widths = [len(settings.timesteps) * width for width in denoiser.channels(settings.taps)]
        if settings.image:
            widths[-1] += 3 * self.strides(denoiser)[-1] ** 2
        return tuple(widths)

    def strides(self, denoiser: Backbone) -> tuple[int, ...]:
        """Image pixels per grid cell of each level."""
        return tuple(denoiser.strides(self.settings.taps))

    def __call__(
        self, denoiser: Backbone, images: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B C h w"] | None = None
    ) -> Levels:
        """One Float[B T*C_k h_k w_k] per tap; sides of `images` must be multiples of `denoiser.multiple`.

        Levels of a frozen denoiser carry no graph. The shared noise of a size other than 256 x 256 is drawn anew
        at that size from the same seed: it is fixed too, but no part of the 256 x 256 one. An exported graph, which
        cannot draw it, is given what `noise` gives for the same images.
        """
        settings = self.settings
        images = self._ordered(images)
        frozen = not any(weight.requires_grad for weight in denoiser.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            entered = denoiser.enter(images)
            # The seeds of `per_image` are the image's own: its latents differ by rounding from batch to batch.
            x, t = self.noised(entered, self._noise(images, entered.shape) if noise is None else noise)
            maps = denoiser.levels(x, t, settings.taps)
            if not torch.is_autocast_enabled(images.device.type):
                maps = [level.to(images.dtype) for level in maps]  # a half-precision denoiser, a float32 head
            levels = [self._by_image(level, images.shape[0]) for level in maps]
        if settings.image:
            pixels = F.pixel_unshuffle(images, self.strides(denoiser)[-1])
            levels[-1] = torch.cat([levels[-1], pixels.to(levels[-1].dtype)], dim=1)
        return levels

    def noise(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """The noise that `images` get, in the denoiser's order of channels."""
        return self._noise(self._ordered(images), images.shape)

    def noised(
        self, images: Float[Tensor, "B C h w"], noise: Float[Tensor, "B C h w"] | None = None
    ) -> tuple[Float[Tensor, "N C h w"], Int[Tensor, " N"]]:
        """Every image (or its latents) at every timestep, N = B * T with an image's timesteps beside each other."""
        steps = torch.tensor(self.settings.timesteps, device=images.device)
        x = images.repeat_interleave(len(steps), dim=0)
        noise = (self._noise(images, images.shape) if noise is None else noise).repeat_interleave(len(steps), dim=0)
        t = steps.repeat(images.shape[0])
        return self._objective.add_noise(x, noise, t), t

    def _ordered(self, images: Tensor) -> Tensor:
        return images.flip(1) if self.settings.channel_order == "bgr" else images

    def _noise(self, images: Tensor, batch: Sequence[int]) -> Tensor:
        """The noise of `images`, of the shape `batch` [B, ...]: theirs, or that of their latents."""
        settings, shape = self.settings, tuple(batch[1:])
        if settings.noise == "none":
            return images.new_zeros(batch)
        if settings.noise == "shared":
            return _seeded(settings.noise_seed, shape).to(images).expand(batch)
        seeds = [settings.noise_seed ^ zlib.crc32(image.float().numpy().tobytes()) for image in images.detach().cpu()]
        return torch.stack([_draw(seed, shape) for seed in seeds]).to(images)

    def _by_image(self, level: Tensor, num_images: int) -> Tensor:
        if self.settings.normalise == "rms":
            level = level / level.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)
        elif self.settings.normalise == "channel":
            level = _standardised(level)
        steps = level.unflatten(0, (num_images, -1)).unbind(1)  # T of (B, C, h, w)
        return steps[0] if len(steps) == 1 else torch.cat(steps, dim=1)  # unlike reshape, cat keeps channels last


def _standardised(level: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h w"]:
    """Each channel with mean 0 and variance 1; zeros where a level has one place, which `F.instance_norm` refuses."""
    values = level.float()
    centred = values - values.mean(dim=(2, 3), keepdim=True)
    return (centred * (centred.square().mean(dim=(2, 3), keepdim=True) + 1e-5).rsqrt()).to(level.dtype)


def _draw(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))  # CPU: other devices draw other numbers


@lru_cache(maxsize=8)
def _seeded(seed: int, shape: tuple[int, ...]) -> Tensor:
    return _draw(seed, shape)
