"""Samplers: from noise to images or latents, by any denoiser and objective, with guidance and a seed per image.

ddim: arXiv 2010.02502, with `eta` between deterministic (0) and DDPM's noise (1). euler: the same without noise, which
on straight paths is Euler's method. dpm++: the second-order multistep solver of arXiv 2211.01095 (2M).
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from medtextdiff import config
from medtextdiff.diffusion.objective import Objective
from medtextdiff.types import Denoiser

Sampler = Literal["ddim", "euler", "dpm++"]
Predict = Callable[[Tensor, Tensor], Tensor]  # (x_t [B C H W], t [B]) -> the denoiser's prediction


class Config(config.Config):
    """How to sample. `guidance` is the usual scale: 1 is the conditional prediction alone, 0 the unconditional one.

    rescale: how much of the guided prediction's spread is brought back to the conditional one's (arXiv 2305.08891).
    spacing: "trailing" begins at the noisiest timestep and ends above 0; "linspace" goes on to timestep 0.
    """

    sampler: Sampler = "dpm++"
    steps: int = Field(default=25, ge=1)
    guidance: float = Field(default=2.0, ge=0, le=30)
    rescale: float = Field(default=0.0, ge=0, le=1)
    eta: float = Field(default=0.0, ge=0, le=1)
    spacing: Literal["trailing", "linspace"] = "trailing"

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.eta and self.sampler != "ddim":
            raise ValueError(f"eta {self.eta} is for the sampler ddim; {self.sampler} adds no noise")
        return self


class Noise:
    """The random numbers of a batch of images: each image has its own generator, so company changes nothing."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], device: torch.device | str = "cpu") -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape, self._device = shape, device

    def draw(self) -> Float[Tensor, "B *shape"]:
        """The next standard normal numbers of every image, drawn on the CPU."""
        return torch.stack([torch.randn(self._shape, generator=rng) for rng in self._generators]).to(self._device)


@torch.no_grad()
def solve(
    predict: Predict,
    objective: Objective,
    settings: Config,
    noise: Noise,
    clamp: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "B C H W"]:
    """What the denoiser makes of the first draw of `noise`. `clamp` is applied to each estimate of the clean image.

    Raises:
        ValueError: more steps than the objective has timesteps.
    """
    times = timesteps(settings, objective.config.num_timesteps)
    x = noise.draw()
    before: tuple[Tensor, float] | None = None  # the last estimate, and its log of signal to noise
    for now, after in zip(times, [*times[1:], None], strict=True):
        t = torch.full((len(x),), now, device=x.device)
        x0 = objective.to_x0(x, predict(x, t).to(x), t)
        x0 = x0 if clamp is None else clamp(x0)
        if after is None:
            return x0
        here, there = objective.scales(now), objective.scales(after)
        if settings.sampler == "dpm++":
            x = _multistep(x, x0, here, there, before)
            before = x0, _log_ratio(here)
        else:
            x = _ddim(x, x0, here, there, settings.eta, noise)
    raise AssertionError("times end with None")


def timesteps(settings: Config, num_timesteps: int) -> list[int]:
    """The timesteps that are visited, from the noisiest down, each once.

    Raises:
        ValueError: more steps than there are timesteps.
    """
    if not 1 <= settings.steps <= num_timesteps:
        raise ValueError(f"steps must be from 1 to {num_timesteps}, the objective's timesteps; got {settings.steps}")
    last = num_timesteps - 1
    if settings.spacing == "linspace" and settings.steps > 1:
        return torch.linspace(last, 0, settings.steps, dtype=torch.float64).round().long().tolist()
    return [last - k * num_timesteps // settings.steps for k in range(settings.steps)]


def guide(
    conditional: Float[Tensor, "B C H W"], unconditional: Float[Tensor, "B C H W"], scale: float, rescale: float = 0.0
) -> Float[Tensor, "B C H W"]:
    """Classifier-free guidance (arXiv 2207.12598): unconditional + scale (conditional - unconditional).

    MSDM's published weight w is `scale` = w + 1.
    """
    guided = unconditional + scale * (conditional - unconditional)
    if not rescale:
        return guided
    wanted, has = (value.std(dim=(1, 2, 3), keepdim=True) for value in (conditional, guided))
    return guided * (rescale * wanted / has.clamp(min=1e-8) + 1 - rescale)


def sample(
    denoiser: Denoiser,
    objective: Objective,
    shape: tuple[int, int, int, int],
    steps: int,
    rng: torch.Generator,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "B C H W"]:
    """Images in [0, 1] of `shape` (B, C, H, W) by deterministic DDIM, to look at what a denoiser of images learned.

    Each image has a seed from `rng`: the same `rng` gives the same images whatever the batch size.

    Raises:
        ValueError: fewer than 1 steps, or more than the objective has timesteps.
    """
    if steps < 1:
        raise ValueError(f"steps must be from 1 to {objective.config.num_timesteps}; got {steps}")
    seeds = torch.randint(2**62, (shape[0],), generator=rng).tolist()
    noise = Noise(seeds, shape[1:], device)

    def predict(x: Tensor, t: Int[Tensor, " B"]) -> Tensor:
        return denoiser(x, t)[0][:, : shape[1]]

    settings = Config(sampler="ddim", steps=steps)
    return (solve(predict, objective, settings, noise, clamp=lambda x: x.clamp(-1, 1)) + 1) / 2


def _ddim(
    x: Tensor, x0: Tensor, here: tuple[float, float], there: tuple[float, float], eta: float, noise: Noise
) -> Tensor:
    """To the next timestep: its share of the clean image, of the noise that was found, and (eta) of new noise."""
    (a, s), (a_next, s_next) = here, there
    found = (x - a * x0) / s
    # The variance of x_next given x and x0, times eta^2 (eq. 16; written for any a and s).
    fresh = eta * s_next / s * math.sqrt(max(0.0, s**2 - (a / a_next * s_next) ** 2))
    x = a_next * x0 + math.sqrt(s_next**2 - fresh**2) * found
    return x + fresh * noise.draw() if eta else x


def _multistep(
    x: Tensor,
    x0: Tensor,
    here: tuple[float, float],
    there: tuple[float, float],
    before: tuple[Tensor, float] | None,
) -> Tensor:
    """DPM-Solver++(2M), arXiv 2211.01095, algorithm 2; its first step is DDIM's."""
    (_, s), (a_next, s_next) = here, there
    now, then = _log_ratio(here), _log_ratio(there)
    estimate = x0
    # From pure noise (a = 0) the step is endless, and the estimate made there says little of the slope.
    if before is not None and math.isfinite(before[1]):
        ratio = (now - before[1]) / (then - now)
        estimate = x0 + (x0 - before[0]) / (2 * ratio)
    shrink = math.exp(now - then) if math.isfinite(now) else 0.0
    return s_next / s * x + a_next * (1 - shrink) * estimate


def _log_ratio(scales: tuple[float, float]) -> float:
    a, s = scales
    return math.log(a / s) if a > 0 else -math.inf
