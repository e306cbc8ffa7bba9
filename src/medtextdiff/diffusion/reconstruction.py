"""How alike an image and its reconstruction are: the loss of an autoencoder, and the numbers of its report."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from medtextdiff import config
from medtextdiff.diffusion.autoencoder import Autoencoder
from medtextdiff.types import Batch

Loss = Callable[[Any, Batch, torch.Generator], dict[str, Tensor]]

_WINDOW, _SIGMA = 11, 1.5  # SSIM's (Wang et al. 2004)
_PATCH, _STRIDE = 16, 8  # of the local spectrum
_FLOOR = 0.1  # of a spectral magnitude: about what 8-bit noise has; weaker waves are not told apart


class Config(config.Config):
    """The loss of an autoencoder: a weighted sum of means over pixels, and a little of the latents' divergence.

    l1, mse: of pixels in [-1, 1]. ssim: 1 - SSIM. spectrum: difference of the logarithms of local magnitude spectra
    (16 x 16 windows), which keeps texture where its exact place cannot be kept. kl: divergence from a standard normal,
    mean over latent numbers.
    """

    l1: float = Field(default=1.0, ge=0)
    mse: float = Field(default=0.0, ge=0)
    ssim: float = Field(default=0.2, ge=0)
    spectrum: float = Field(default=0.02, ge=0)
    kl: float = Field(default=1e-3, ge=0)

    def build(self) -> Loss:
        """A function `loss(model, batch, rng) -> {"loss": ..., "l1": ..., ...}`."""

        def loss(model: Autoencoder, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
            mean, logvar = model.raw_moments(batch.images)
            noise = torch.stack([torch.randn(mean.shape[1:], generator=rng) for _ in range(len(mean))]).to(mean)
            decoded = model.decode_raw(mean + (0.5 * logvar).exp() * noise)
            with torch.autocast(decoded.device.type, enabled=False):
                terms = self._terms(decoded.float(), batch.images.float()) | {"kl": divergence(mean, logvar)}
            total = sum(getattr(self, name) * value for name, value in terms.items())
            return {"loss": torch.as_tensor(total), **terms}

        return loss

    def _terms(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        terms = {"l1": F.l1_loss(images, targets), "mse": F.mse_loss(images, targets)}
        if self.ssim:
            terms["ssim"] = 1 - ssim(images, targets).mean()
        if self.spectrum:
            terms["spectrum"] = spectral_distance(images, targets).mean()
        return terms


def divergence(mean: Float[Tensor, "B C h w"], logvar: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence from a standard normal, in nats, mean over the latent numbers."""
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()


def ssim(images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
    """Structural similarity of images in [-1, 1], mean over places and channels; 1 is the same image.

    Gaussian windows of 11 x 11 (Wang et al., IEEE TIP 2004), smaller for smaller images; no padding.
    """
    size = min(_WINDOW, *images.shape[-2:])
    size -= 1 - size % 2
    at = torch.arange(size, dtype=images.dtype, device=images.device) - size // 2
    kernel = torch.exp(-0.5 * (at / _SIGMA) ** 2)
    kernel = kernel / kernel.sum()

    def blur(x: Tensor) -> Tensor:
        x = x.flatten(0, 1)[:, None]  # (B C, 1, H, W)
        return F.conv2d(F.conv2d(x, kernel[None, None, :, None]), kernel[None, None, None, :])

    # Five maps at once: one pass over memory.
    maps = blur(torch.cat([images, targets, images**2, targets**2, images * targets]))
    mean_x, mean_y, square_x, square_y, product = maps.unflatten(0, (5, -1)).unbind()
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # the range of values is 2
    variances = square_x - mean_x**2 + square_y - mean_y**2
    covariance = product - mean_x * mean_y
    index = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    return index.unflatten(0, images.shape[:2]).mean(dim=(1, 2, 3, 4))


def psnr(images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
    """Peak signal-to-noise ratio in dB of images in [-1, 1]; 100 for the same image."""
    error = ((images - targets) / 2).square().mean(dim=(1, 2, 3))
    return -10 * error.clamp(min=1e-10).log10()


def spectral_distance(images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
    """Mean difference of log magnitudes over local spectra: does an image have as much of each wave, around each place.

    0 for the same image; shifting texture within its window changes little. Images smaller than a window are one.
    """
    magnitudes = _spectra(torch.cat([images, targets]))
    ours, theirs = (magnitudes + _FLOOR).log().chunk(2)
    return (ours - theirs).abs().flatten(1).mean(dim=1)


def _spectra(images: Float[Tensor, "B C H W"]) -> Tensor:
    size = min(_PATCH, *images.shape[-2:])
    stride = min(_STRIDE, size)
    window = torch.hann_window(size, periodic=False, dtype=images.dtype, device=images.device)
    patches = images.unfold(2, size, stride).unfold(3, size, stride)  # (B, C, n, m, size, size)
    waves = torch.fft.rfft2(patches * (window[:, None] * window))
    # Not abs(): its gradient at 0 is no number.
    return (waves.real.square() + waves.imag.square() + 1e-8).sqrt()
