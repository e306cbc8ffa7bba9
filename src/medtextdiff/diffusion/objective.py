"""What a denoiser is trained for: noise schedule, target and loss.

Sources: arXiv 2006.11239 (DDPM), 2202.00512 (v), 2209.03003 and 2403.03206 (straight paths, logit-normal times),
2305.08891 (zero terminal SNR), 2303.09556 (min-SNR).
"""

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

    x_t = a_t x + s_t noise, with a_t^2 + s_t^2 = 1, or a_t + s_t = 1 on straight paths. Timesteps are whole numbers
    in [0, num_timesteps); the last one is the noisiest.
    """

    def __init__(self, config: "Config"):
        self.config = config
        # In float64, as guided-diffusion does; float32 only where it meets an image.
        self._a, self._s = _signal_and_noise(config)
        self.alphas_cumprod: Float[Tensor, " T"] = self._a**2

    def scales(self, t: int) -> tuple[float, float]:
        """a_t and s_t at one timestep."""
        return float(self._a[t]), float(self._s[t])

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
        if self.config.target == "flow":
            return noise - x
        a, s = self._scales(t, x)
        return a * noise - s * x

    def to_x0(
        self, x_t: Float[Tensor, "B C H W"], prediction: Float[Tensor, "B C H W"], t: Int[Tensor, " B"]
    ) -> Float[Tensor, "B C H W"]:
        """The clean image that a prediction stands for; the inverse of `target`."""
        a, s = self._scales(t, x_t)
        if self.config.target == "eps":
            return (x_t - s * prediction) / a
        if self.config.target == "flow":
            return x_t - s * prediction
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
            times.append(self._draw_time(rng))
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
        a, s = self._a[t.cpu()], self._s[t.cpu()]
        snr = (a / s) ** 2
        clipped = snr.clamp(max=self.config.min_snr)
        # An error of the prediction is so many times the error of x0 that it stands for, squared.
        divisor = {"eps": snr, "v": snr + 1, "x0": torch.ones_like(snr), "flow": s**-2}[self.config.target]
        return (clipped / divisor).float().to(t.device)

    def _draw_time(self, rng: torch.Generator) -> int:
        last = self.config.num_timesteps - 1
        if self.config.timesteps == "logit_normal":
            u = float(torch.sigmoid(torch.randn((), generator=rng, dtype=torch.float64)))
        else:
            u = float(torch.rand((), generator=rng, dtype=torch.float64))
        return min(last, math.floor(self.config.num_timesteps * u**self.config.timestep_power))

    def _scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        a, s = (values[t.cpu()].reshape(-1, 1, 1, 1).to(like) for values in (self._a, self._s))
        return a, s


class Config(config.Config):
    """Target, loss and noise schedule; the defaults are DDPM's, and those of the ADM checkpoints.

    target: "flow" is noise - x, and goes with the schedule "straight". schedule: "scaled_linear" is Stable
    Diffusion's: linear in the square root of beta. zero_terminal_snr: the last timestep is noise alone, as it is where
    sampling begins; then the noise says nothing of the image, so "eps" cannot be. `min_snr` 5 is the usual value where
    it is on; with "v" a last timestep of noise alone then weighs 0, and is not trained. `timestep_power` p draws
    t = T u^p: 2 favours low noise; "logit_normal" favours the middle.
    """

    target: Literal["eps", "v", "x0", "flow"] = "eps"
    loss: Literal["l1", "l2"] = "l2"
    num_timesteps: int = Field(default=1000, ge=1)
    schedule: Literal["linear", "scaled_linear", "cosine", "straight"] = "linear"
    beta_start: float = Field(default=1e-4, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)
    zero_terminal_snr: bool = False
    min_snr: float | None = Field(default=None, gt=0)
    timesteps: Literal["uniform", "logit_normal"] = "uniform"
    timestep_power: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.beta_end < self.beta_start:
            raise ValueError(f"beta_end ({self.beta_end}) must not be below beta_start ({self.beta_start})")
        if (self.target == "flow") != (self.schedule == "straight"):
            raise ValueError("target flow and schedule straight go together; set both or none")
        if self.zero_terminal_snr and self.target == "eps":
            raise ValueError("with zero_terminal_snr the target cannot be eps; use v or x0")
        if self.zero_terminal_snr and self.num_timesteps < 2:
            raise ValueError("zero_terminal_snr needs at least 2 timesteps")
        return self

    def build(self) -> Objective:
        """Make it."""
        return Objective(self)


def _signal_and_noise(config: Config) -> tuple[Tensor, Tensor]:
    """a_t and s_t of every timestep, in float64."""
    if config.schedule == "straight":
        s = torch.arange(1, config.num_timesteps + 1, dtype=torch.float64) / config.num_timesteps
        return 1 - s, s
    alphas = torch.cumprod(1 - _betas(config), dim=0)
    a = alphas.sqrt()
    if config.zero_terminal_snr:  # arXiv 2305.08891, algorithm 1: the first a stays, the last becomes 0
        a = (a - a[-1]) * a[0] / (a[0] - a[-1])
        return a, (1 - a**2).sqrt()
    return a, (1 - alphas).sqrt()


def _betas(config: Config) -> Tensor:
    if config.schedule == "linear":
        return torch.linspace(config.beta_start, config.beta_end, config.num_timesteps, dtype=torch.float64)
    if config.schedule == "scaled_linear":
        roots = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, config.num_timesteps, dtype=torch.float64)
        return roots**2
    steps = torch.arange(config.num_timesteps + 1, dtype=torch.float64) / config.num_timesteps
    alphas = torch.cos((steps + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * math.pi / 2) ** 2
    return (1 - alphas[1:] / alphas[:-1]).clamp(max=_MAX_BETA)
