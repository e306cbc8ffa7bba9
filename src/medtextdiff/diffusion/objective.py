"""What a denoiser is trained for: noise schedule, target and loss (arXiv 2006.11239; v: 2202.00512)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from medtextdiff import config
from medtextdiff.types import Denoiser

_COSINE_OFFSET = 0.008  # arXiv 2102.09672, eq. 17
_MAX_BETA = 0.999


class Objective:
    """The forward process and the loss of one Config. Holds no weights; runs on the device of its inputs.

    x_t = a_t x + s_t noise with a_t^2 + s_t^2 = 1. Timesteps are whole numbers in [0, num_timesteps).
    """

    def __init__(self, config: "Config"):
        self.config = config
        # In float64, as guided-diffusion does; float32 only where it meets an image.
        self.alphas_cumprod: Float[Tensor, " T"] = torch.cumprod(1 - _betas(config), dim=0)

    def add_noise(
        self, x: Float[Tensor, "B C H W"], noise: Float[Tensor, "B C H W"], t: Int[Tensor, " B"]
    ) -> Float[Tensor, "B C H W"]:
        """`x` at timestep `t`: a_t x + s_t noise."""
        a, s = self._scales(t, x)
        return a * x + s * noise

    def target(
        self, x: Float[Tensor, "B C H W"], noise: Float[Tensor, "B C H W"], t: Int[Tensor, " B"]
    ) -> Float[Tensor, "B C H W"]:
        """What the denoiser should say at `add_noise(x, noise, t)`."""
        if self.config.target == "eps":
            return noise
        if self.config.target == "x0":
            return x
        a, s = self._scales(t, x)
        return a * noise - s * x

    def to_x0(
        self, x_t: Float[Tensor, "B C H W"], prediction: Float[Tensor, "B C H W"], t: Int[Tensor, " B"]
    ) -> Float[Tensor, "B C H W"]:
        """The clean image that a prediction stands for; the inverse of `target`."""
        a, s = self._scales(t, x_t)
        if self.config.target == "eps":
            return (x_t - s * prediction) / a
        return prediction if self.config.target == "x0" else a * x_t - s * prediction

    def to_noise(
        self, x_t: Float[Tensor, "B C H W"], x0: Float[Tensor, "B C H W"], t: Int[Tensor, " B"]
    ) -> Float[Tensor, "B C H W"]:
        """The noise that parts `x_t` from the clean image `x0`."""
        a, s = self._scales(t, x_t)
        return (x_t - a * x0) / s

    def draw(
        self, images: Float[Tensor, "B C H W"], rng: torch.Generator
    ) -> tuple[Int[Tensor, " B"], Float[Tensor, "B C H W"]]:
        """Timesteps and noise, image by image and on the CPU: the same whatever the batch size and device."""
        times, noises = [], []
        for _ in range(len(images)):
            u = torch.rand((), generator=rng, dtype=torch.float64)
            times.append(math.floor(self.config.num_timesteps * float(u) ** self.config.timestep_power))
            noises.append(torch.randn(images.shape[1:], generator=rng))
        noise = torch.stack(noises).to(device=images.device, dtype=images.dtype)
        return torch.tensor(times, device=images.device), noise

    def loss(self, denoiser: Denoiser, images: Float[Tensor, "B C H W"], rng: torch.Generator) -> Float[Tensor, ""]:
        """The training loss at one random timestep per image; images in [-1, 1].

        Of a network that also learned its variance (twice the channels) only the first half counts.
        """
        t, noise = self.draw(images, rng)
        prediction, _ = denoiser(self.add_noise(images, noise, t), t)
        prediction = prediction[:, : images.shape[1]].float()
        return self.error(prediction, self.target(images, noise, t), t).mean()

    def error(
        self, prediction: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"], t: Int[Tensor, " B"]
    ) -> Float[Tensor, " B"]:
        """The weighted error of each image."""
        distance = F.mse_loss if self.config.loss == "l2" else F.l1_loss
        error = distance(prediction, target.float(), reduction="none").mean(dim=(1, 2, 3))
        return error * self.weight(t).to(error)

    def weight(self, t: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """The weight of timesteps: 1, or min-SNR's (arXiv 2303.09556, eq. 3, told for our target)."""
        if self.config.min_snr is None:
            return torch.ones(t.shape, device=t.device)
        alphas = self._alphas(t)
        snr = alphas / (1 - alphas)
        clipped = snr.clamp(max=self.config.min_snr)
        divisor = {"eps": snr, "v": snr + 1, "x0": torch.ones_like(snr)}[self.config.target]
        return (clipped / divisor).float().to(t.device)

    def _scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self._alphas(t).reshape(-1, 1, 1, 1)
        return alphas.sqrt().to(like), (1 - alphas).sqrt().to(like)

    def _alphas(self, t: Tensor) -> Tensor:
        return self.alphas_cumprod[t.to(self.alphas_cumprod.device)]


class Config(config.Config):
    """Target, loss and noise schedule; the defaults are DDPM's, and those of the ADM checkpoints.

    `min_snr` 5 is the usual value where it is on. `timestep_power` p draws t = T u^p: 2 favours low noise.
    """

    target: Literal["eps", "v", "x0"] = "eps"
    loss: Literal["l1", "l2"] = "l2"
    num_timesteps: int = Field(default=1000, ge=1)
    schedule: Literal["linear", "cosine"] = "linear"
    beta_start: float = Field(default=1e-4, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)
    min_snr: float | None = Field(default=None, gt=0)
    timestep_power: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _rising(self) -> "Config":
        if self.beta_end < self.beta_start:
            raise ValueError(f"beta_end ({self.beta_end}) must not be below beta_start ({self.beta_start})")
        return self

    def build(self) -> Objective:
        """Make it."""
        return Objective(self)


def _betas(config: Config) -> Tensor:
    if config.schedule == "linear":
        return torch.linspace(config.beta_start, config.beta_end, config.num_timesteps, dtype=torch.float64)
    steps = torch.arange(config.num_timesteps + 1, dtype=torch.float64) / config.num_timesteps
    alphas = torch.cos((steps + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * math.pi / 2) ** 2
    return (1 - alphas[1:] / alphas[:-1]).clamp(max=_MAX_BETA)
