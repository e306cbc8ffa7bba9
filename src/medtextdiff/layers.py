"""What two rooms share: attention from image positions to a note, the absent note, and where a grid lies."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medtextdiff.types import TextFeatures


class CrossAttention(nn.Module):
    """Multi-head attention from positions (queries) to the words of a note (keys and values).

    The names of its parameters are those of diffusers' and of the published attention. With `norm_output` a
    LayerNorm follows the output projection, as in the published block.
    """

    def __init__(
        self, width: int, context_width: int, num_heads: int, head_width: int, norm_output: bool = False
    ) -> None:
        super().__init__()
        inner = num_heads * head_width
        self.num_heads = num_heads
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k = nn.Linear(context_width, inner, bias=False)
        self.to_v = nn.Linear(context_width, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, width), *([nn.LayerNorm(width)] if norm_output else []))

    def forward(
        self,
        x: Float[Tensor, "B N C"],
        tokens: Float[Tensor, "B L D"],
        mask: Bool[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B N C"]:
        """What each position takes from the note.

        `mask` is True at words to attend. A row without any attends nothing: its heads give zero, so the result
        is finite and the same at every position; `NullNote` gives such a row something to attend.
        """
        k, v = self._heads(self.to_k(tokens)), self._heads(self.to_v(tokens))
        keep = None
        if mask is not None:
            empty = ~mask.any(dim=1, keepdim=True)
            keep = (mask | empty)[:, None, None, :]  # (B, 1, 1, L); softmax over no words would be 0/0
            v = v.masked_fill(empty[:, None, :, None], 0.0)
        if self._folding_pays(x.shape[1], tokens.shape[1]):
            return self._folded(x, k, v, keep)
        attended = F.scaled_dot_product_attention(self._heads(self.to_q(x)), k, v, attn_mask=keep)
        return self.to_out(attended.transpose(1, 2).flatten(2))  # (B, heads, N, d) -> (B, N, heads * d)

    def _folding_pays(self, num_positions: int, num_words: int) -> bool:
        """Whether multiplying the note into both projections takes fewer multiplications than projecting x."""
        inner, width = self.to_q.weight.shape
        per_position = inner * (width + num_words)  # queries and their products with keys; the way back costs the same
        words = self.num_heads * num_words
        return num_positions * words * width + words * inner * width // self.num_heads < num_positions * per_position

    def _folded(self, x: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
        """The same, with keys folded into the query projection and values into the output projection.

        Nothing is ever `inner` wide at a position: (x Wq) k' = x (Wq k'), and (p v) Wo = p (v Wo), head by head.
        """
        inner, width = self.to_q.weight.shape
        head_width = inner // self.num_heads
        out = self.to_out[0]
        assert isinstance(out, nn.Linear)
        to_q = self.to_q.weight.view(self.num_heads, head_width, width)
        to_out = out.weight.view(width, self.num_heads, head_width)
        asks = torch.einsum("bhld,hdc->bchl", k, to_q) * head_width**-0.5  # (B, C, heads, L)
        tells = torch.einsum("bhld,chd->bhlc", v, to_out)  # (B, heads, L, C)
        scores = torch.bmm(x, asks.flatten(2)).unflatten(2, asks.shape[2:])  # (B, N, heads, L)
        if keep is not None:
            scores = scores.masked_fill(~keep.transpose(1, 2), float("-inf"))
        share = scores.softmax(dim=-1).flatten(2).to(x.dtype)
        attended = torch.bmm(share, tells.flatten(1, 2)) + out.bias
        return self.to_out[1:](attended)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, N, heads * d) -> (B, heads, N, d)


class NullNote(nn.Module):
    """The learned absent note: one word that stands where a note has none."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, text: TextFeatures) -> TextFeatures:
        """The same features, rows without any real word replaced by the learned word."""
        absent = ~text.mask.any(dim=1)  # (B,)
        first = torch.zeros_like(text.mask)
        first[:, 0] = absent
        null = self.token.to(text.tokens.dtype)
        return TextFeatures(
            tokens=torch.where(first[..., None], null, text.tokens),
            mask=text.mask | first,
            pooled=torch.where(absent[:, None], null, text.pooled),
        )


def grid_positions(boxes: Float[Tensor, "B 4"], height: int, width: int) -> Float[Tensor, "B 2 h w"]:
    """Where the centres of a grid's cells lie in the whole image: x to the right, then y down, in [0, 1].

    `boxes` is what the grid covers, (left, top, right, bottom); a box may reach beyond [0, 1] where an image was
    padded.
    """
    left, top, right, bottom = boxes.unbind(dim=1)
    x = (torch.arange(width, device=boxes.device, dtype=boxes.dtype) + 0.5) / width
    y = (torch.arange(height, device=boxes.device, dtype=boxes.dtype) + 0.5) / height
    x = left[:, None] + (right - left)[:, None] * x  # (B, w)
    y = top[:, None] + (bottom - top)[:, None] * y  # (B, h)
    return torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=1)
