"""A trained segmenter, ready to use: `load(...)`, then `segment`, or `encode` once and `decode` for every note."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from medtextdiff.api import exports
from medtextdiff.config import ConfigError
from medtextdiff.data import images, transforms
from medtextdiff.data.errors import ImageError
from medtextdiff.data.notes import flip_note
from medtextdiff.evaluation.calibration import confidence
from medtextdiff.recipes import segmentation_run
from medtextdiff.segmentation.predict import Mode
from medtextdiff.segmentation.views import Encoded
from medtextdiff.types import Levels, Picture

Image = str | Path | Picture | np.ndarray


@dataclass(frozen=True)
class Result:
    """One segmented image, at its own size. `confidence` in [0, 1] is the model's own (docs/method.md)."""

    mask: Int[np.ndarray, "H W"]
    probabilities: Float[np.ndarray, "K H W"]
    foreground: float  # share of the image, in percent
    confidence: float
    seconds: float


class Model:
    """A segmenter with its settings of use. Made by `load`."""

    def __init__(
        self,
        name: str,
        run: segmentation_run.Run,
        segmenter: Any,
        device: torch.device,
        precision: str,
        sha256: str,
        runtime: str = exports.TORCH,
    ) -> None:
        self.name, self.run, self.segmenter = name, run, segmenter
        self.device, self.precision, self.sha256, self.runtime = device, precision, sha256, runtime

    @property
    def num_classes(self) -> int:
        """K, background included."""
        return int(self.segmenter.num_classes)

    def segment(self, image: Image, note: str = "", *, mode: Mode | None = None) -> Result:
        """Segment one image: a path, a `Picture`, or an array [H W], [H W 1] or [H W 3], uint8 or float in [0, 1].

        `note` "" means there is none. `mode` departs from what the model was validated with.

        Raises:
            ImageError: an image that cannot be read or is no image.
        """
        started = time.perf_counter()
        tensor = self._tensor(image)
        use = self._use(mode)
        with self._computing():
            probs = use.probabilities(self.segmenter, tensor, note, flip_note)
        return self._result(probs, started)

    def warm(self, image: Image) -> None:
        """Encode an image, view by view as `segment` would read it, so that the model's bank keeps the levels.

        Raises:
            ImageError: as `segment`.
        """
        with self._computing():
            self.run.use.probabilities(_Encoder(self.segmenter), self._tensor(image), "", flip_note)

    def encode(self, image: Image, *, mode: Mode | None = None) -> Encoded:
        """What the image gives, whatever the note: the expensive part. Mirror averaging is left out.

        Raises:
            ImageError: as `segment`. ConfigError: a model that does not part image and note.
        """
        if not hasattr(self.segmenter, "encode"):
            raise ConfigError(f"{self.name} reads no notes, so nothing can be encoded apart; use segment")
        use = self._use(mode)
        with self._computing():
            return Encoded.of(self.segmenter, self._tensor(image), use)

    def decode(self, encoded: Encoded, note: str = "") -> Result:
        """The mask of an encoded image for a note: cheap, so a note can be edited many times."""
        started = time.perf_counter()
        with self._computing():
            probs = encoded.probabilities(self.segmenter, note)
        return self._result(probs, started)

    def logits(self, image: Image, note: str = "", *, mode: Mode | None = None) -> Float[np.ndarray, "K h w"]:
        """The model's raw logits: at its working size, the whole image at once."""
        use = self._use(mode)
        with self._computing():
            return use.logits(self.segmenter, self._tensor(image), note).cpu().numpy()

    def levels(self, image: Image) -> Levels:
        """The denoiser's levels of the whole image at its working size."""
        if not hasattr(self.segmenter, "encode"):
            raise ConfigError(f"{self.name} has no denoiser, so it has no levels; give a FastTextDiff run")
        with self._computing(), torch.no_grad():
            levels = self.segmenter.encode(self.run.use.working_image(self._tensor(image)))
        return [level.float().cpu() for level in levels]

    def check_mode(self, mode: str | None) -> None:
        """Raise ConfigError unless `mode` is one of `Mode`, or None for the model's own."""
        if mode not in (None, *get_args(Mode)):
            raise ConfigError(f"no mode '{mode}'; give {' or '.join(get_args(Mode))}")

    def _use(self, mode: Mode | None) -> Any:
        self.check_mode(mode)
        return self.run.use if mode is None else self.run.use.replace(mode=mode)

    def _tensor(self, image: Image) -> Float[Tensor, "3 H W"]:
        return transforms.to_tensor(as_picture(image)).to(self.device)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Under the precision asked for; memory that does not suffice is the image's fault, not a bug."""
        try:
            with self._autocast():
                yield
        except RuntimeError as error:  # on a CPU torch has no type of its own for it
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            raise ImageError(
                f"the image does not fit in the memory of {self.device}; use mode tiles, or cut it into parts"
            ) from None

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16" and self.runtime == exports.TORCH:  # a graph has its own
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _result(self, probs: Tensor, started: float) -> Result:
        found = probs.float().cpu().numpy()
        if not np.isfinite(found).all():
            raise ConfigError(f"{self.name} gave values that are no numbers; try precision float32, or train it again")
        mask = found.argmax(axis=0).astype(np.int64)
        share = 100 * float((mask > 0).mean())
        return Result(mask, found, share, confidence(found), time.perf_counter() - started)


class _Encoder:
    """Stands where a segmenter does, and only encodes."""

    num_classes = 1

    def __init__(self, segmenter: Any) -> None:
        self.segmenter = segmenter

    def __call__(self, images: Tensor, notes: Sequence[str], boxes: Tensor | None = None) -> Tensor:
        self.segmenter.encode(images)
        return images.new_zeros(len(images), 1, *images.shape[-2:])


def as_picture(image: Image) -> Picture:
    """Whatever a person hands in, as a Picture.

    Raises:
        ImageError: a file that cannot be read; an array of another shape, type or range.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, str | Path):
        return images.read(image)
    pixels = np.asarray(image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise ImageError(f"an image array is [H W], [H W 1] or [H W 3]; this one has shape {np.shape(image)}")
    if pixels.dtype == np.uint8:
        return Picture(pixels.astype(np.float32) / 255)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ImageError(f"an image array is uint8 or float in [0, 1]; this one is {pixels.dtype}: scale it first")
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise ImageError("a float image array lies in [0, 1] without NaN; this one does not: scale it first")
    return Picture(pixels.astype(np.float32))
