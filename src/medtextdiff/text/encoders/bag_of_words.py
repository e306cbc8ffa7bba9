"""A note as its words without order or meaning: what any encoder must beat to be worth its time."""

import hashlib
import re
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from medtextdiff import config
from medtextdiff.types import TextFeatures

_WORD = re.compile(r"\w+")


class Config(config.Config):
    """How many places there are for words; two words share one by chance (the hashing trick, arXiv 0902.2206)."""

    width: int = Field(default=1024, ge=2)
    max_tokens: int = Field(default=8192, ge=1)

    def build(self) -> "BagOfWords":
        """The encoder; it has no weights."""
        return BagOfWords(self.width, self.max_tokens)


class BagOfWords(nn.Module):
    """Each word is a one at its place and zeros elsewhere; `pooled` is the share of each place in the note.

    Letter case is ignored. A note is cut after `limit` words.
    """

    def __init__(self, width: int, max_tokens: int) -> None:
        super().__init__()
        self.width, self.limit = width, max_tokens
        self._here: torch.Tensor
        self.register_buffer("_here", torch.zeros(1), persistent=False)  # says on which device the words are wanted

    def lengths(self, notes: Sequence[str]) -> list[int]:
        """Words of each note before any cut."""
        return [len(_WORD.findall(note)) for note in notes]

    def forward(self, notes: Sequence[str]) -> TextFeatures:
        """The features of `notes`, in their order; L is the longest note's words (1 when all are empty)."""
        places = [[self._place(word) for word in _WORD.findall(note.lower())[: self.limit]] for note in notes]
        length = max([1, *map(len, places)])
        device = self._here.device
        mask = torch.tensor([[k < len(row) for k in range(length)] for row in places], device=device).view(-1, length)
        ids = torch.tensor([row + [0] * (length - len(row)) for row in places], device=device).view(-1, length)
        tokens = F.one_hot(ids.long(), self.width) * mask[..., None]  # (B, L, D)
        tokens = tokens.to(self._here.dtype)
        counts = mask.sum(1, keepdim=True).clamp(min=1)
        return TextFeatures(tokens, mask.bool(), tokens.sum(1) / counts)

    def _place(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode(errors="replace"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.width
