"""Samplers: images from noise, to look at what a denoiser has learned."""

import torch
from jaxtyping import Float
from torch import Tensor

from medtextdiff.diffusion.objective import Objective
from medtextdiff.types import Denoiser


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    objective: Objective,
    shape: tuple[int, int, int, int],
    steps: int,
    rng: torch.Generator,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "B C H W"]:
    """Images in [0, 1] of `shape` (B, C, H, W) by deterministic DDIM (arXiv 2010.02502, eq. 12 with sigma 0).

    The noise is drawn image by image on the CPU: the same seed gives the same images whatever the batch size.

    Raises:
        ValueError: fewer than 1 steps, or more than the objective has timesteps.
    """
    num_timesteps = objective.config.num_timesteps
    if not 1 <= steps <= num_timesteps:
        raise ValueError(f"steps must be from 1 to {num_timesteps}, the objective's timesteps; got {steps}")
    x = torch.stack([torch.randn(shape[1:], generator=rng) for _ in range(shape[0])]).to(device)
    # From the noisiest timestep down; after the last comes the clean image.
    times = torch.linspace(num_timesteps - 1, 0, steps + 1)[:-1].round().long().tolist()
    for now, after in zip(times, [*times[1:], None], strict=True):
        t = torch.full((shape[0],), now, device=device)
        prediction = denoiser(x, t)[0][:, : shape[1]]
        x0 = objective.to_x0(x, prediction.to(x), t).clamp(-1, 1)
        if after is None:
            x = x0
            break
        noise = objective.to_noise(x, x0, t)
        x = objective.add_noise(x0, noise, torch.full_like(t, after))
    return (x + 1) / 2
