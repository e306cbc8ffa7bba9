"""Masks and probabilities as pictures for people: colours that colour-blind readers can tell apart."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from medtextdiff.types import IGNORE

# Okabe and Ito's palette, brightened where it has to stand on tissue and on black.
AGREED = (0, 190, 140)
MISSED = (255, 140, 0)
FALSE_ALARM = (60, 110, 255)
WRONG_CLASS = (225, 80, 190)
CLASS_COLOURS = (AGREED, MISSED, FALSE_ALARM, WRONG_CLASS, (240, 228, 66), (86, 180, 233))

# Five stops of viridis (matplotlib, CC0), dark = 0, bright = 1.
HEAT = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


def overlay(image: UInt8[np.ndarray, "H W 3"], mask: Int[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """The image with each class of the mask tinted and outlined; background and 255 stay as they are."""
    labels = [int(label) for label in np.unique(mask) if label not in (0, IGNORE)]
    painted = image.astype(np.float32)
    for label in labels:
        colour = CLASS_COLOURS[(label - 1) % len(CLASS_COLOURS)]
        _tint(painted, mask == label, colour, 0.3)
        _tint(painted, _edge(mask == label), colour, 1.0)
    return painted.round().astype(np.uint8)


def error_overlay(
    image: UInt8[np.ndarray, "H W 3"], truth: Int[np.ndarray, "H W"], pred: Int[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """The image with agreement, missed, false alarm and wrong class in their colours; ignored pixels are dimmed."""
    ignored = truth == IGNORE
    truth, pred = np.where(ignored, 0, truth), np.where(ignored, 0, pred)
    painted = np.where(ignored[..., None], image // 3, image).astype(np.float32)
    # Errors are often a thin rim, so they are painted stronger than agreement, and without outlines.
    _tint(painted, (truth == pred) & (truth > 0), AGREED, 0.35)
    _tint(painted, (truth > 0) & (pred == 0), MISSED, 0.8)
    _tint(painted, (truth == 0) & (pred > 0), FALSE_ALARM, 0.8)
    _tint(painted, (truth > 0) & (pred > 0) & (truth != pred), WRONG_CLASS, 0.8)
    return painted.round().astype(np.uint8)


def heat(probability: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Probabilities in [0, 1] in viridis colours."""
    stops = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(probability, stops, [colour[c] for colour in HEAT]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def grid(images: Sequence[Float[np.ndarray, "H W 3"]], columns: int, gap: int = 2) -> Float[np.ndarray, "h w 3"]:
    """Images of one size in rows of `columns`, parted by white; missing places stay white."""
    height, width, _ = images[0].shape
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), dtype=np.float32)
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        top, left = row * (height + gap), column * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def shrink_image(image: UInt8[np.ndarray, "H W 3"], max_side: int) -> UInt8[np.ndarray, "h w 3"]:
    """The image with its longer side at most `max_side`, never enlarged."""
    height, width = _fit(image.shape[:2], max_side)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def shrink_labels(mask: Int[np.ndarray, "H W"], max_side: int) -> Int[np.ndarray, "h w"]:
    """The nearest labels on the grid of `shrink_image`; for looking at, not for scores."""
    height, width = _fit(mask.shape, max_side)
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    return mask[rows[:, None], columns]


def png_uri(image: UInt8[np.ndarray, "H W 3"]) -> str:
    """The image as a `data:` address, so that a page needs no other file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _fit(size: tuple[int, ...], max_side: int) -> tuple[int, int]:
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _tint(
    painted: Float[np.ndarray, "H W 3"], area: Bool[np.ndarray, "H W"], colour: tuple[int, int, int], strength: float
) -> None:
    painted[area] = (1 - strength) * painted[area] + strength * np.array(colour, dtype=np.float32)


def _edge(area: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Pixels of the area with a neighbour outside it; the border of the image is no edge."""
    padded = np.pad(area, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return area & ~inside
