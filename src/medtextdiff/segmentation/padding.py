"""Any image size for nets that need sides of a certain multiple: pad by reflection at the right and at the bottom."""

import torch
from jaxtyping import Float
from torch import Tensor


def to_multiple(images: Float[Tensor, "B C H W"], multiple: int) -> Float[Tensor, "B C H2 W2"]:
    """The images with both sides grown to the next multiple, the new pixels reflected from within."""
    height, width = images.shape[-2:]
    return to_size(images, -(-height // multiple) * multiple, -(-width // multiple) * multiple)


def to_size(images: Float[Tensor, "B C H W"], height: int, width: int) -> Float[Tensor, "B C H2 W2"]:
    """The images grown to `height` x `width`; an image smaller than what is missing is reflected again and again."""
    if height > images.shape[-2]:
        images = images.index_select(-2, _reflected(images.shape[-2], height, images.device))
    if width > images.shape[-1]:
        images = images.index_select(-1, _reflected(images.shape[-1], width, images.device))
    return images


def padded_boxes(boxes: Float[Tensor, "B 4"], size: tuple[int, int], padded: tuple[int, int]) -> Float[Tensor, "B 4"]:
    """What an image shows after padding from `size` to `padded` (height, width): its box, grown right and down."""
    left, top, right, bottom = boxes.unbind(dim=1)
    right = left + (right - left) * (padded[1] / size[1])
    bottom = top + (bottom - top) * (padded[0] / size[0])
    return torch.stack([left, top, right, bottom], dim=1)


def whole_boxes(num: int, device: torch.device) -> Float[Tensor, "B 4"]:
    """`num` boxes that each cover a whole image."""
    return torch.tensor([0.0, 0.0, 1.0, 1.0], device=device).expand(num, 4)


def _reflected(length: int, wanted: int, device: torch.device) -> Tensor:
    period = max(2 * (length - 1), 1)
    index = torch.arange(wanted, device=device) % period
    return torch.minimum(index, period - index) if length > 1 else torch.zeros_like(index)
