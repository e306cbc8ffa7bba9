"""PNG, JPEG, TIFF and BMP files as arrays, exactly as stored; what the numbers mean is for `images`."""

import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image

from medtextdiff.data.errors import ImageError

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_KINDS = "PNG, JPEG, TIFF or BMP"
# What decoders raise on damaged bytes; none of it means a bug of ours.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error, zlib.error)
_SILENT = logging.NullHandler()
_UNASSOCIATED = 2  # of TIFF's ExtraSamples: opacity beside colours that know nothing of it
_lock = threading.Lock()  # Pillow's size limit and Python's warning filters are global


@dataclass(frozen=True)
class Stored:
    """The numbers of a file. `values` is (H, W) or (H, W, C); `white` is the value that means 1."""

    values: np.ndarray
    white: float
    kind: str  # "bits", "palette", "grey" or "colour"
    file_format: str
    alpha: bool = False  # the last channel is opacity
    colours: np.ndarray | None = None  # (n, 3) uint8, for a palette
    step: int = 1  # a 2- or 4-bit file's levels lie this far apart
    opacity: np.ndarray | None = None  # (H, W) uint8, of a PNG that names transparent colours


def decode(path: Path, max_pixels: int) -> Stored:
    """The file's numbers, upright (EXIF orientation applied).

    Raises:
        ImageError: missing, empty, not one of the four formats, damaged, several pages, more than `max_pixels`.
    """
    _check_file(path)
    try:
        with path.open("rb") as file, _open(file) as image:
            _check_header(path, image, max_pixels)
            if not _is_narrowed(image):
                return _upright(_from_pillow(image), _orientation(image))
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        if not _begins_as_tiff(path):
            raise _wrong_type(path) from None
    except MemoryError:
        raise ImageError(f"{path} does not fit in memory; make it smaller, or cut it into tiles") from None
    except _DAMAGE as error:
        raise _damaged(path, error) from None
    return _from_tifffile(path, max_pixels)  # also a TIFF that Pillow has no mode for


def _check_file(path: Path) -> None:
    if not path.exists():
        raise ImageError(f"{path} does not exist; check the path")
    if not path.is_file():
        raise ImageError(f"{path} is not a file; give one image file ({_KINDS})")
    try:
        if path.stat().st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes); copy it again")
        path.open("rb").close()
    except OSError as error:
        raise ImageError(f"{path} cannot be opened: {error.strerror}; check its permissions") from None


def _begins_as_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the latter two are BigTIFF


def _open(file: BinaryIO) -> Image.Image:
    """Read the header. The limit on pixels is ours, so Pillow's is off meanwhile."""
    with _quiet():
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _orientation(image: Image.Image) -> int:
    with _quiet():
        return image.getexif().get(ExifTags.Base.Orientation, 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Odd metadata is no news to the person who segments."""
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_header(path: Path, image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{path} has {width} x {height} pixels, more than the limit of {max_pixels:,}; "
            "make it smaller, cut it into tiles, or raise max_pixels"
        )
    # MPO: a JPEG to which the camera added a second view.
    pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if pages != 1:
        raise ImageError(f"{path} holds {pages} pages; save the page you mean as a file of its own")


def _is_narrowed(image: Image.Image) -> bool:
    """Whether Pillow would misread this TIFF: 16-bit colour, 16-bit white-is-zero, wide or signed integers, float64."""
    if image.format != "TIFF":
        return False
    tags: Any = getattr(image, "tag_v2", {})
    bits, signed = max(tags.get(258, (1,))), 2 in tags.get(339, (1,))
    return signed or (bits > 8 and not (image.mode == "F" and bits == 32))


def _from_pillow(image: Image.Image) -> Stored:
    step = _grey_step(image)
    file_format = image.format or ""
    image.load()
    mode = image.mode
    opacity = None
    if "transparency" in image.info and mode in ("1", "L", "P", "RGB"):
        opacity = np.asarray(image.convert("RGBA").getchannel("A"))
    if mode == "1":
        return Stored(np.asarray(image), 1.0, "bits", file_format, opacity=opacity)
    if mode == "P":
        colours = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        return Stored(np.asarray(image), 255.0, "palette", file_format, colours=colours, opacity=opacity)
    if mode in ("L", "LA", "RGB", "RGBA"):
        kind = "grey" if mode in ("L", "LA") else "colour"
        values = np.asarray(image)
        return Stored(values, 255.0, kind, file_format, alpha=mode.endswith("A"), step=step, opacity=opacity)
    if mode.startswith("I"):
        values = np.asarray(image)
        return Stored(values.astype(np.uint16) if mode != "I" else values, 65535.0, "grey", file_format)
    if mode == "F":
        return Stored(np.asarray(image), 1.0, "grey", file_format)
    target = "RGBA" if mode in ("PA", "La", "RGBa") else "RGB"  # CMYK, YCbCr, Lab and the premultiplied modes
    return Stored(np.asarray(image.convert(target)), 255.0, "colour", file_format, alpha=target == "RGBA")


def _grey_step(image: Image.Image) -> int:
    """Pillow stretches 2- and 4-bit grey to 0..255; label ids need the steps back."""
    depth = {"L;2": 2, "L;4": 4}.get(_raw_mode(image), 8)
    return 255 // (2**depth - 1)


def _raw_mode(image: Image.Image) -> str:
    tiles: list[Any] = getattr(image, "tile", [])
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _from_tifffile(path: Path, max_pixels: int) -> Stored:
    import tifffile

    logging.getLogger("tifffile").addHandler(_SILENT)  # else it prints tracebacks of its own
    try:
        with tifffile.TiffFile(path) as tiff:
            if len(tiff.pages) != 1:
                raise ImageError(f"{path} holds {len(tiff.pages)} pages; save the page you mean as a file of its own")
            page: Any = tiff.pages[0]
            if page.imagewidth * page.imagelength > max_pixels:
                raise ImageError(
                    f"{path} has {page.imagewidth} x {page.imagelength} pixels, more than the limit of {max_pixels:,}; "
                    "make it smaller, cut it into tiles, or raise max_pixels"
                )
            tag = page.tags.get(274)
            return _upright(_from_page(path, page), 1 if tag is None else int(tag.value))
    except ImageError:
        raise
    except _DAMAGE as error:
        if "imagecodecs" in str(error):
            raise ImageError(
                f"{path} is a TIFF with more than 8 bits and a compression that cannot be read here; "
                "save it without compression, or as PNG"
            ) from None
        raise _damaged(path, error) from None


def _from_page(path: Path, page: Any) -> Stored:
    if page.imagedepth != 1:
        raise ImageError(
            f"{path} is a volume of {page.imagedepth} slices; save the slice you mean as a file of its own"
        )
    values = page.asarray()
    if page.planarconfig == 2 and values.ndim == 3:
        values = values.transpose(1, 2, 0)  # (H, W, C)
    values = values.reshape(page.imagelength, page.imagewidth, -1)
    channels = values.shape[2]
    if channels > 4 or page.photometric.name not in ("MINISWHITE", "MINISBLACK", "RGB"):
        raise ImageError(
            f"{path} has {channels} channel(s), stored as {page.photometric.name}; save it as a grey or RGB image"
        )
    whole = np.issubdtype(values.dtype, np.unsignedinteger)
    white = float(2**page.bitspersample - 1) if whole else 1.0
    if page.photometric.name == "MINISWHITE" and whole:
        values = np.asarray(white, values.dtype) - values
    kind = "grey" if channels <= 2 else "colour"
    alpha = channels in (2, 4) and tuple(page.extrasamples) == (_UNASSOCIATED,)
    if channels in (2, 4) and not alpha:  # opacity that is multiplied in already, or something else
        values = values[:, :, :-1]
    values = values[:, :, 0] if values.shape[2] == 1 else values
    return Stored(values, white, kind, "TIFF", alpha=alpha)


def _upright(stored: Stored, orientation: int) -> Stored:
    """EXIF 2.32, tag 0x0112. Pillow turns a TIFF itself and then reports orientation 1."""
    opacity = None if stored.opacity is None else _turned(stored.opacity, orientation)
    return replace(stored, values=_turned(stored.values, orientation), opacity=opacity)


def _turned(values: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)


def _wrong_type(path: Path) -> ImageError:
    hint = " (a compressed NIfTI or archive?)" if path.suffix.lower() == ".gz" else ""
    return ImageError(f"{path} is not a {_KINDS} image{hint}; convert it to one of these")


def _damaged(path: Path, error: BaseException) -> ImageError:
    reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return ImageError(f"{path} is damaged or cut off ({reason}); copy or export it again")
