"""Our head: a light feature pyramid in which the coarse levels read the note.

Every level is brought to one width; the coarsest read the note; then from coarse to fine each level is added to
the enlarged one below and smoothed (after FPN, arXiv 1612.03144). The logits come out at the finest level's grid,
all pixels of a cell at once (pixel shuffle). Nothing is ever as wide as the sum of the levels, which is what makes
the published head slow.

A denoiser that reads 2 x 2 pixels at once has no map of single pixels, and most of the error lies at outlines.
So a narrow branch may read the image itself beside it (the detail branch of BiSeNet, arXiv 2004.02147).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.layers import NullNote, grid_positions
from medtextdiff.segmentation.fusion import cross_attention
from medtextdiff.types import Levels, TextFeatures


class Config(config.Config):
    """Sizes of the pyramid.

    fuse_levels: how many levels, from the coarsest, read the note.
    shuffle_up_to: a finest stride beyond it is bridged by bilinear enlargement instead of pixel shuffle.
    detail: width of a branch at the image's own resolution; needs the pixels of `features.image`. 0: none.
    """

    width: PositiveInt = 96
    fusion: config.Config = cross_attention.Config()
    fuse_levels: NonNegativeInt = 2
    shuffle_up_to: PositiveInt = 4
    dropout: float = 0.0
    detail: NonNegativeInt = 0

    def build(
        self, channels: Sequence[int], strides: Sequence[int], text_width: int | None, num_classes: int
    ) -> "Pyramid":
        """A head for levels of `channels` at `strides` (coarse to fine); `text_width` None means there is no note.

        Raises:
            ConfigError: levels that are not ordered from coarse to fine.
        """
        if not channels or list(strides) != sorted(strides, reverse=True):
            raise config.ConfigError(f"the pyramid takes levels from coarse to fine; order the taps so: {strides}")
        return Pyramid(self, channels, strides, text_width, num_classes)


class Pyramid(nn.Module):
    """See `Config`."""

    def __init__(
        self,
        settings: Config,
        channels: Sequence[int],
        strides: Sequence[int],
        text_width: int | None,
        num_classes: int,
    ) -> None:
        super().__init__()
        width = settings.width
        self.strides = tuple(strides)
        self.laterals = nn.ModuleList(_lateral(c, width) for c in channels)
        num_fused = 0 if text_width is None else min(settings.fuse_levels, len(channels))
        self.fusions = nn.ModuleList(
            settings.fusion.build(width, text_width)  # type: ignore[attr-defined]  # any part of the family
            for _ in range(num_fused)
        )
        reads = any(True for _ in self.fusions.parameters())  # an absent note nobody reads would never be trained
        self.null_note = NullNote(text_width) if text_width is not None and reads else None
        self.smooths = nn.ModuleList(_smooth(width) for _ in channels)
        self.dropout = nn.Dropout(settings.dropout)
        self.shuffle = strides[-1] if strides[-1] <= settings.shuffle_up_to else 1
        out = settings.detail or num_classes
        self.classify = nn.Conv2d(width, out * self.shuffle**2, 3, padding=1)
        self.detail = _Detail(settings.detail, num_classes) if settings.detail else None

    def forward(
        self, levels: Levels, text: TextFeatures | None, boxes: Float[Tensor, "B 4"], size: tuple[int, int]
    ) -> Float[Tensor, "B K H W"]:
        """Logits at `size`, the (height, width) that the levels cover; a note is absent in a row without a word."""
        if text is not None and self.null_note is not None:
            text = self.null_note(text)
        x: Tensor | None = None
        for k, level in enumerate(levels):
            lateral = self.laterals[k](level)
            if x is not None:
                lateral = lateral + F.interpolate(x, size=lateral.shape[-2:], mode="nearest")
            if text is not None and k < len(self.fusions):
                positions = grid_positions(boxes, *lateral.shape[-2:])
                lateral = self.fusions[k](lateral, text.tokens, text.mask, text.pooled, positions)
            x = self.smooths[k](lateral)
        logits = self.classify(self.dropout(x))
        if self.shuffle > 1:
            logits = F.pixel_shuffle(logits, self.shuffle)
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size=size, mode="bilinear")
        return logits if self.detail is None else self.detail(logits, _pixels(levels[-1], self.strides[-1]))


class _Detail(nn.Module):
    """The image's own pixels, and beside them what the pyramid makes of each, to logits."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_smooth(width, 3), _smooth(width))
        self.refine = nn.Sequential(_smooth(width, 2 * width), _smooth(width), nn.Conv2d(width, num_classes, 1))

    def forward(self, maps: Float[Tensor, "B D H W"], pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K H W"]:
        return self.refine(torch.cat([maps, self.stem(pixels)], dim=1))


def _pixels(level: Float[Tensor, "B C h w"], stride: int) -> Float[Tensor, "B 3 H W"]:
    """What `features.image` put behind the channels of the finest level."""
    return F.pixel_shuffle(level[:, -3 * stride**2 :], stride)


class _LevelNorm(nn.GroupNorm):
    """GroupNorm that may stand on a frozen level.

    Where the input needs no gradient, the backward of torch 2.13's own ends the process on a CPU (small channels-last
    maps): so scale and shift are applied apart, and nothing of the norm is left to differentiate.
    """

    def forward(self, level: Tensor) -> Tensor:
        if level.requires_grad or not torch.is_grad_enabled():
            return super().forward(level)
        plain = F.group_norm(level, self.num_groups, eps=self.eps)
        return plain * self.weight[:, None, None].to(plain) + self.bias[:, None, None].to(plain)


def _lateral(channels: int, width: int) -> nn.Module:
    return nn.Sequential(_LevelNorm(math.gcd(channels, 16), channels), nn.Conv2d(channels, width, 1))


def _smooth(width: int, channels: int | None = None) -> nn.Module:
    """`channels` (`width` where not said) to `width`."""
    convolution = nn.Conv2d(channels or width, width, 3, padding=1)
    return nn.Sequential(convolution, nn.GroupNorm(math.gcd(width, 8), width), nn.SiLU())
