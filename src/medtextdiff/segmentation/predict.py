"""One image and its note to probabilities at the image's own size: resized as a whole, or in overlapping tiles."""

from collections.abc import Callable, Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from medtextdiff.segmentation import padding
from medtextdiff.types import Segmenter

Mode = Literal["resize", "tiles"]
MirrorNote = Callable[[str, bool, bool], str]  # (note, left_right, up_down) -> the note of the mirrored image
Window = tuple[int, int]  # top, left

_MIRRORS = ((False, False), (True, False), (False, True), (True, True))  # (left_right, up_down)
_LEAST = 256  # working pixels along a side of a tile: less is too little context


@torch.no_grad()
def predict(
    segmenter: Segmenter,
    image: Float[Tensor, "3 H W"],
    note: str,
    *,
    mode: str = "tiles",
    size: int = 256,
    tile: int = 256,
    overlap: float = 0.5,
    scale: float = 1.0,
    flips: MirrorNote | None = None,
    batch_size: int = 4,
    antialias: bool = True,
) -> Float[Tensor, "K H W"]:
    """Probabilities of each class at the image's size; they sum to 1 at every pixel.

    Args:
        segmenter: in eval mode, on the image's device.
        image: RGB in [-1, 1], any size.
        note: "" when there is none.
        mode: "resize" makes the whole image `size` x `size`; "tiles" reads it at `scale` times its size in tiles.
        size: working size of "resize", in pixels.
        tile: side of a tile in working pixels, at most; see `tile_size`.
        overlap: share of a tile that its neighbour also sees, 0 to below 1.
        scale: working pixels per image pixel of "tiles".
        flips: average over the four mirror images; the function mirrors the note with the image, since
            "upper right" means another place in a mirrored image. None: no averaging.
        batch_size: tiles the segmenter sees at once; it bounds the memory.
        antialias: when the image is made smaller; False is plain bilinear, as the published code resizes.

    Raises:
        ValueError: a setting out of range, an image that is no Float[3 H W], or a segmenter in training mode.
    """
    _check(segmenter, image, mode, size, tile, overlap, scale, batch_size)
    height, width = image.shape[-2:]
    working = (size, size) if mode == "resize" else (max(1, round(height * scale)), max(1, round(width * scale)))
    work = _resize(image[None], working, antialias)
    total = torch.zeros(segmenter.num_classes, *working, device=image.device)
    mirrors = _MIRRORS if flips is not None else _MIRRORS[:1]
    for left_right, up_down in mirrors:
        dims = [dim for dim, wanted in ((-1, left_right), (-2, up_down)) if wanted]
        words = flips(note, left_right, up_down) if flips is not None and dims else note
        if mode == "resize":
            probs = segmenter(work.flip(dims), [words]).float().softmax(dim=1)[0]
        else:
            probs = _tiled(segmenter, work.flip(dims), words, tile, overlap, batch_size)
        total = total + probs.flip(dims)
    return _resize((total / len(mirrors))[None], (height, width), antialias)[0]


def tile_size(size: tuple[int, int], tile: int) -> tuple[int, int]:
    """The (height, width) of the tiles of a working image of `size`: no larger than the image, so that nothing is
    computed in vain, but at least 256 (or `tile`), to which a smaller image is padded by reflection."""
    height, width = (min(tile, max(side, _LEAST)) for side in size)
    return height, width


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles of `tile` begin along a side of `length` >= tile: evenly spread, first at 0, last at the end."""
    if length <= tile:
        return [0]
    stride = max(1, int(tile * (1 - overlap)))
    num = -(-(length - tile) // stride) + 1
    return [round(k * (length - tile) / (num - 1)) for k in range(num)]


def tile_boxes(windows: list[Window], tile: tuple[int, int], size: tuple[int, int]) -> Float[Tensor, "B 4"]:
    """What tiles of `tile` (height, width) show of an image of `size`: (left, top, right, bottom) in its [0, 1]."""
    height, width = size
    boxes = [(left / width, top / height, (left + tile[1]) / width, (top + tile[0]) / height) for top, left in windows]
    return torch.tensor(boxes, dtype=torch.float32)


def window(tile: tuple[int, int]) -> Float[Tensor, "h w"]:
    """Weight of a tile's pixels: highest in the middle, falling smoothly, never 0 (an image's edge has one tile)."""
    rows, columns = (torch.sin(torch.pi * (torch.arange(n) + 0.5) / n).square() + 1e-3 for n in tile)
    return rows[:, None] * columns[None, :]


def _tiled(segmenter: Segmenter, work: Tensor, note: str, tile: int, overlap: float, batch_size: int) -> Tensor:
    height, width = work.shape[-2:]
    rows, columns = tile_size((height, width), tile)
    padded = padding.to_size(work, max(rows, height), max(columns, width))[0]
    windows = [
        (top, left)
        for top in tile_starts(padded.shape[-2], rows, overlap)
        for left in tile_starts(padded.shape[-1], columns, overlap)
    ]
    weight = window((rows, columns)).to(work.device)
    total = work.new_zeros(segmenter.num_classes, *padded.shape[-2:], dtype=torch.float32)
    weights = torch.zeros_like(total[0])
    for chunk in _chunks(windows, batch_size):
        tiles = torch.stack([padded[:, top : top + rows, left : left + columns] for top, left in chunk])
        boxes = tile_boxes(chunk, (rows, columns), (height, width)).to(work.device)
        probs = segmenter(tiles, [note] * len(chunk), boxes).float().softmax(dim=1)
        for (top, left), one in zip(chunk, probs, strict=True):
            place = (slice(top, top + rows), slice(left, left + columns))
            total[:, *place] += one * weight
            weights[place] += weight
    return (total / weights)[:, :height, :width]


def _chunks(windows: list[Window], size: int) -> Iterator[list[Window]]:
    for start in range(0, len(windows), size):
        yield windows[start : start + size]


def _resize(images: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=antialias)


def _check(
    segmenter: Segmenter, image: Tensor, mode: str, size: int, tile: int, overlap: float, scale: float, batch_size: int
) -> None:
    if getattr(segmenter, "training", False):
        raise ValueError("the segmenter is in training mode, its dropout and norms are not those of use; call .eval()")
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise ValueError(f"one RGB image of shape (3, H, W) is needed, got {tuple(image.shape)}")
    if mode not in ("resize", "tiles"):
        raise ValueError(f"mode is 'resize' or 'tiles', got '{mode}'")
    for name, number in (("size", size), ("tile", tile), ("scale", scale), ("batch_size", batch_size)):
        if not number > 0:
            raise ValueError(f"{name} must be above 0, got {number}")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap is a share of the tile, from 0 to below 1; got {overlap}")
