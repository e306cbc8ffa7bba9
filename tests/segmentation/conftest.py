"""A small word encoder and a small FastTextDiff for the segmentation tests; both real, both quick."""

import hashlib
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from medtextdiff import config
from medtextdiff.diffusion import denoiser
from medtextdiff.segmentation import features
from medtextdiff.segmentation.heads import pyramid
from medtextdiff.segmentation.models import fasttextdiff
from medtextdiff.types import TextFeatures

WIDTH = 12


class Words(config.Config):
    """A text encoder of fixed random word vectors; `pad_to` pads every note to that many words."""

    pad_to: int = 0

    def build(self) -> "WordEncoder":
        return WordEncoder(self.pad_to)


class WordEncoder(nn.Module):
    def __init__(self, pad_to: int) -> None:
        super().__init__()
        self.width, self.pad_to = WIDTH, pad_to
        self.table = nn.Embedding(97, WIDTH, padding_idx=0).requires_grad_(False)
        nn.init.normal_(self.table.weight, generator=torch.Generator().manual_seed(5))

    def forward(self, notes: Sequence[str]) -> TextFeatures:
        words = [note.split() for note in notes]
        length = max(self.pad_to, 1, *(len(row) for row in words))
        ids = torch.zeros(len(notes), length, dtype=torch.long)
        for row, found in enumerate(words):
            for column, word in enumerate(found):
                ids[row, column] = 1 + int(hashlib.sha256(word.encode()).hexdigest(), 16) % 96
        tokens, mask = self.table(ids), ids > 0
        pooled = (tokens * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp_min(1)
        return TextFeatures(tokens=tokens, mask=mask, pooled=pooled)


def small(**changes) -> fasttextdiff.Config:
    """A FastTextDiff of two levels (strides 4 and 2) and two timesteps; fields of the config may be changed."""
    return fasttextdiff.Config(
        denoiser=denoiser.Scratch.tiny().replace(trainable=False),
        text=Words(),
        features=features.Config(taps=(0, 2), timesteps=(50, 150)),
        head=pyramid.Config(width=16),
    ).replace(**changes)


@pytest.fixture
def made():
    """Builds a small FastTextDiff in eval mode, the same weights every time."""

    def make(**changes):
        torch.manual_seed(0)
        return small(**changes).build().eval()

    return make


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
