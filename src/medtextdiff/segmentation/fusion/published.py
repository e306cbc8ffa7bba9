"""The published block: two cross-attentions to the note and a feed-forward, as FastTextDiff and TextDiff trained it.

Source: arXiv 2407.05323 and 2512.00084, after the code: LayerNorm sits on each attention's *output*, the
feed-forward has no expansion, both attentions read the note.
"""

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.layers import CrossAttention

_CHUNK = 2048  # positions


class Config(config.Config):
    """The published sizes."""

    num_heads: PositiveInt = 8
    head_width: PositiveInt = 64

    def build(self, channels: int, text_width: int) -> "PublishedCrossBlock":
        """A block for levels of `channels` and notes of `text_width`."""
        return PublishedCrossBlock(channels, text_width, self.num_heads, self.head_width)


class PublishedCrossBlock(nn.Module):
    """`BasicTransformerBlock(only_cross_attention=True)` of the published code, with its state-dict keys."""

    def __init__(self, channels: int, text_width: int, num_heads: int = 8, head_width: int = 64) -> None:
        super().__init__()
        self.attn1 = CrossAttention(channels, text_width, num_heads, head_width, norm_output=True)
        self.ff = _FeedForward(channels)
        self.attn2 = CrossAttention(channels, text_width, num_heads, head_width, norm_output=True)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def attend(
        self, x: Float[Tensor, "B N C"], tokens: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B N C"]:
        """The block on a sequence of positions. The published code has no mask."""
        x = x + self.attn1(self.norm1(x), tokens, mask)
        x = x + self.attn2(self.norm2(x), tokens, mask)
        return x + self.ff(self.norm3(x))

    def forward(
        self,
        level: Float[Tensor, "B C h w"],
        tokens: Float[Tensor, "B L D"],
        mask: Bool[Tensor, "B L"],
        pooled: Float[Tensor, "B D"],
        positions: Float[Tensor, "B 2 h w"],
    ) -> Float[Tensor, "B C h w"]:
        """The block on a level; `pooled` and `positions` are not read."""
        x = level.flatten(2).transpose(1, 2)  # (B, N, C)
        # Positions do not meet: a few at a time stay in the processor's cache, and take little memory.
        chunks = (x,) if torch.compiler.is_exporting() else x.split(_CHUNK, dim=1)  # a graph's sizes are open
        dtype = _convolution_dtype(x)
        if torch.is_grad_enabled() or len(chunks) == 1:
            fused = torch.cat([self.attend(chunk, tokens, mask).to(dtype) for chunk in chunks], dim=1)
        else:
            fused = x.new_empty(x.shape, dtype=dtype)
            for k, chunk in enumerate(chunks):
                fused[:, k * _CHUNK : (k + 1) * _CHUNK] = self.attend(chunk, tokens, mask)
        return fused.transpose(1, 2).unflatten(2, level.shape[2:])


def _convolution_dtype(x: Tensor) -> torch.dtype:
    """What a convolution of `x` computes in: autocast would make a copy of the whole map in it."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class _FeedForward(nn.Module):
    """GELU, then a linear layer; a list of three because the published keys say `net.2`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.GELU(), nn.Identity(), nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
