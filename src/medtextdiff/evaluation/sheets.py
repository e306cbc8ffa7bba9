"""Sheets of many small images: contact sheets, and pairs beside each other."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

_GAP, _PAPER = 4, 255


def sheet(images: Sequence[UInt8[np.ndarray, "H W 3"]], *, columns: int, side: int = 128) -> UInt8[np.ndarray, "h w 3"]:
    """The images row by row, each at most `side` pixels, on white.

    Raises:
        ValueError: no images.
    """
    if not images or columns < 1:
        raise ValueError("a sheet needs at least one image and one column")
    small = [_fitted(image, side) for image in images]
    rows = -(-len(small) // columns)
    step = side + _GAP
    paper = np.full((rows * step + _GAP, min(columns, len(small)) * step + _GAP, 3), _PAPER, dtype=np.uint8)
    for k, image in enumerate(small):
        top, left = _GAP + k // columns * step, _GAP + k % columns * step
        paper[top : top + image.shape[0], left : left + image.shape[1]] = image
    return paper


def png_bytes(image: UInt8[np.ndarray, "H W 3"], text: Mapping[str, str] | None = None) -> bytes:
    """The image as PNG with this text and no other content: no times, no names."""
    file, about = io.BytesIO(), PngInfo()
    for name, value in (text or {}).items():
        about.add_text(name, value)
    Image.fromarray(np.ascontiguousarray(image)).save(file, format="PNG", optimize=True, pnginfo=about)
    return file.getvalue()


def _fitted(image: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    scale = side / max(image.shape[:2])
    size = [max(1, round(length * scale)) for length in image.shape[:2]]
    kind = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), kind))
