"""The goldens' fill rule: weights anyone can rebuild from the parameter names, and seeded inputs.

The arrays in `goldens/` were computed on weights made this way, so a test needs the key names and shapes only.
"""

import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def fill(shapes: Mapping[str, Sequence[int]], scale: float) -> dict[str, Tensor]:
    """A float32 state dict with the given key names and shapes; each tensor depends on its own key alone.

    Integer buffers (`num_batches_tracked`) have no rule: leave them out of `shapes`.
    """
    return {key: _tensor(key, tuple(shape), scale) for key, shape in shapes.items()}


def fill_module(module: nn.Module, scale: float) -> nn.Module:
    """Fill a module's own state dict in place (integer buffers untouched) and return it."""
    state = module.state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items() if value.is_floating_point()}
    module.load_state_dict(state | fill(shapes, scale))
    return module


def seeded(*shape: int, seed: int) -> Tensor:
    """A standard normal float32 tensor from the CPU generator with this seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _tensor(key: str, shape: tuple[int, ...], scale: float) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    weight = torch.randn(shape, generator=generator) * scale
    if "running_var" in key:
        return 1 + weight.abs()
    if key.endswith("weight") and len(shape) == 1:  # norm scales
        return 1 + weight
    return weight
