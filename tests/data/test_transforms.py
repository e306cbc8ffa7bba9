"""Sizes, and back."""

import numpy as np
import pytest
import torch

from medtextdiff.data import transforms
from medtextdiff.types import IGNORE, Picture


def disc(size, radius):
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((rows - size / 2 + 0.5) ** 2 + (columns - size / 2 + 0.5) ** 2 < radius**2).long()


def test_to_tensor_is_rgb_between_minus_one_and_one():
    grey = transforms.to_tensor(Picture(np.array([[[0.0], [1.0]]], np.float32)))
    assert grey.shape == (3, 1, 2)
    assert grey[:, 0].tolist() == [[-1, 1]] * 3
    colour = transforms.to_tensor(Picture(np.array([[[0.0, 0.5, 1.0]]], np.float32)))
    assert colour.flatten().tolist() == [-1, 0, 1]


def test_resizing_keeps_a_flat_image_and_the_mean():
    torch.testing.assert_close(
        transforms.resize_image(torch.full((3, 50, 70), 0.3), (13, 9)), torch.full((3, 13, 9), 0.3)
    )
    noise = torch.rand(1, 64, 64)
    torch.testing.assert_close(transforms.resize_image(noise, 16).mean(), noise.mean(), atol=0.01, rtol=0)
    assert transforms.resize_image(noise, 16).std() < 0.5 * noise.std()  # antialiased


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (33, 17), (7, 100)])
def test_area_share_is_exact(size):
    region = torch.rand(48, 60) > 0.5
    share = transforms.area_share(region, size)
    assert share.shape == size
    torch.testing.assert_close(share.mean(), region.double().mean())
    if size == (24, 40):  # whole rows, one and a half columns
        left = region[0:2, 0].double().sum() + 0.5 * region[0:2, 1].double().sum()
        torch.testing.assert_close(share[0, 0], left / 3)


def test_shrunk_masks_keep_their_area_where_the_published_code_grows_them():
    mask = torch.zeros(1000, 1000, dtype=torch.long)
    for top in range(20, 960, 60):
        for left in range(20, 960, 60):
            mask[top : top + 32, left : left + 32] = disc(32, 14)
    area = mask.double().mean()
    ours = transforms.resize_mask(mask, 256).double().mean() / area
    published = transforms.published_mask(mask, 256).double().mean() / area
    assert 0.97 < ours < 1.03
    assert 1.08 < published < 1.25


def test_the_published_mask_keeps_what_is_not_counted():
    mask = torch.zeros(32, 32, dtype=torch.long)
    mask[:, 8:16], mask[:, 16:] = 1, IGNORE
    small = transforms.published_mask(mask, 16)
    assert (small[:, 8:] == IGNORE).all()
    assert (small[:, 4:8] == 1).all()
    assert (small[:, :3] == 0).all()


def test_area_decides_among_many_classes_and_ignore():
    mask = torch.tensor([[0, 0, 2, 2], [0, 3, 2, IGNORE], [1, 1, IGNORE, IGNORE], [3, 3, IGNORE, 0]])
    assert transforms.resize_mask(mask, 2).tolist() == [[0, 2], [1, IGNORE]]  # a tie goes to the smaller id
    assert transforms.resize_mask(torch.tensor([[0, 0, 5, 5], [5, 5, 5, 0]]), (1, 1)).tolist() == [[5]]
    assert transforms.resize_mask(torch.tensor([[0, 1], [1, 0]]), 1).tolist() == [[0]]


def test_area_agrees_with_counting_where_sizes_divide():
    mask = torch.randint(0, 4, (40, 60))
    blocks = mask.reshape(10, 4, 10, 6).permute(0, 2, 1, 3).reshape(10, 10, 24)
    counts = torch.stack([(blocks == label).sum(-1) for label in range(4)])
    assert torch.equal(transforms.resize_mask(mask, 10), counts.argmax(0))


def test_enlarged_masks_repeat_and_types_stay():
    mask = torch.tensor([[0, 1], [2, 255]], dtype=torch.uint8)
    large = transforms.resize_mask(mask, 4)
    assert large.dtype == torch.uint8
    assert torch.equal(large, mask.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert torch.equal(transforms.resize_mask(large, 2), mask)


def test_restored_probabilities_still_sum_to_one():
    probs = torch.rand(3, 8, 8).softmax(0)
    for size in ((31, 17), (5, 4)):
        torch.testing.assert_close(transforms.restore(probs, size).sum(0), torch.ones(size))


@pytest.mark.parametrize("shape", [(20, 30), (16, 32), (3, 5), (1, 1)])
def test_padding_is_undone(shape):
    image = torch.rand(3, *shape)
    padded, size = transforms.pad_to_multiple(image, 16)
    assert padded.shape[-1] % 16 == padded.shape[-2] % 16 == 0
    assert torch.equal(transforms.unpad(padded, size), image)


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1 x 1"):
        transforms.resize_image(torch.rand(3, 4, 4), 0)
