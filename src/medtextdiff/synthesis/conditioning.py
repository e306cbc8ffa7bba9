"""From a prompt's words to what the denoiser reads: projected words with their mask, and the prompt pooled."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from medtextdiff import config
from medtextdiff.layers import NullNote
from medtextdiff.types import TextFeatures

MIRRORS = 4  # as it is, left-right, top-bottom, both
_FLOOR = 0.01  # of the largest variance: directions with less are not raised to full size
_NOTHING = 1e-8  # a variance below this share of the mean's square is a rounding error
_PROMPTS, _AT_ONCE = 4096, 64  # most prompts that are measured, and read together


class Config(config.Config):
    """width: of the words as the denoiser reads them; heads of the pooling, each width / heads wide.

    normalise: what comes before the projection, since encoders differ in scale: a LayerNorm ("words"), or ("prompts")
    whitening by the training prompts, which often differ in a single word ("not"): what they share is taken away, what
    tells them apart raised, and the whole prompt, whitened too, joins the pooling. mirrors: tell the denoiser whether
    a training image was mirrored, so that it need not make mirrored overlays itself (after arXiv 2206.00364, appendix
    F.2); the published model has none.
    """

    width: int = Field(default=256, ge=1)
    heads: int = Field(default=4, ge=1)
    normalise: Literal["none", "words", "prompts"] = "prompts"
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
        by_prompts = settings.normalise == "prompts"
        self.norm = nn.LayerNorm(text_width) if settings.normalise == "words" else nn.Identity()
        self.words = Whitening(text_width) if by_prompts else None
        self.whole = Whitening(text_width) if by_prompts else None
        self.from_whole = nn.Linear(text_width, width, bias=False) if by_prompts else None
        self.project = nn.Sequential(
            nn.Linear(text_width, width, bias=False), nn.SiLU(), nn.Linear(width, width, bias=False)
        )
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        self.mirrored = nn.Embedding(MIRRORS, width) if settings.mirrors else None
        if self.mirrored is not None:
            nn.init.zeros_(self.mirrored.weight)

    def forward(self, text: TextFeatures, mirrored: Int[Tensor, " B"] | None = None) -> TextFeatures:
        """Features of the denoiser's width; `mirrored` (0: as it is) says how each image was turned over."""
        if self.words is not None and self.whole is not None:
            text = TextFeatures(self.words(text.tokens), text.mask, self.whole(text.pooled))
        text = self.null(text)
        words = self.project(self.norm(text.tokens))  # (B, L, width)
        pooled = self._pool(words, text.mask)
        if self.from_whole is not None:
            pooled = pooled + self.from_whole(text.pooled)
        if self.mirrored is not None:
            which = torch.zeros(len(words), dtype=torch.long, device=words.device) if mirrored is None else mirrored
            pooled = pooled + self.mirrored(which)
        return TextFeatures(tokens=words, mask=text.mask, pooled=pooled)

    @torch.no_grad()
    def measure(self, read: Callable[[Sequence[str]], TextFeatures], prompts: Sequence[str]) -> None:
        """Learn from the training prompts what they share; nothing to do unless they normalise.

        Args:
            read: a text encoder, in eval mode.
            prompts: the training prompts; of more than 4,096 different ones every second, third, ... is read.
        """
        if self.words is None or self.whole is None:
            return
        distinct = sorted({prompt for prompt in prompts if prompt.strip()})
        some = distinct[:: max(1, -(-len(distinct) // _PROMPTS))]
        words, wholes = _Moments(), _Moments()
        for first in range(0, len(some), _AT_ONCE):
            text = read(some[first : first + _AT_ONCE])
            words.add(text.tokens[text.mask])
            wholes.add(text.pooled)
        if some:
            self.words.set(words)
            self.whole.set(wholes)

    def _pool(self, words: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """Attention from the mean of the real words to each of them."""
        share = mask[..., None].to(words.dtype)
        mean = (words * share).sum(dim=1, keepdim=True) / share.sum(dim=1, keepdim=True)  # (B, 1, D)
        q, k, v = self.to_q(mean), self.to_k(words), self.to_v(words)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, L, d)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return self.to_out(found.transpose(1, 2).flatten(1))


class _Moments:
    """Sums over rows that come in parts."""

    def __init__(self) -> None:
        self.num, self._sum, self._products = 0, torch.zeros(()), torch.zeros(())

    def add(self, rows: Float[Tensor, "N D"]) -> None:
        rows = rows.double()
        self.num += len(rows)
        self._sum, self._products = self._sum.to(rows) + rows.sum(dim=0), self._products.to(rows) + rows.T @ rows

    def mean_and_covariance(self) -> tuple[Float[Tensor, " D"], Float[Tensor, "D D"]]:
        mean = self._sum / self.num
        return mean, self._products / self.num - mean[:, None] * mean


class Whitening(nn.Module):
    """Rows less their mean, all directions made equally long; as they are, until it was measured."""

    mean: Tensor
    map: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("map", torch.eye(width))

    def forward(self, rows: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Each row, in float32 whatever the autocast."""
        with torch.autocast(rows.device.type, enabled=False):
            return (rows.float() - self.mean) @ self.map

    def set(self, measured: _Moments) -> None:
        """Take mean and covariance; directions of hardly any variance stay small, and rows all alike are not raised."""
        mean, covariance = measured.mean_and_covariance()
        variances, directions = torch.linalg.eigh(covariance)
        self.mean.copy_(mean)
        if variances[-1] > _NOTHING * mean.square().mean():
            raised = variances.clamp(min=0) + _FLOOR * variances[-1]
            self.map.copy_(directions / raised.sqrt() @ directions.T)
