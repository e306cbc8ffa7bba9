"""The same maths done the published way, to be measured against: nothing here is used to segment.

What the published code does (reference section 5.2): the timesteps one after the other, the whole U-Net though its
last blocks are not read, float32, one note at a time, every level enlarged to the image, all of them side by side.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from medtextdiff.diffusion.denoiser import Denoiser
from medtextdiff.segmentation.features import Features
from medtextdiff.segmentation.heads.published import PublishedHead
from medtextdiff.types import Levels


def levels(features: Features, denoiser: Denoiser, images: Float[Tensor, "B 3 H W"]) -> Levels:
    """As `features(denoiser, images)`: image by image, timestep by timestep, the whole network each time."""
    found = []
    images = images.flip(1) if features.settings.channel_order == "bgr" else images
    with torch.no_grad():
        for image in images.split(1):
            x, t = features.noised(image)
            passes = [denoiser(x[k : k + 1], t[k : k + 1], taps=features.settings.taps)[1] for k in range(len(t))]
            found.append([torch.cat(maps, dim=1) for maps in zip(*passes, strict=True)])
    return [torch.cat(maps) for maps in zip(*found, strict=True)]


def head(
    module: PublishedHead, maps: Sequence[Tensor], tokens: Float[Tensor, "B L D"], size: tuple[int, int]
) -> Float[Tensor, "B K H W"]:
    """As the module's own forward with every token a real word: projected queries, concatenated full-size levels."""
    enlarged = []
    for k, level in enumerate(maps):
        projected = level if level.shape[1] == module.width else (module.down1 if k == 0 else module.down2)(level)
        rows = _block(module.cross1, projected.flatten(2).transpose(1, 2), tokens)
        fused = rows.transpose(1, 2).unflatten(2, level.shape[2:])
        enlarged.append(F.interpolate(fused, size=size, mode="bilinear", align_corners=False))
    return module.decodes(torch.cat(enlarged, dim=1))


def _block(block: torch.nn.Module, x: Tensor, tokens: Tensor) -> Tensor:
    x = x + _attend(block.attn1, block.norm1(x), tokens)  # type: ignore[operator, arg-type]
    x = x + _attend(block.attn2, block.norm2(x), tokens)  # type: ignore[operator, arg-type]
    return x + block.ff(block.norm3(x))  # type: ignore[operator]


def _attend(attention: torch.nn.Module, x: Tensor, tokens: Tensor) -> Tensor:
    """Queries, keys and values for all positions, then the softmax over the words, written out."""
    q, k, v = (
        project(y).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # type: ignore[operator]
        for project, y in ((attention.to_q, x), (attention.to_k, tokens), (attention.to_v, tokens))
    )
    share = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return attention.to_out((share @ v).transpose(1, 2).flatten(2))  # type: ignore[operator]
