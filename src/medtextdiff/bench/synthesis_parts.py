"""The table on images from prompts: the generator that ships, and its latent U-Net alone."""

from collections.abc import Callable

import torch
from torch import Tensor

from medtextdiff import api
from medtextdiff.bench.measure import Row, Way, side_by_side
from medtextdiff.bench.models import Bed

_MODEL = "msdm-gi-small"  # that ships
_PROMPT = "Generate an image with 1 polyp."
_BATCH = 4


def generation(bed: Bed, runs: int, steps: int = 25) -> tuple[list[Row], dict[str, float]]:
    """Four images of the generator that ships, guided and not, loaded already; and one pass of its latent U-Net, which
    reads four latents twice, with and without their prompt."""
    rows: list[Row] = []
    images, passes = [], []
    for precision in ("float32", "bf16") if bed.bf16 else ("float32",):
        generator = api.load(_MODEL, device=str(bed.device), precision=precision)
        for guidance in (generator.run.use.guidance, 1.0):
            name = f"{_BATCH} images, {steps} steps, guidance {guidance:g}, {precision}"
            images.append(Way(name, _images(generator, steps, guidance), precision))
        name = f"latent U-Net, a pass of {2 * _BATCH}, {precision}"
        passes.append(Way(name, _pass(bed, generator, precision), precision))
    for ways in (images, passes):
        rows += side_by_side(ways, runs, bed.device)
    return rows, {}


def _images(generator: api.Generator, steps: int, guidance: float) -> Callable[[], Tensor]:
    return lambda: generator.generate([_PROMPT] * _BATCH, steps=steps, guidance=guidance, batch_size=_BATCH)


def _pass(bed: Bed, generator: api.Generator, precision: str) -> Callable[[], Tensor]:
    system = generator.system
    with torch.no_grad():
        text = system.read([_PROMPT] * _BATCH + [""] * _BATCH)
    autoencoder, (height, width) = system.autoencoder, generator.size
    f = autoencoder.downsampling
    shape = (2 * _BATCH, autoencoder.latent_channels, height // f, width // f)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(bed.device)
    timesteps = torch.full((2 * _BATCH,), system.num_timesteps // 2, device=bed.device)

    def run() -> Tensor:
        low = torch.autocast(bed.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
        with torch.no_grad(), low:
            return system.denoiser(latents, timesteps, text)[0]

    return run
