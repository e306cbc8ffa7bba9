"""Gated fusion: each position decides, from itself and from what it read, how much of the note to take."""

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.layers import CrossAttention
from medtextdiff.segmentation.fusion.cross_attention import PositionEmbedding


class Config(config.Config):
    """Cross-attention behind a sigmoid gate per position and channel; `open_at_start` is the gate's first value."""

    num_heads: PositiveInt = 4
    head_width: PositiveInt = 32
    frequencies: PositiveInt = 4
    open_at_start: float = 0.1

    def build(self, channels: int, text_width: int) -> "GatedFusion":
        """A fusion for levels of `channels` and notes of `text_width`.

        Raises:
            ConfigError: `open_at_start` is not between 0 and 1.
        """
        if not 0 < self.open_at_start < 1:
            raise config.ConfigError(f"gated: open_at_start lies between 0 and 1, e.g. 0.1; got {self.open_at_start}")
        return GatedFusion(self, channels, text_width)


class GatedFusion(nn.Module):
    """See `Config`."""

    def __init__(self, settings: Config, channels: int, text_width: int) -> None:
        super().__init__()
        self.position = PositionEmbedding(channels, settings.frequencies)
        self.norm = nn.LayerNorm(channels)
        self.text_norm = nn.LayerNorm(text_width)
        self.attention = CrossAttention(channels, text_width, settings.num_heads, settings.head_width)
        self.gate = nn.Linear(2 * channels, channels)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, torch.logit(torch.tensor(settings.open_at_start)).item())

    def forward(
        self,
        level: Float[Tensor, "B C h w"],
        tokens: Float[Tensor, "B L D"],
        mask: Bool[Tensor, "B L"],
        pooled: Float[Tensor, "B D"],
        positions: Float[Tensor, "B 2 h w"],
    ) -> Float[Tensor, "B C h w"]:
        """The level plus the gated reading of the note; `pooled` is not read."""
        x = level.flatten(2).transpose(1, 2)  # (B, N, C)
        normed = self.norm(x)
        read = self.attention(normed + self.position(positions), self.text_norm(tokens), mask)
        x = x + self.gate(torch.cat([normed, read], dim=-1)).sigmoid() * read
        return x.transpose(1, 2).unflatten(2, level.shape[2:])
