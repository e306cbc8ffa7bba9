"""How alike generated images are to each other: multi-scale structural similarity."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, finest scale first
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def num_scales(side: int) -> int:
    """Scales that images of this shorter side allow: the window of 11 must fit into the coarsest.

    Raises:
        ValueError: images smaller than the window.
    """
    if side < _WINDOW:
        raise ValueError(f"structural similarity needs images of at least {_WINDOW} pixels a side; these have {side}")
    return min(len(_WEIGHTS), int(np.log2(side / _WINDOW)) + 1)


def ms_ssim(a: Float[Tensor, "B C H W"], b: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
    """Multi-scale SSIM of pairs of images in [0, 1]; 1 = equal.

    Small images have fewer scales (4 at 128 px), whose weights are made to sum to 1; figures of another number of
    scales do not compare.
    """
    weights = torch.tensor(_WEIGHTS[: num_scales(min(a.shape[-2:]))], dtype=a.dtype)
    weights = weights / weights.sum()
    value = a.new_ones(len(a), a.shape[1])
    for scale, weight in enumerate(weights):
        structure, full = _ssim(a, b)
        term = full if scale == len(weights) - 1 else structure
        value = value * term.clamp_min(0) ** weight  # negative structure has no fractional power
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return value.mean(dim=1)


def pair_similarities(images: Float[Tensor, "N C H W"], *, seed: int, batch: int = 32) -> list[float]:
    """MS-SSIM of N // 2 random pairs that share no image; their mean is low where a set is diverse.

    Raises:
        ValueError: fewer than two images.
    """
    if len(images) < 2:
        raise ValueError(f"diversity needs at least two images; got {len(images)}")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(images)))
    first, second = order[: len(order) // 2], order[len(order) // 2 : 2 * (len(order) // 2)]
    found: list[float] = []
    for start in range(0, len(first), batch):
        found += ms_ssim(images[first[start : start + batch]], images[second[start : start + batch]]).tolist()
    return found


def _ssim(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Contrast times structure, and that times luminance, as means over the image: each (B, C)."""
    blur = _blur(a.shape[1], a.dtype)
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    structure = (2 * covariance + _C2) / (var_a + var_b + _C2)
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    return structure.mean(dim=(2, 3)), (structure * luminance).mean(dim=(2, 3))


def _blur(channels: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    at = torch.arange(_WINDOW, dtype=dtype) - _WINDOW // 2
    line = torch.exp(-(at**2) / (2 * _SIGMA**2))
    line = line / line.sum()
    down, across = (line.view(shape).expand(channels, *shape[1:]) for shape in ((1, 1, -1, 1), (1, 1, 1, -1)))

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, down, groups=channels), across, groups=channels)

    return blur
