"""The forward pass of a diffusers U-Net, block by block, so that it can stop early and show its insides.

Decoder blocks are numbered as guided-diffusion numbers its `output_blocks`: through all levels, coarse to fine,
one for each resnet with its attention; the last one of a level includes the level's upsampler.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_UP_BLOCKS = ("AttnUpBlock2D", "ResnetUpsampleBlock2D", "UpBlock2D")
_DOWN_BLOCKS = ("AttnDownBlock2D", "DownBlock2D", "ResnetDownsampleBlock2D")
_READING_UP_BLOCKS = ("CrossAttnUpBlock2D", "UpBlock2D")
_READING_DOWN_BLOCKS = ("CrossAttnDownBlock2D", "DownBlock2D")


class WalkError(ValueError):
    """A U-Net that cannot be walked block by block."""


@dataclass(frozen=True)
class Block:
    """What is known of a block's output without running it."""

    channels: int
    stride: int  # input positions for each of its own, along a side


def describe(unet: Any, reads_words: bool = False) -> tuple[Block, list[Block]]:
    """The middle block, and the decoder blocks in order, of a `UNet2DModel` or (`reads_words`) `UNet2DConditionModel`.

    Raises:
        WalkError: a kind of block whose inside we do not know, or a network that wants class labels.
    """
    downs, ups = (_READING_DOWN_BLOCKS, _READING_UP_BLOCKS) if reads_words else (_DOWN_BLOCKS, _UP_BLOCKS)
    for blocks, known in ((unet.down_blocks, downs), (unet.up_blocks, ups)):
        for block in blocks:
            if type(block).__name__ not in known:
                raise WalkError(f"blocks of type {type(block).__name__} are not supported; use {', '.join(known)}")
    if unet.class_embedding is not None and not reads_words:
        raise WalkError("the U-Net is class-conditional: it needs class labels, which a Denoiser does not have")
    stride = 2 ** sum(block.downsamplers is not None for block in unet.down_blocks)
    middle = Block(unet.config.block_out_channels[-1], stride)
    decoder = []
    for level in unet.up_blocks:
        for j, resnet in enumerate(level.resnets):
            if level.upsamplers is not None and j == len(level.resnets) - 1:
                stride //= 2
            decoder.append(Block(resnet.out_channels, stride))
    return middle, decoder


def at(middle: Block, blocks: Sequence[Block], taps: Sequence[int]) -> list[Block]:
    """The blocks at `taps`; -1 is the middle.

    Raises:
        ValueError: a tap that is no block.
    """
    for tap in taps:
        if not -1 <= tap < len(blocks):
            raise ValueError(f"no decoder block {tap}: taps go from -1 (middle) to {len(blocks) - 1}")
    return [middle if tap == -1 else blocks[tap] for tap in taps]


def embed(unet: Any, x: Tensor, t: Tensor) -> Tensor:
    """The time embedding, Float[B E], in the network's own precision."""
    # shape[0] and not len(), which would freeze the batch size of a traced graph
    return unet.time_embedding(unet.time_proj(t.expand(x.shape[0])).to(dtype=unet.dtype))


def encode(unet: Any, x: Tensor, embedding: Tensor, words: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """Encoder and middle: the middle's output, and the skip connections, fine to coarse.

    `words`, Float[B L D], is for a network that attends to them, to each of them.
    """
    reading = {} if words is None else {"encoder_hidden_states": words}
    if unet.config.center_input_sample:
        x = 2 * x - 1.0
    x = unet.conv_in(x)
    skips = [x]
    for block in unet.down_blocks:
        x, outputs = block(hidden_states=x, temb=embedding, **(reading if _reads(block) else {}))
        skips.extend(outputs)
    if unet.mid_block is not None:
        x = unet.mid_block(x, embedding, **(reading if _reads(unet.mid_block) else {}))
    return x, skips


def decode(
    unet: Any, x: Tensor, skips: list[Tensor], embedding: Tensor, words: Tensor | None = None
) -> Iterator[Tensor]:
    """The output of each decoder block, in order; a block runs only when its output is asked for."""
    skips = list(skips)
    for level in unet.up_blocks:
        checkpointed = torch.is_grad_enabled() and level.gradient_checkpointing
        attentions = getattr(level, "attentions", [None] * len(level.resnets))
        for j, (resnet, attention) in enumerate(zip(level.resnets, attentions, strict=True)):
            x = torch.cat([x, skips.pop()], dim=1)
            x = level._gradient_checkpointing_func(resnet, x, embedding) if checkpointed else resnet(x, embedding)
            if attention is not None:
                reads = {"encoder_hidden_states": words, "return_dict": False} if _reads(level) else None
                x = attention(x) if reads is None else attention(x, **reads)[0]
            if level.upsamplers is not None and j == len(level.resnets) - 1:
                x = _upsample(level.upsamplers[0], x, embedding)
            yield x


def finish(unet: Any, x: Tensor, t: Tensor) -> Tensor:
    """From the last decoder block's output to the prediction."""
    x = unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))
    if unet.config.time_embedding_type == "fourier":
        x = x / t.expand(x.shape[0]).reshape(-1, 1, 1, 1)
    return x


def _reads(block: Any) -> bool:
    return bool(getattr(block, "has_cross_attention", False))


def _upsample(upsampler: Any, x: Tensor, embedding: Tensor) -> Tensor:
    # A plain convolution takes a size as its second argument, a resnet the time embedding.
    return upsampler(x) if type(upsampler).__name__ == "Upsample2D" else upsampler(x, embedding)
