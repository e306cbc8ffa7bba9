"""Pictures as tensors, other sizes, and back to the native one. Masks: area decides when shrunk."""

import torch
from jaxtyping import Float, Int, Integer, Real
from torch import Tensor
from torch.nn import functional as F

from medtextdiff.types import IGNORE, Picture

Size = tuple[int, int]  # rows, columns


def to_tensor(picture: Picture) -> Float[Tensor, "3 H W"]:
    """The picture as RGB in [-1, 1]; grey is repeated."""
    pixels = torch.from_numpy(picture.pixels).permute(2, 0, 1)  # (C, H, W)
    return pixels.expand(3, -1, -1).mul(2).sub(1).contiguous()


def resize_image(image: Real[Tensor, "C H W"], size: int | Size, antialias: bool = True) -> Real[Tensor, "C h w"]:
    """Bilinear, with antialiasing where it shrinks; corners are not aligned. An int is a square. uint8 is rounded.

    `antialias` False shrinks as the published code does.
    """
    rows, columns = _pair(size)
    if image.shape[-2:] == (rows, columns):
        return image
    return F.interpolate(image[None], (rows, columns), mode="bilinear", antialias=antialias, align_corners=False)[0]


def resize_mask(mask: Integer[Tensor, "H W"], size: int | Size) -> Integer[Tensor, "h w"]:
    """Shrunk: each pixel takes the class with the largest share of its area (IGNORE is one too). Enlarged: the nearest.

    Equal shares go to the smaller id. The published code grows masks here: `published_mask`.
    """
    rows, columns = _pair(size)
    if mask.shape == (rows, columns):
        return mask
    if rows >= mask.shape[0] and columns >= mask.shape[1]:
        return F.interpolate(mask[None, None].double(), (rows, columns), mode="nearest-exact")[0, 0].to(mask.dtype)
    ids = torch.bincount(mask.flatten()).nonzero().flatten().tolist()
    best = torch.full((rows, columns), ids[0], dtype=mask.dtype, device=mask.device)
    if len(ids) == 1:
        return best
    most = area_share(mask == ids[0], (rows, columns))
    for label in ids[1:]:
        share = area_share(mask == label, (rows, columns)) if len(ids) > 2 else 1 - most
        larger = share > most + 1e-9  # equal shares differ by rounding only
        best[larger] = label
        most = torch.where(larger, share, most)
    return best


def area_share(region: Tensor, size: Size) -> Float[Tensor, "h w"]:
    """The share of each new pixel's area that the region covers, in [0, 1]; exact for any ratio of sizes."""
    share = region.double()
    for rows in size:
        share = _pool_rows(share, rows).T  # (W, h), then (h, w)
    return share


def published_mask(mask: Integer[Tensor, "H W"], size: int | Size) -> Integer[Tensor, "h w"]:
    """The published code's mask: 0/255 shrunk bilinearly without antialiasing, then everything above 0 is foreground.

    It grows regions (by 13 % on MoNuSeg from 1000 to 256 pixels); only for scores beside published ones. That code
    knows no IGNORE: here it stays what it is, where it has most of the area.
    """
    ignored = mask == IGNORE
    marked = ((mask > 0) & ~ignored)[None, None].double() * 255
    levels = F.interpolate(marked, _pair(size), mode="bilinear", align_corners=False)
    found = (levels[0, 0].round() > 0).to(mask.dtype)
    return found.masked_fill(resize_mask(mask, size) == IGNORE, IGNORE) if ignored.any() else found


def restore(scores: Float[Tensor, "K h w"], size: Size) -> Float[Tensor, "K H W"]:
    """Logits or probabilities at another size, as `resize_image`; probabilities still sum to 1."""
    return resize_image(scores, size)


def pad_to_multiple(image: Float[Tensor, "C H W"], multiple: int) -> tuple[Float[Tensor, "C h w"], Size]:
    """The image, continued at right and bottom by its mirror image to multiples of `multiple`; and its old size.

    An image too small to mirror is continued by its edge.
    """
    rows, columns = image.shape[-2:]
    down, right = -rows % multiple, -columns % multiple
    mode = "reflect" if down < rows and right < columns else "replicate"
    padded = F.pad(image[None], (0, right, 0, down), mode=mode)[0] if down or right else image
    return padded, (rows, columns)


def unpad(scores: Float[Tensor, "K h w"], size: Size) -> Float[Tensor, "K H W"]:
    """Undo `pad_to_multiple`."""
    return scores[:, : size[0], : size[1]]


def ignore_like(image: Float[Tensor, "C H W"]) -> Int[Tensor, "H W"]:
    """A mask that counts nowhere, for an image without one."""
    return torch.full(image.shape[-2:], IGNORE, dtype=torch.int64, device=image.device)


def _pair(size: int | Size) -> Size:
    rows, columns = (size, size) if isinstance(size, int) else size
    if rows < 1 or columns < 1:
        raise ValueError(f"a size must be at least 1 x 1, got {rows} x {columns}")
    return rows, columns


def _pool_rows(values: Tensor, rows: int) -> Tensor:
    """Means over `rows` equal strips, by differences of the running integral at the strips' edges."""
    integral = F.pad(values.cumsum(0), (0, 0, 1, 0))  # (H + 1, W)
    edges = torch.linspace(0, values.shape[0], rows + 1, dtype=torch.float64, device=values.device)
    below = edges.floor().long().clamp(max=values.shape[0] - 1)
    at_edges = torch.lerp(integral[below], integral[below + 1], (edges - below)[:, None])
    return at_edges.diff(dim=0) * (rows / values.shape[0])
