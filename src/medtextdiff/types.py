"""The shared words of the house: what rooms hand to each other.

Letters in shapes: B batch, H W pixels, C channels, h w grid of a level or latent, L words, D text width,
K classes, T timesteps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

IGNORE = 255  # the mask value that neither losses nor scores count

Side = Literal["viewer", "patient"]  # whose left a note means; a property of the data set


@dataclass(frozen=True)
class Record:
    """One image of a data set, with its note and mask, as paths and strings: no pixels.

    `note` is "" when there is none. `other_notes` are further notes of the same image; training draws one
    of all, evaluation uses `note`. `side` is whose left they mean; a source says it for all of its records.
    """

    id: str
    note: str = ""
    image: Path | None = None
    mask: Path | None = None
    patient: str | None = None
    split: str = "train"
    other_notes: tuple[str, ...] = ()
    side: Side = "viewer"

    @property
    def notes(self) -> list[str]:
        """All notes that are there."""
        return [note for note in (self.note, *self.other_notes) if note]


@dataclass(frozen=True)
class Picture:
    """An image as read from a file: float32 in [0, 1], `C` is 1 (grey) or 3 (RGB).

    `spacing` is the size of a pixel in mm, (row, column). `header` holds what writing back needs.
    """

    pixels: Float[np.ndarray, "H W C"]
    spacing: tuple[float, float] | None = None
    header: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """What a training step sees. Notes stay strings: a data set never runs a model.

    `boxes` says which part of its whole image each row of `images` shows, as (left, top, right, bottom) in
    [0, 1]; None means the whole image. A note speaks of the whole image, so a crop must know where it lies.
    """

    ids: list[str]
    notes: list[str]
    images: Float[Tensor, "B 3 H W"]  # [-1, 1], RGB
    masks: Int[Tensor, "B H W"] | None = None  # class ids, IGNORE = not counted
    boxes: Float[Tensor, "B 4"] | None = None


@dataclass(frozen=True)
class TextFeatures:
    """Notes as features. `mask` is True at real words; a row without any True is an absent note."""

    tokens: Float[Tensor, "B L D"]
    mask: Bool[Tensor, "B L"]
    pooled: Float[Tensor, "B D"]


Levels = list[Tensor]  # one Float[B C_k h_k w_k] per tap, coarse to fine


@runtime_checkable
class TextEncoder(Protocol):
    """Notes to features; a padded word never changes an output."""

    width: int  # D

    def __call__(self, notes: Sequence[str]) -> TextFeatures:
        """Features of the notes, in their order."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """A noise-prediction network that also gives its levels at the tapped decoder blocks."""

    def __call__(
        self,
        x: Float[Tensor, "B C h w"],
        t: Int[Tensor, " B"],
        text: TextFeatures | None = None,
        taps: Sequence[int] = (),
    ) -> tuple[Float[Tensor, "B C h w"], Levels]:
        """The prediction, and the levels at `taps`."""
        ...


@runtime_checkable
class Segmenter(Protocol):
    """Images and notes to logits. An image-only baseline ignores the notes; an empty note is an absent one."""

    num_classes: int  # K, background included

    def __call__(
        self,
        images: Float[Tensor, "B 3 H W"],
        notes: Sequence[str],
        boxes: Float[Tensor, "B 4"] | None = None,
    ) -> Float[Tensor, "B K H W"]:
        """Logits at the images' size."""
        ...
