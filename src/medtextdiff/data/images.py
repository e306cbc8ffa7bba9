"""Images and masks from files, and back: every number gets its meaning here.

Reads PNG, JPEG, TIFF and BMP with 1, 8 or 16 bits (and float TIFF within [0, 1]), grey, RGB, with opacity or a
palette. Known limit: Pillow gives 16-bit *colour* PNG with 8 bits a channel; 16-bit colour TIFF is read in full.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medtextdiff.data.atomic import whole_file
from medtextdiff.data.decoding import Stored, decode
from medtextdiff.data.errors import ImageError
from medtextdiff.types import IGNORE, Picture, Record

MAX_PIXELS = 100_000_000  # as float32 RGB that is 1.2 GB
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

MaskCoding = Literal["1-bit", "0/255", "palette", "labels"]

# Class 1 first: orange, blue, green, pink, yellow, cyan, red, violet (a colour-blind-safe order after Okabe and Ito).
_COLOURS = np.array(
    [
        [255, 120, 0],
        [0, 114, 255],
        [0, 190, 90],
        [230, 90, 200],
        [240, 228, 66],
        [0, 210, 230],
        [220, 20, 40],
        [130, 80, 255],
    ],
    dtype=np.uint8,
)


def read(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """The image as float32 in [0, 1], grey (C = 1) or RGB (C = 3), upright.

    White is the largest number that the file's own bit depth can hold. Opacity is composited over black, so the
    colours hidden under transparent pixels never reach a model.

    Raises:
        ImageError: missing, empty, damaged, not an image, several pages, too large, NaN, or outside [0, 1].
    """
    path = Path(path)
    stored = decode(path, max_pixels)
    values = stored.values
    if stored.colours is not None:
        values = _look_up(path, stored)
    pixels = _scaled(path, values, stored.white)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels  # (H, W, C)
    if stored.alpha:
        pixels = pixels[:, :, :-1] * pixels[:, :, -1:]
    if stored.opacity is not None:
        pixels = pixels * (stored.opacity[:, :, None] / np.float32(255))
    bits = 1 if stored.kind == "bits" else values.dtype.itemsize * 8
    return Picture(np.ascontiguousarray(pixels), header={"format": stored.file_format, "bits": bits})


def read_mask(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Int[np.ndarray, "H W"]:
    """Class ids, int64: what the file's numbers stand for.

    1 bit: 0 and 1. Grey whose only values are 0 and white (65535 with 16 bits), or 0 and 255 at any depth: 0 and 1. Any
    other grey: the numbers themselves; `IGNORE` (255) among other ids stays. A palette: its index; one of greys alone
    (not `write_mask`'s) may be 0/255, too. RGB is read as grey where its channels are equal.

    Raises:
        ImageError: as `read`; colours, partial opacity, a JPEG with in-between values, fractions, negative ids.
    """
    return read_coded_mask(path, max_pixels=max_pixels)[0]


def read_coded_mask(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> tuple[Int[np.ndarray, "H W"], MaskCoding]:
    """`read_mask`, and how the file says it; a data set whose masks mix codings deserves a look."""
    path = Path(path)
    stored = decode(path, max_pixels)
    if stored.kind == "bits":
        return stored.values.astype(np.int64), "1-bit"
    if stored.kind == "palette":
        ids = stored.values.astype(np.int64)
        return (ids // 255, "0/255") if _is_0_or_255(ids) and _is_grey(stored) else (ids, "palette")
    ids = _whole_numbers(path, _one_channel(path, stored))
    top = ids.max(initial=0)
    if top == stored.white > 1 and ((ids == 0) | (ids == top)).all():
        return (ids == top).astype(np.int64), "0/255"
    if _is_0_or_255(ids):  # deeper numbers than they need: 8-bit masks that were saved with 16 bits or as floats
        return ids // 255, "0/255"
    if stored.file_format in ("JPEG", "MPO") and top > 0:
        raise ImageError(f"mask {path} is a JPEG with in-between values; save masks as PNG, thresholded at 127")
    return ids // stored.step, "labels"


def write_mask(path: str | Path, mask: Int[np.ndarray, "H W"], overwrite: bool = False) -> None:
    """A mask as PNG that `read_mask` reads back unchanged.

    1 bit where ids are 0 and 1, else a palette (index = id, up to 255), else 16-bit grey.

    Raises:
        ImageError: not a .png name, negative ids or ids above 65,535, or the disk refuses.
        OutputExists: the file is there and `overwrite` is False.
    """
    path = _png_name(path, "a mask")
    low, top = int(mask.min(initial=0)), int(mask.max(initial=0))
    if low < 0 or top > 65535:
        raise ImageError(f"cannot write {path}: class ids must lie in 0..65535, these lie in {low}..{top}")
    if top <= 1:
        image = Image.fromarray(mask.astype(bool))
    elif top <= 255:
        image = Image.fromarray(mask.astype(np.uint8))
        image.putpalette(_palette().tobytes())  # grey becomes palette
    else:
        image = Image.fromarray(mask.astype(np.uint16))
    with whole_file(path, overwrite) as file:
        image.save(file, format="PNG")


def write_picture(path: str | Path, picture: Picture, overwrite: bool = False) -> None:
    """An image with 8 bits a channel; the format is the name's: .png, .jpg, .tif or .bmp.

    In a PNG the strings of `header["text"]`, if there are any, become its text.
    """
    path = Path(path)
    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}
    if path.suffix.lower() not in formats:
        raise ImageError(f"cannot write {path}: the name must end in {', '.join(formats)}")
    values = _to_bytes(picture.pixels)
    image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    kind, text = formats[path.suffix.lower()], PngInfo()
    for name, value in picture.header.get("text", {}).items():
        text.add_text(name, value)
    more = {"pnginfo": text} if kind == "PNG" else {}
    with whole_file(path, overwrite) as file:
        image.save(file, format=kind, **more)


def write_overlay(path: str | Path, picture: Picture, mask: Int[np.ndarray, "H W"], overwrite: bool = False) -> None:
    """The picture with each class tinted and outlined in its own colour, as PNG.

    Raises:
        ImageError: the sizes differ, or the disk refuses.
        OutputExists: the file is there and `overwrite` is False.
    """
    path = _png_name(path, "an overlay")
    with whole_file(path, overwrite) as file:
        Image.fromarray(overlay(picture, mask)).save(file, format="PNG")


def overlay(
    picture: Picture, mask: Int[np.ndarray, "H W"], *, tint: float = 0.3
) -> np.ndarray:  # UInt8[np.ndarray, "H W 3"]
    """The picture with each class (not 0, not IGNORE) tinted and outlined; uint8 RGB."""
    height, width, channels = picture.pixels.shape
    if mask.shape != (height, width):
        raise ImageError(
            f"the mask is {mask.shape[1]} x {mask.shape[0]}, the image {width} x {height}; they must agree"
        )
    shown = _to_bytes(np.repeat(picture.pixels, 3 // channels, axis=2))
    for label in np.unique(mask[(mask != 0) & (mask != IGNORE)]):
        inside = mask == label
        colour = _COLOURS[(int(label) - 1) % len(_COLOURS)]
        shown[inside] = ((1 - tint) * shown[inside] + tint * colour).astype(np.uint8)
        shown[_outline(inside, max(1, min(height, width) // 400))] = colour
    return shown


def write_probabilities(path: str | Path, probs: Float[np.ndarray, "H W"], overwrite: bool = False) -> None:
    """Probabilities in [0, 1] as 16-bit grey PNG, 65,535 = 1; `read` gives them back to 1/65,535.

    Raises:
        ImageError: NaN, or outside [0, 1]; not a .png name; the disk refuses.
        OutputExists: the file is there and `overwrite` is False.
    """
    path = _png_name(path, "a probability map")
    if not np.isfinite(probs).all() or probs.min(initial=0) < 0 or probs.max(initial=0) > 1:
        raise ImageError(f"cannot write {path}: probabilities must be finite and within [0, 1]")
    levels = np.rint(probs.astype(np.float64) * 65535).astype(np.uint16)
    with whole_file(path, overwrite) as file:
        Image.fromarray(levels).save(file, format="PNG")


def content_hash(path: str | Path) -> str:
    """SHA-256 of the file's bytes, in hex.

    Raises:
        ImageError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}; check the path and its permissions") from None


def records_hash(records: Sequence[Record]) -> str:
    """Of images, masks, notes, splits and patients of a data set; nothing of them can be read from it.

    Raises:
        ImageError: a file that cannot be read.
    """
    files = {path for record in records for path in (record.image, record.mask) if path is not None}
    content = {None: ""} | {path: content_hash(path) for path in files}
    told = [[r.id, r.note, r.other_notes, r.split, r.patient, content[r.image], content[r.mask]] for r in records]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder and the folders in it, by name; hidden files left out. Links to folders are followed.

    A link to a folder that it lies in itself adds nothing.
    """
    return sorted(_inside(folder, frozenset(folder.resolve().parents))) if folder.is_dir() else []


def _inside(folder: Path, around: frozenset[Path]) -> Iterator[Path]:
    """The image files below a folder, in no order; `around`: the folders it lies in, as they are without links."""
    here = folder.resolve()
    if here in around:
        return
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except PermissionError:
        return
    for path in paths:
        if path.suffix.lower() in SUFFIXES and path.is_file():
            yield path
        elif path.is_dir():
            yield from _inside(path, around | {here})


def _look_up(path: Path, stored: Stored) -> np.ndarray:
    colours = stored.colours
    assert colours is not None
    if int(stored.values.max(initial=0)) >= len(colours):
        raise ImageError(
            f"{path} uses palette index {int(stored.values.max())} of only {len(colours)}; export it again"
        )
    return colours[stored.values]


def _scaled(path: Path, values: np.ndarray, white: float) -> np.ndarray:
    if values.dtype == bool or np.issubdtype(values.dtype, np.unsignedinteger):
        return values.astype(np.float32) / np.float32(white)
    if not np.isfinite(values).all():
        raise ImageError(f"{path} has values that are NaN or infinite; replace them and save it again")
    low, top = float(values.min(initial=0)), float(values.max(initial=0))
    if np.issubdtype(values.dtype, np.signedinteger) or low < 0 or top > 1:
        raise ImageError(
            f"{path} has values from {low:g} to {top:g} without a known white; window them to [0, 1] "
            "(or to 8 or 16 bits) and save it again"
        )
    return values.astype(np.float32)


def _one_channel(path: Path, stored: Stored) -> np.ndarray:
    values = stored.values
    if stored.alpha:
        if not (values[:, :, -1] == stored.white).all():
            raise ImageError(f"mask {path} has transparent pixels; save it as grey PNG of class ids")
        values = values[:, :, :-1]
    if values.ndim == 2:
        return values
    if not (values == values[:, :, :1]).all():
        raise ImageError(f"mask {path} is in colour; save it as grey PNG of class ids, or with a palette")
    return values[:, :, 0]


def _is_0_or_255(ids: Int[np.ndarray, "H W"]) -> bool:
    """Whether both occur and nothing else; 255 alone may be a mask that is not counted."""
    return bool((ids == 0).any() and (ids == 255).any() and ((ids == 0) | (ids == 255)).all())


def _is_grey(stored: Stored) -> bool:
    """Whether a palette says black for 0, white for 255, and no colour for a class."""
    colours = stored.colours
    assert colours is not None
    ends = len(colours) == 256 and not colours[0].any() and bool((colours[255] == 255).all())
    return ends and bool((colours == colours[:, :1]).all())


def _whole_numbers(path: Path, values: np.ndarray) -> Int[np.ndarray, "H W"]:
    if np.issubdtype(values.dtype, np.floating):
        if not np.isfinite(values).all():
            raise ImageError(f"mask {path} has values that are NaN or infinite; save it as PNG of class ids")
        if (values != np.rint(values)).any():
            raise ImageError(f"mask {path} holds fractions; threshold it and save it as PNG of class ids")
    if values.min(initial=0) < 0:
        raise ImageError(f"mask {path} has negative values; class ids start at 0")
    return values.astype(np.int64)


def _png_name(path: str | Path, what: str) -> Path:
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ImageError(f"cannot write {path}: {what} is a PNG, so its name must end in .png")
    return path


def _to_bytes(pixels: Float[np.ndarray, "H W C"]) -> np.ndarray:
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _palette() -> np.ndarray:
    """Black, then the class colours over and over, then white for IGNORE."""
    colours: Sequence[np.ndarray] = [np.zeros(3, np.uint8), *(_COLOURS[i % len(_COLOURS)] for i in range(254))]
    return np.stack([*colours, np.full(3, 255, np.uint8)])


def _outline(inside: np.ndarray, thickness: int) -> np.ndarray:
    """Pixels of the region within `thickness` of its edge; the picture's own border is no edge."""
    core = inside
    for _ in range(thickness):
        padded = np.pad(core, 1, mode="edge")
        core = core & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~core
