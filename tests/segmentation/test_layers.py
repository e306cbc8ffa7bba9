from unittest.mock import patch

import pytest
import torch

from medtextdiff.layers import CrossAttention, NullNote, grid_positions
from medtextdiff.types import TextFeatures
from tests.reference.fill import seeded


def test_attention_is_softmax_of_scaled_products():
    torch.manual_seed(0)
    layer = CrossAttention(width=10, context_width=6, num_heads=2, head_width=4)
    x, tokens = seeded(2, 7, 10, seed=1), seeded(2, 3, 6, seed=2)
    q, k, v = (f(y).unflatten(-1, (2, 4)) for f, y in ((layer.to_q, x), (layer.to_k, tokens), (layer.to_v, tokens)))
    scores = torch.einsum("bnhd,blhd->bhnl", q, k) / 4**0.5
    expected = layer.to_out(torch.einsum("bhnl,blhd->bnhd", scores.softmax(dim=-1), v).flatten(2))
    torch.testing.assert_close(layer(x, tokens), expected)
    torch.testing.assert_close(layer(x, tokens, torch.ones(2, 3, dtype=torch.bool)), expected)


def test_row_without_words_is_finite_and_takes_nothing():
    torch.manual_seed(0)
    layer = CrossAttention(10, 6, num_heads=2, head_width=4)
    mask = torch.tensor([[True, False, False], [False, False, False]])
    x = seeded(2, 7, 10, seed=1).requires_grad_()
    out = layer(x, seeded(2, 3, 6, seed=2), mask)
    torch.testing.assert_close(out[1], layer.to_out[0].bias.expand(7, 10))
    out.sum().backward()
    assert x.grad.isfinite().all()


def test_null_note_stands_only_where_no_word_is():
    null = NullNote(6)
    tokens, mask = seeded(2, 3, 6, seed=1), torch.tensor([[True, True, False], [False, False, False]])
    text = null(TextFeatures(tokens, mask, tokens.mean(dim=1)))
    torch.testing.assert_close(text.tokens[0], tokens[0])
    torch.testing.assert_close(text.tokens[1, 0], null.token)
    torch.testing.assert_close(text.pooled[1], null.token)
    assert text.mask.tolist() == [[True, True, False], [True, False, False]]


def test_grid_of_a_crop_is_the_part_of_the_whole_grid():
    whole = grid_positions(torch.tensor([[0.0, 0, 1, 1]]), 8, 8)
    crop = grid_positions(torch.tensor([[0.5, 0.25, 1, 0.75]]), 4, 4)
    torch.testing.assert_close(crop, whole[:, :, 2:6, 4:])
    assert whole[0, 0, 0, 0] == 0.5 / 8  # x first
    assert whole[0, 1, -1, 0] == 7.5 / 8  # y grows downwards


@pytest.mark.parametrize("num_words", [1, 3])
@pytest.mark.parametrize("norm_output", [False, True])
def test_folded_attention_is_the_plain_one(num_words, norm_output):
    """Same values and gradients, whichever of the two is chosen; also for a row without words."""
    torch.manual_seed(0)
    layer = CrossAttention(width=24, context_width=6, num_heads=2, head_width=16, norm_output=norm_output)
    mask = torch.ones(2, num_words, dtype=torch.bool)
    mask[1] = False
    mask[0, -1] = num_words == 1
    results = []
    for fold in (True, False):
        x, tokens = seeded(2, 40, 24, seed=1).requires_grad_(), seeded(2, num_words, 6, seed=2).requires_grad_()
        assert layer._folding_pays(40, num_words)
        with patch.object(layer, "_folding_pays", return_value=fold):
            out = layer(x, tokens, mask)
        layer.zero_grad()
        (out * seeded(*out.shape, seed=3)).sum().backward()
        results.append([out, x.grad, tokens.grad, *(weight.grad.clone() for weight in layer.parameters())])
    for folded, plain in zip(*results, strict=True):
        torch.testing.assert_close(folded, plain, atol=2e-5, rtol=1e-4)


def test_folding_is_left_for_long_notes():
    layer = CrossAttention(width=768, context_width=768, num_heads=8, head_width=64)
    assert layer._folding_pays(4096, 10)
    assert not layer._folding_pays(4096, 70)
    assert not layer._folding_pays(8, 10)
