"""A diffusers `UNet2DModel` as a Denoiser: its prediction, and its levels at the tapped decoder blocks."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.diffusion import folders, walk
from medtextdiff.diffusion.folders import load_strictly, one_line
from medtextdiff.diffusion.lean_import import unet_2d_model
from medtextdiff.types import Levels, TextFeatures

_IMAGE_CHANNELS = 3


class DenoiserError(ValueError):
    """A denoiser that cannot be loaded or used so; the message says why, in one line."""


class Denoiser(nn.Module):
    """A `UNet2DModel`, walked block by block: no hooks, and nothing runs after the last tap when only levels count.

    With `patch` p the network sees squares of p x p pixels as channels; images stay [B, C, H, W] outside.
    Decoder block k is numbered as guided-diffusion's `output_blocks[k]`; -1 is the middle block.

    Not trainable means: no parameter requires a gradient, dropout stays off, and no graph is kept.
    """

    def __init__(self, unet: Any, patch: int = 1, trainable: bool = False):
        super().__init__()
        if patch < 1 or unet.config.in_channels % patch**2 or unet.config.out_channels % patch**2:
            raise DenoiserError(
                f"patch {patch} does not fit a U-Net with {unet.config.in_channels} input and "
                f"{unet.config.out_channels} output channels: both must be multiples of {patch}^2"
            )
        try:
            self._middle, self._blocks = walk.describe(unet)
        except walk.WalkError as error:
            raise DenoiserError(str(error)) from None
        self.unet = unet.requires_grad_(trainable)
        self.patch = patch
        self.trainable = trainable
        self.train(trainable)

    @property
    def num_blocks(self) -> int:
        """Number of decoder blocks."""
        return len(self._blocks)

    @property
    def multiple(self) -> int:
        """Each side of an image must be a multiple of this."""
        return self.patch * self._middle.stride

    @property
    def architecture(self) -> dict[str, Any]:
        """What decides, beside the weights, what this network computes; not where it was read from."""
        told = {name: value for name, value in self.unet.config.items() if name != "_name_or_path"}
        return told | {"patch": self.patch}

    def channels(self, taps: Sequence[int]) -> tuple[int, ...]:
        """Channels of the levels at these taps."""
        return tuple(block.channels for block in self._at(taps))

    def strides(self, taps: Sequence[int]) -> tuple[int, ...]:
        """Image pixels along a side for one position of the levels at these taps."""
        return tuple(block.stride * self.patch for block in self._at(taps))

    def forward(
        self,
        x: Float[Tensor, "B C H W"],
        t: Int[Tensor, " B"],
        text: TextFeatures | None = None,
        taps: Sequence[int] = (),
    ) -> tuple[Float[Tensor, "B out H W"], Levels]:
        """The prediction for the noisy images `x` at timesteps `t`, and the levels at `taps`, in their order.

        A network that also learned its variance (learn_sigma) predicts twice the channels; the first half counts.

        Raises:
            ValueError: a side of `x` that is no multiple of `multiple`, unknown taps, or a text.
        """
        if text is not None:
            raise ValueError("this denoiser takes no text: leave out `text`")
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            levels, x = self._walk(x, t, taps, last=self.num_blocks - 1)
            x = walk.finish(self.unet, x, t)
            return F.pixel_shuffle(x, self.patch) if self.patch > 1 else x, levels

    def enter(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """What noise is added to: the images themselves."""
        return images

    def levels(self, x: Float[Tensor, "B C H W"], t: Int[Tensor, " B"], taps: Sequence[int]) -> Levels:
        """The levels at `taps`, in their order; the blocks after the last tap never run.

        Raises:
            ValueError: as `forward`, or no taps.
        """
        if not taps:
            raise ValueError(f"give at least one tap, from -1 (middle) to {self.num_blocks - 1}")
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            return self._walk(x, t, taps, last=max(taps))[0]

    def train(self, mode: bool = True) -> "Denoiser":
        """Training mode, but for a frozen denoiser, which stays in evaluation mode: its dropout never wakes."""
        return super().train(mode and self.trainable)

    def save_pretrained(self, folder: Path) -> None:
        """Write a folder that `Config` and `UNet2DModel.from_pretrained` load (config.json, safetensors)."""
        folders.save_plainly(self.unet, folder)

    def _walk(self, x: Tensor, t: Tensor, taps: Sequence[int], last: int) -> tuple[Levels, Tensor]:
        self._check_sides(x)
        self._at(taps)
        x = F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x  # (B, C p^2, H/p, W/p)
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.unet.dtype)
        embedding = walk.embed(self.unet, x, t)
        x, skips = walk.encode(self.unet, x, embedding)
        tapped = {-1: x} if -1 in taps else {}
        blocks = walk.decode(self.unet, x, skips, embedding)
        del skips  # each is freed once its block has used it
        for k in range(last + 1):
            x = next(blocks)
            if k in taps:
                tapped[k] = x
        return [tapped[tap] for tap in taps], x

    def _at(self, taps: Sequence[int]) -> list[walk.Block]:
        return walk.at(self._middle, self._blocks, taps)

    def _check_sides(self, x: Tensor) -> None:
        expected = self.unet.config.in_channels // self.patch**2
        if x.shape[1] != expected:
            raise ValueError(f"the denoiser takes images of {expected} channels, not {x.shape[1]}")
        height, width = x.shape[-2:]
        if height % self.multiple or width % self.multiple:
            nearest = tuple(max(1, round(side / self.multiple)) * self.multiple for side in (height, width))
            raise ValueError(
                f"image sides must be multiples of {self.multiple}; got {height} x {width}, the nearest is "
                f"{nearest[0]} x {nearest[1]}: resize or pad"
            )


class Config(config.Config):
    """A denoiser from a diffusers folder or model id; pre-trained, converted, anyone's `UNet2DModel`.

    `patch` None: told by the input channels (3 -> 1, 12 -> 2, 48 -> 4; anything else, as latents, 1).
    """

    path: str
    patch: int | None = Field(default=None, ge=1)
    trainable: bool = False
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"

    def build(self) -> Denoiser:
        """Load it.

        Raises:
            DenoiserError: no such folder or model id, a missing, truncated or wrong file, a U-Net we cannot walk.
        """
        unet = _load(self.path, getattr(torch, self.dtype))
        patch = self.patch or _patch(unet.config.in_channels)
        return Denoiser(unet, patch=patch, trainable=self.trainable)

    def saved(self, path: str) -> "Config":
        """The config of this denoiser once it was trained and written to `path`."""
        return self.replace(path=path, dtype="float32")


class Scratch(config.Config):
    """A denoiser with random weights (from torch's global generator) to be trained; the defaults have 13.0 M."""

    patch: int = Field(default=2, ge=1)
    block_out_channels: tuple[int, ...] = (48, 96, 192, 256)
    layers_per_block: int = Field(default=1, ge=1)
    num_attention_levels: int = Field(default=0, ge=0)  # counted from the coarsest; 0: none in the middle either
    attention_head_dim: int = Field(default=32, ge=1)
    norm_num_groups: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    learn_sigma: bool = False
    trainable: bool = True

    @classmethod
    def tiny(cls) -> "Scratch":
        """Small enough for tests: two levels, 30 thousand parameters."""
        return cls(block_out_channels=(8, 16), norm_num_groups=4)

    def build(self) -> Denoiser:
        """Make it.

        Raises:
            DenoiserError: widths and groups that do not go together.
        """
        num_levels = len(self.block_out_channels)
        attended = [level >= num_levels - self.num_attention_levels for level in range(num_levels)]
        squares = _IMAGE_CHANNELS * self.patch**2
        try:
            unet = unet_2d_model()(
                in_channels=squares,
                out_channels=squares * (2 if self.learn_sigma else 1),
                block_out_channels=self.block_out_channels,
                layers_per_block=self.layers_per_block,
                down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attended),
                up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)),
                add_attention=any(attended),
                attention_head_dim=self.attention_head_dim,
                norm_num_groups=self.norm_num_groups,
                attn_norm_num_groups=self.norm_num_groups if any(attended) else None,
                resnet_time_scale_shift="scale_shift",
                dropout=self.dropout,
            )
        except (ValueError, ZeroDivisionError, IndexError) as error:
            raise DenoiserError(
                f"no U-Net with widths {self.block_out_channels} and {self.norm_num_groups} groups: {one_line(error)}"
            ) from None
        return Denoiser(unet, patch=self.patch, trainable=self.trainable)

    def saved(self, path: str) -> Config:
        """The config of this denoiser once it was trained and written to `path`."""
        return Config(path=path, patch=self.patch, trainable=self.trainable)


def _patch(in_channels: int) -> int:
    side = math.isqrt(in_channels // _IMAGE_CHANNELS)
    return side if side and in_channels == _IMAGE_CHANNELS * side**2 else 1


def _load(path: str, dtype: torch.dtype) -> Any:
    if (Path(path) / "autoencoder").is_dir():
        raise DenoiserError(
            f"{path} denoises latents, not images; read it with --set model.denoiser=latent_backbone before its path"
        )
    return load_strictly(unet_2d_model(), path, "a denoiser", DenoiserError, dtype)
