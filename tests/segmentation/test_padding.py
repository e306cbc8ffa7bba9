import pytest
import torch
import torch.nn.functional as F

from medtextdiff.segmentation import padding


def test_equals_reflection_padding():
    images = torch.rand(2, 3, 7, 9)
    torch.testing.assert_close(padding.to_multiple(images, 4), F.pad(images, (0, 3, 0, 1), mode="reflect"))
    assert padding.to_multiple(images[..., :4, :8], 4) is not None
    torch.testing.assert_close(padding.to_multiple(images[..., :4, :8], 4), images[..., :4, :8])


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_tiny_images_are_reflected_again_and_again(side):
    image = torch.arange(float(side)).expand(1, 1, side, side)
    grown = padding.to_size(image, 11, 11)[0, 0]
    period = max(2 * side - 2, 1)
    torch.testing.assert_close(grown[:, :side], image[0, 0, :1].expand(11, side))
    torch.testing.assert_close(grown[0, period:], grown[0, : 11 - period])


def test_box_grows_with_the_padding():
    boxes = torch.tensor([[0.5, 0.5, 0.75, 1.0]])
    grown = padding.padded_boxes(boxes, (10, 20), (15, 40))
    torch.testing.assert_close(grown, torch.tensor([[0.5, 0.5, 1.0, 1.25]]))
