"""FiLM: the pooled note scales and shifts every channel, everywhere alike (Perez et al., arXiv 1709.07871)."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from medtextdiff import config


class Config(config.Config):
    """Nothing to set."""

    def build(self, channels: int, text_width: int) -> "Film":
        """A FiLM layer for levels of `channels` and notes of `text_width`."""
        return Film(channels, text_width)


class Film(nn.Module):
    """Scale and shift from the pooled note; starts as the identity."""

    def __init__(self, channels: int, text_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(text_width)
        self.to_scale_shift = nn.Linear(text_width, 2 * channels)
        nn.init.zeros_(self.to_scale_shift.weight)
        nn.init.zeros_(self.to_scale_shift.bias)

    def forward(
        self,
        level: Float[Tensor, "B C h w"],
        tokens: Float[Tensor, "B L D"],
        mask: Bool[Tensor, "B L"],
        pooled: Float[Tensor, "B D"],
        positions: Float[Tensor, "B 2 h w"],
    ) -> Float[Tensor, "B C h w"]:
        """The level, scaled and shifted; only `pooled` is read."""
        scale, shift = self.to_scale_shift(self.norm(pooled))[..., None, None].chunk(2, dim=1)
        return level * (1 + scale) + shift
