"""No fusion: the note is not looked at (the control of every comparison)."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from medtextdiff import config


class Config(config.Config):
    """Nothing to set."""

    def build(self, channels: int, text_width: int) -> "NoFusion":
        """A fusion that gives the level back."""
        return NoFusion()


class NoFusion(nn.Module):
    """The level, unchanged."""

    def forward(
        self,
        level: Float[Tensor, "B C h w"],
        tokens: Float[Tensor, "B L D"],
        mask: Bool[Tensor, "B L"],
        pooled: Float[Tensor, "B D"],
        positions: Float[Tensor, "B 2 h w"],
    ) -> Float[Tensor, "B C h w"]:
        """The level, unchanged."""
        return level
