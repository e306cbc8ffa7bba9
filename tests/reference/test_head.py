"""The published head: the published code's logits, counts and names (goldens/README of the parity files)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medtextdiff.segmentation import published
from medtextdiff.segmentation.heads import published as head
from medtextdiff.types import TextFeatures
from tests.reference.fill import fill_module, seeded

GOLDENS = Path(__file__).parent / "goldens"
STRIDES = (32, 16, 8, 4)  # the published head does not read them


def text_of(tokens):
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    return TextFeatures(tokens=tokens, mask=mask, pooled=tokens.mean(dim=1))


def described(name):
    return json.loads((GOLDENS / f"head_{name}.json").read_text())


@pytest.mark.parametrize("name", ["monuseg", "qata"])
def test_counts_and_names_are_the_published_ones(name):
    golden = described(name)
    with torch.device("meta"):
        module = head.Config().build(golden["extract_dims"], STRIDES, 768, 2)
    shapes = {key: list(value.shape) for key, value in module.state_dict().items()}
    assert shapes == golden["state_dict"]
    assert set(shapes) == published.HEAD_KEYS
    assert sum(weight.numel() for weight in module.parameters()) == golden["params"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["monuseg", "qata"])
@torch.no_grad()
def test_logits_are_the_published_ones(name):
    golden, arrays = described(name), np.load(GOLDENS / f"head_{name}.npz")
    dims, sides = golden["extract_dims"], golden["feature_sizes"]
    module = fill_module(head.Config().build(dims, STRIDES, 768, 2), 0.02).eval()
    levels = [seeded(1, c, side, side, seed=10 + k) for k, (c, side) in enumerate(zip(dims, sides, strict=True))]
    logits = module(levels, text_of(seeded(1, 10, 768, seed=20)), torch.tensor([[0.0, 0, 1, 1]]), (256, 256))
    expected = torch.from_numpy(arrays["logits"])
    assert (logits[:, :, ::4, ::4] - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert logits.mean().item() == pytest.approx(float(arrays["logits_mean"]), rel=1e-4)
    assert logits.std().item() == pytest.approx(float(arrays["logits_std"]), rel=1e-4)


@torch.no_grad()
def test_small_head_is_the_plain_computation():
    """The tap-wise first convolution is the convolution of the enlarged, concatenated levels (reference 1.5)."""
    settings = head.Config(width=24, hidden=(6, 5))
    module = fill_module(settings.build((48, 36, 36, 24), STRIDES, 16, 3), 0.2).eval()
    levels = [
        seeded(2, c, s, s + 1, seed=10 + k)
        for k, (c, s) in enumerate(zip((48, 36, 36, 24), (2, 4, 8, 15), strict=True))
    ]
    text = text_of(seeded(2, 5, 16, seed=20))
    projected = [module.down1(levels[0]), module.down2(levels[1]), module.down2(levels[2]), levels[3]]
    enlarged = []
    for level in projected:
        rows = level.flatten(2).transpose(1, 2)
        fused = module.cross1.attend(rows, text.tokens).transpose(1, 2).unflatten(2, level.shape[2:])
        enlarged.append(F.interpolate(fused, size=(16, 20), mode="bilinear", align_corners=False))
    expected = module.decodes(torch.cat(enlarged, dim=1))
    logits = module(levels, text, torch.tensor([[0.0, 0, 1, 1]] * 2), (16, 20))
    torch.testing.assert_close(logits, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_levels_that_cannot_share_a_projection_are_refused():
    with pytest.raises(ValueError, match="share its projection"):
        head.Config().build((3072, 1536, 512, 768), STRIDES, 768, 2)
    with pytest.raises(ValueError, match="text encoder"):
        head.Config().build((1536, 1536), STRIDES[:2], None, 2)
