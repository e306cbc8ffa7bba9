"""Our fusion: each position, knowing where in the whole image it lies, attends the real words of the note."""

import math

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.layers import CrossAttention


class Config(config.Config):
    """Pre-norm cross-attention and a feed-forward, both residual.

    `gate` multiplies both by tanh of a learned number that starts at 0, so that a trained image model can be
    extended by notes without a jump (Flamingo, arXiv 2204.14198); off, it learns faster from nothing.
    """

    num_heads: PositiveInt = 4
    head_width: PositiveInt = 32
    expansion: PositiveInt = 2
    frequencies: PositiveInt = 4
    gate: bool = False

    def build(self, channels: int, text_width: int) -> "CrossAttentionFusion":
        """A fusion for levels of `channels` and notes of `text_width`."""
        return CrossAttentionFusion(self, channels, text_width)


class PositionEmbedding(nn.Module):
    """Coordinates in [0, 1] to `width` channels: sines and cosines of a few octaves, then a small MLP."""

    def __init__(self, width: int, frequencies: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(nn.Linear(2 + 4 * frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, positions: Float[Tensor, "B 2 h w"]) -> Float[Tensor, "B N C"]:
        """One row of channels per position, rows before columns."""
        x = positions.flatten(2).transpose(1, 2)  # (B, N, 2)
        octaves = math.pi * 2.0 ** torch.arange(self.frequencies, device=x.device, dtype=x.dtype)
        angles = (x[..., None] * octaves).flatten(2)  # (B, N, 2 * frequencies)
        return self.mlp(torch.cat([2 * x - 1, angles.sin(), angles.cos()], dim=-1))


class CrossAttentionFusion(nn.Module):
    """See `Config`."""

    def __init__(self, settings: Config, channels: int, text_width: int) -> None:
        super().__init__()
        hidden = channels * settings.expansion
        self.position = PositionEmbedding(channels, settings.frequencies)
        self.norm = nn.LayerNorm(channels)
        self.text_norm = nn.LayerNorm(text_width)
        self.attention = CrossAttention(channels, text_width, settings.num_heads, settings.head_width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels)
        )
        self.gates = nn.Parameter(torch.zeros(2)) if settings.gate else None

    def forward(
        self,
        level: Float[Tensor, "B C h w"],
        tokens: Float[Tensor, "B L D"],
        mask: Bool[Tensor, "B L"],
        pooled: Float[Tensor, "B D"],
        positions: Float[Tensor, "B 2 h w"],
    ) -> Float[Tensor, "B C h w"]:
        """The level with what its positions took from the note; `pooled` is not read."""
        x = level.flatten(2).transpose(1, 2)  # (B, N, C)
        first, second = (1.0, 1.0) if self.gates is None else self.gates.tanh().unbind()
        queries = self.norm(x) + self.position(positions)
        x = x + first * self.attention(queries, self.text_norm(tokens), mask)
        x = x + second * self.feed_forward(x)
        return x.transpose(1, 2).unflatten(2, level.shape[2:])
