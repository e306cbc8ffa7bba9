"""From a prompt's words to what the denoiser reads: projected words with their mask, and the prompt pooled."""

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from medtextdiff import config
from medtextdiff.layers import NullNote
from medtextdiff.types import TextFeatures

MIRRORS = 4  # as it is, left-right, top-bottom, both


class Config(config.Config):
    """width: of the words as the denoiser reads them; heads of the pooling, each width / heads wide.

    normalise: a LayerNorm before the projection, since encoders differ in scale. mirrors: tell the denoiser whether a
    training image was mirrored, so that it need not make mirrored overlays itself (after arXiv 2206.00364, appendix
    F.2); the published model has none.
    """

    width: int = Field(default=256, ge=1)
    heads: int = Field(default=4, ge=1)
    normalise: bool = True
    mirrors: bool = True

    def build(self, text_width: int) -> "Conditioning":
        """The module, its weights new, for words of `text_width`.

        Raises:
            ValueError: heads that do not divide the width.
        """
        return Conditioning(self, text_width)


class Conditioning(nn.Module):
    """Source: MSDM's projection and pooling (Kandinsky 3's), with the mask also in the pooling's query.

    An absent prompt is a learned word: what classifier-free guidance goes away from.
    """

    def __init__(self, settings: Config, text_width: int) -> None:
        super().__init__()
        if settings.width % settings.heads:
            raise ValueError(f"{settings.heads} heads do not divide the width {settings.width}; choose a divisor")
        width = settings.width
        self.heads = settings.heads
        self.null = NullNote(text_width)
        self.norm = nn.LayerNorm(text_width) if settings.normalise else nn.Identity()
        self.project = nn.Sequential(
            nn.Linear(text_width, width, bias=False), nn.SiLU(), nn.Linear(width, width, bias=False)
        )
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        self.mirrored = nn.Embedding(MIRRORS, width) if settings.mirrors else None
        if self.mirrored is not None:
            nn.init.zeros_(self.mirrored.weight)

    def forward(self, text: TextFeatures, mirrored: Int[Tensor, " B"] | None = None) -> TextFeatures:
        """Features of the denoiser's width; `mirrored` (0: as it is) says how each image was turned over."""
        text = self.null(text)
        words = self.project(self.norm(text.tokens))  # (B, L, width)
        pooled = self._pool(words, text.mask)
        if self.mirrored is not None:
            which = torch.zeros(len(words), dtype=torch.long, device=words.device) if mirrored is None else mirrored
            pooled = pooled + self.mirrored(which)
        return TextFeatures(tokens=words, mask=text.mask, pooled=pooled)

    def _pool(self, words: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """Attention from the mean of the real words to each of them."""
        share = mask[..., None].to(words.dtype)
        mean = (words * share).sum(dim=1, keepdim=True) / share.sum(dim=1, keepdim=True)  # (B, 1, D)
        q, k, v = self.to_q(mean), self.to_k(words), self.to_v(words)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, L, d)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return self.to_out(found.transpose(1, 2).flatten(1))
