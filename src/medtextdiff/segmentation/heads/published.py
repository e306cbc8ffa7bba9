"""The published head (`pixel_classifier` of FastTextDiff and TextDiff): same weights, same logits, less memory.

Each level is brought to one width by a 1x1 convolution, meets the note in one block that all levels share, and is
enlarged to the image; all levels together (3072 channels) go through 3x3 convolutions to the logits. The first of
these commutes with the enlargement up to the shifts of its nine taps, so small levels are mixed down to its 128
outputs before they are enlarged: exact up to rounding, and the 3072-channel map is never built.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.layers import NullNote, grid_positions
from medtextdiff.segmentation.fusion import published
from medtextdiff.types import Levels, TextFeatures


class Config(config.Config):
    """The published sizes; `null_note` adds a learned absent note, which the published head does not have."""

    width: PositiveInt = 768
    hidden: tuple[PositiveInt, PositiveInt] = (128, 32)
    fusion: config.Config = published.Config()
    null_note: bool = False

    def build(
        self, channels: Sequence[int], strides: Sequence[int], text_width: int | None, num_classes: int
    ) -> "PublishedHead":
        """A head for levels of `channels`, in the order of the taps; it does not need the strides.

        Raises:
            ConfigError: no text, fewer than two levels, or later levels whose channels fit neither the shared
                second projection nor `width`.
        """
        if text_width is None:
            raise config.ConfigError("the published head needs a text encoder; set model.text, or head=pyramid")
        if len(channels) < 2 or any(c not in (self.width, channels[1]) for c in channels[2:]):
            raise config.ConfigError(
                "the published head takes two levels or more; from the third on they have the channels of the second "
                f"(they share its projection) or {self.width}; got {tuple(channels)}"
            )
        return PublishedHead(self, channels, text_width, num_classes)


class PublishedHead(nn.Module):
    """State-dict keys are the published ones: decodes.*, cross1.*, down1.*, down2.*."""

    def __init__(self, settings: Config, channels: Sequence[int], text_width: int, num_classes: int) -> None:
        super().__init__()
        width, (first, second) = settings.width, settings.hidden
        self.decodes = nn.Sequential(
            nn.Conv2d(width * len(channels), first, 3, padding=1),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, padding=1),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.Conv2d(second, num_classes, 3, padding=1),
        )
        self.cross1 = settings.fusion.build(width, text_width)  # type: ignore[attr-defined]  # any of the family
        self.down1 = nn.Conv2d(channels[0], width, 1)
        self.down2 = nn.Conv2d(channels[1], width, 1)
        if settings.null_note:
            self.null_note: NullNote | None = NullNote(text_width)
        else:
            self.null_note = None
        self.width = width
        self.apply(_init)

    def forward(
        self, levels: Levels, text: TextFeatures, boxes: Float[Tensor, "B 4"], size: tuple[int, int]
    ) -> Float[Tensor, "B K H W"]:
        """Logits at `size` (the published code: always 256 x 256)."""
        if self.null_note is not None:
            text = self.null_note(text)
        conv = self.decodes[0]
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        weight, bias = conv.weight, conv.bias
        mixed: Tensor = bias[:, None, None]
        for k, level in enumerate(levels):
            fused = self.cross1(
                self._project(level, k), text.tokens, text.mask, text.pooled, grid_positions(boxes, *level.shape[-2:])
            )
            mixed = mixed + enlarged_conv(fused, weight[:, k * self.width : (k + 1) * self.width], size)
        return self.decodes[1:](mixed)

    def _project(self, level: Tensor, k: int) -> Tensor:
        if level.shape[1] == self.width:
            return level
        return self.down1(level) if k == 0 else self.down2(level)  # levels 1 and 2 share one projection


def enlarged_conv(
    level: Float[Tensor, "B C h w"], weight: Float[Tensor, "F C 3 3"], size: tuple[int, int]
) -> Float[Tensor, "B F H W"]:
    """The 3x3 convolution (zero padding 1, no bias) of the level enlarged bilinearly to `size`, exact up to rounding.

    A level of less than half of `size` is mixed down to its nine taps first; each tap is then enlarged and shifted by
    one matrix a side, so that no enlarged map of C channels is ever built.
    """
    height, width = size
    exporting = torch.compiler.is_exporting()  # a graph's sizes are open, those of the matrices below are not
    if exporting or 2 * level.shape[-1] > width or 2 * level.shape[-2] > height:  # nothing to win
        if tuple(level.shape[-2:]) != size:
            level = F.interpolate(level, size=size, mode="bilinear", align_corners=False)
        return F.conv2d(level, weight, padding=1)
    num_out, (h, w) = len(weight), level.shape[-2:]
    by_tap = weight.permute(3, 0, 2, 1).reshape(9 * num_out, -1, 1, 1)  # ordered by column, output, row of the kernel
    taps = F.conv2d(level, by_tap).contiguous().view(len(level), 3, num_out * 3 * h, w)
    columns, rows = _shifted_enlargement(w, width, level), _shifted_enlargement(h, height, level)
    wide = torch.matmul(taps[:, 0], columns[0].T) + torch.matmul(taps[:, 1], columns[1].T)
    wide = (wide + torch.matmul(taps[:, 2], columns[2].T)).view(len(level), num_out, 3 * h, width)
    return torch.matmul(rows.transpose(0, 1).reshape(height, 3 * h), wide)


def _shifted_enlargement(short: int, long: int, like: Tensor) -> Float[Tensor, "3 long short"]:
    """For each row of a 3x3 kernel: the matrix that enlarges a side bilinearly and moves it by -1, 0, +1 cells."""
    identity = torch.eye(short, device=like.device)[None]  # (1, short, short)
    plain = F.interpolate(identity, size=long, mode="linear", align_corners=False)[0].T  # (long, short)
    padded = F.pad(plain, (0, 0, 1, 1))  # zeros from outside
    return torch.stack([padded[shift : shift + long] for shift in range(3)]).to(like.dtype)


def _init(module: nn.Module) -> None:
    """N(0, 0.02) for convolutions and linear layers, N(1, 0.02) for BatchNorm scales, as published."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
