"""The published attention block: the published code's output."""

from pathlib import Path

import numpy as np
import torch

from medtextdiff.segmentation.fusion import published
from tests.reference.fill import fill_module, seeded

GOLDENS = Path(__file__).parent / "goldens"


@torch.no_grad()
def test_output_is_the_published_one():
    block = fill_module(published.Config().build(768, 768), 0.05).eval()
    x, tokens = seeded(1, 64, 768, seed=30), seeded(1, 10, 768, seed=31)
    expected = torch.from_numpy(np.load(GOLDENS / "cross_attention.npz")["y"])
    y = block.attend(x, tokens)
    assert (y - expected).abs().max() <= 1e-4 * expected.abs().max()
    level = x.transpose(1, 2).unflatten(2, (8, 8))
    mask, positions = torch.ones(1, 10, dtype=torch.bool), torch.zeros(1, 2, 8, 8)
    fused = block(level, tokens, mask, tokens.mean(dim=1), positions)
    torch.testing.assert_close(fused.flatten(2).transpose(1, 2), y)
