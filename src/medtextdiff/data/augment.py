"""Other views of an image: crops, flips, turns and colours; the mask, the note and the box go along."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from medtextdiff import config
from medtextdiff.data import transforms
from medtextdiff.data.notes import flip_note, rotate_note_90
from medtextdiff.types import IGNORE, Side

Amount = Field(default=0.0, ge=0.0, le=1.0)


class Config(config.Config):
    """How views are drawn. Every default changes nothing.

    Fields:
        crop: rows and columns of the view; None: the whole image at its own size.
        scale: range of the zoom, drawn evenly on a logarithm; 2 shows twice as far at half the size (so
            it is the inverse of `use.scale`, which is 0.5 there). A view stays within an image that is large enough.
        flips: left-right and top-bottom, each half of the time; the note's place words swap.
        vertical_flips: False leaves out top-bottom flips, where images have an up (chest X-rays).
        rot90: quarter turns, where the note's words can follow; never of a whole image that is not square.
        brightness, contrast, saturation: a factor within 1 +- this. hue: a turn of +- this, 0.5 is half the circle.
        stain: how much of haematoxylin and of eosin is seen: optical density of each times 1 +- this, plus up to +- a
            tenth of this (H&E histology only; after arXiv 1808.05896).
        blur: Gaussian, up to this many pixels. noise: normal, with a deviation up to this share of black to white.
        note_dropout: how often the note is left out, so that one model serves images without notes.
        note_choice: draw among all notes of the image, not always the first.
        num_views: so many views of each image, which come again and again bit for bit (a feature bank keeps their
            levels); which note is told, and whether it is left out, stays free. None: endless views.
    """

    crop: int | None = Field(default=None, ge=8, le=4096)
    scale: tuple[float, float] = (1.0, 1.0)
    flips: bool = False
    vertical_flips: bool = True
    rot90: bool = False
    brightness: float = Amount
    contrast: float = Amount
    saturation: float = Amount
    hue: float = Field(default=0.0, ge=0.0, le=0.5)
    stain: float = Amount
    blur: float = Field(default=0.0, ge=0.0, le=10.0)
    noise: float = Amount
    note_dropout: float = Amount
    note_choice: bool = True
    num_views: int | None = Field(default=None, ge=1)

    @property
    def repeats(self) -> bool:
        """Whether views come again: `num_views` is set, or nothing but flips and quarter turns is drawn."""
        colours = (self.brightness, self.contrast, self.saturation, self.hue, self.stain, self.blur, self.noise)
        return self.num_views is not None or (self.crop is None and self.scale == (1.0, 1.0) and not any(colours))

    @model_validator(mode="after")
    def _check_scale(self) -> "Config":
        if not 0.05 <= self.scale[0] <= self.scale[1] <= 20:
            raise ValueError(f"scale is (least, most) within 0.05..20, got {self.scale}")
        return self

    def build(self) -> "Augmentation":
        """The augmentation; it holds no state."""
        return Augmentation(self)


class View(NamedTuple):
    """One view. `box` is (left, top, right, bottom) as shares of the whole image *after* its flips and turns.

    So note, box and pixels speak of one frame. It leaves [0, 1] only where a crop is larger than its image.
    """

    image: Float[Tensor, "3 h w"]
    mask: Int[Tensor, "h w"] | None
    note: str
    box: Float[Tensor, " 4"]


@dataclass(frozen=True)
class Augmentation:
    """Draws views; all randomness comes from the generator, the same number of draws for every image."""

    settings: Config

    def __call__(
        self,
        image: Integer[Tensor, "C H W"] | Float[Tensor, "C H W"],
        mask: Integer[Tensor, "H W"] | None,
        note: str | Sequence[str],
        rng: torch.Generator,
        name: str = "",
        side: Side = "viewer",
    ) -> View:
        """One view of an image: uint8 in 0..255 or float in [-1, 1], grey (C = 1) or RGB.

        Several notes: one is drawn. Where the crop reaches beyond the image, the image is mirrored and the mask is
        IGNORE. `name` tells images apart: with `num_views`, view v of a name is the same whatever `rng` gives. `side`:
        whose left the notes mean.
        """
        draws = iter(torch.rand(16, generator=rng, dtype=torch.float64).tolist())
        told = _choose_note(self.settings, note, next(draws), next(draws))
        if self.settings.num_views is not None:
            rng = _view_generator(name, int(next(draws) * self.settings.num_views))
            draws = iter(torch.rand(16, generator=rng, dtype=torch.float64).tolist())
        window = _draw_window(self.settings, image.shape[-2:], next(draws), next(draws), next(draws))
        left_right, top_bottom, turn = (next(draws) < 0.5 for _ in range(3))
        left_right, top_bottom = left_right and self.settings.flips, top_bottom and self.settings.flips
        top_bottom = top_bottom and self.settings.vertical_flips
        if self.settings.num_views is not None:
            # Pixels are the view's and notes the draw's: an image is turned only where each of its notes can follow.
            notes = [flip_note(text, left_right, top_bottom) for text in ([note] if isinstance(note, str) else note)]
            turn = turn and all(rotate_note_90(text, side) is not None for text in notes)
        size = (self.settings.crop,) * 2 if self.settings.crop else (image.shape[-2], image.shape[-1])
        view = _as_float(transforms.resize_image(_cut(image, window, "reflect"), size))
        shown = transforms.resize_mask(_cut(mask, window, "constant"), size).long() if mask is not None else None
        result = View(view.expand(3, -1, -1), shown, told, _box(window, image.shape[-2:]))
        if left_right:
            result = _mirror(result)
        if top_bottom:
            result = _flip(result)
        if self.settings.rot90 and turn:
            result = _turn(result, side)
        coloured = _recolour(self.settings, result.image, [next(draws) for _ in range(6)], rng)
        return result._replace(image=coloured, mask=None if result.mask is None else result.mask.contiguous())


class _Window(NamedTuple):
    top: int
    left: int
    rows: int
    columns: int


def _choose_note(settings: Config, note: str | Sequence[str], choice: float, keep: float) -> str:
    notes = [note] if isinstance(note, str) else [text for text in note if text] or [""]
    if keep < settings.note_dropout:
        return ""
    if settings.note_choice:
        return notes[int(choice * len(notes))]
    return notes[0] if isinstance(note, str) or not note else note[0]


def _view_generator(name: str, number: int) -> torch.Generator:
    digest = hashlib.blake2b(f"view {number} of {name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def _draw_window(settings: Config, shape: Sequence[int], zoom: float, down: float, right: float) -> _Window:
    """The part of the image that is shown, in its own pixels; may begin before 0 where the image is too small."""
    least, most = (math.log(limit) for limit in settings.scale)
    factor = math.exp(least + zoom * (most - least))
    wanted = (settings.crop, settings.crop) if settings.crop else tuple(shape)
    fitting = min(have / want for have, want in zip(shape, wanted, strict=True))
    factor = min(factor, max(fitting, min(1.0, factor)))
    rows, columns = (max(1, round(side * factor)) for side in wanted)
    top, left = (
        math.floor(place * (abs(free) + 1)) * (1 if free >= 0 else -1)
        for place, free in ((down, shape[0] - rows), (right, shape[1] - columns))
    )
    return _Window(top, left, rows, columns)


def _cut(values: Tensor, window: _Window, mode: str) -> Tensor:
    """The window of (..., H, W); beyond the image it mirrors ("reflect") or is IGNORE ("constant")."""
    height, width = values.shape[-2:]
    top, left, rows, columns = window
    inside = values[..., max(top, 0) : top + rows, max(left, 0) : left + columns]
    before = (max(-top, 0), max(-left, 0))
    after = (max(top + rows - height, 0), max(left + columns - width, 0))
    if not any(before + after):
        return inside
    pads = [(0, 0)] * (values.ndim - 2) + list(zip(before, after, strict=True))
    array = inside.numpy()
    if mode == "constant":
        return torch.from_numpy(np.pad(array, pads, mode="constant", constant_values=IGNORE))
    return torch.from_numpy(np.pad(array, pads, mode="reflect" if min(inside.shape[-2:]) > 1 else "edge"))


def _as_float(image: Tensor) -> Float[Tensor, "C H W"]:
    if image.is_floating_point():
        return image.float().clone()  # what a data set keeps stays its own
    return image.float().mul_(2 / 255).sub_(1)


def _box(window: _Window, shape: Sequence[int]) -> Float[Tensor, " 4"]:
    height, width = shape
    top, left, rows, columns = window
    return torch.tensor([left / width, top / height, (left + columns) / width, (top + rows) / height])


def _mirror(view: View) -> View:
    left, top, right, bottom = view.box.tolist()
    return View(
        view.image.flip(-1),
        None if view.mask is None else view.mask.flip(-1),
        flip_note(view.note, True, False),
        torch.tensor([1 - right, top, 1 - left, bottom]),
    )


def _flip(view: View) -> View:
    left, top, right, bottom = view.box.tolist()
    return View(
        view.image.flip(-2),
        None if view.mask is None else view.mask.flip(-2),
        flip_note(view.note, False, True),
        torch.tensor([left, 1 - bottom, right, 1 - top]),
    )


def _turn(view: View, side: Side) -> View:
    note = rotate_note_90(view.note, side)
    if note is None or view.image.shape[-1] != view.image.shape[-2]:
        return view
    left, top, right, bottom = view.box.tolist()
    return View(
        view.image.rot90(1, (-2, -1)),
        None if view.mask is None else view.mask.rot90(1, (-2, -1)),
        note,
        torch.tensor([top, 1 - right, bottom, 1 - left]),
    )


# Grey, and two axes of colour (YIQ): a turn in the plane of the two is a change of hue that keeps the grey value.
_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = torch.linalg.inv(_TO_YIQ)


def _recolour(
    settings: Config, image: Float[Tensor, "3 H W"], draws: Sequence[float], rng: torch.Generator
) -> Float[Tensor, "3 H W"]:
    """Saturation and hue, contrast, brightness, blur, noise; in [-1, 1] again at the end. Grey stays grey."""
    grey = bool((image[0] == image[1]).all()) and bool((image[1] == image[2]).all())
    image = image[:1] if grey else image
    brightness, contrast, saturation, turn = (2 * draw - 1 for draw in draws[:4])
    changed = False
    if not grey and settings.stain:
        image, changed = _restained(image, settings.stain, rng), True
    if not grey and (settings.saturation or settings.hue):
        image, changed = _turn_colours(image, 1 + settings.saturation * saturation, settings.hue * turn), True
    if settings.brightness or settings.contrast:
        factor, light = 1 + settings.contrast * contrast, 1 + settings.brightness * brightness
        middle = image.mean()
        # Brightness scales the distance from black, which is -1.
        image, changed = ((image - middle) * factor + middle + 1) * light - 1, True
    if settings.blur:
        image, changed = _blurred(image, settings.blur * draws[4]), True
    image = image.expand(3, -1, -1)
    if settings.noise:
        spread = 2 * settings.noise * draws[5]
        image, changed = image + spread * torch.randn(image[: 1 if grey else 3].shape, generator=rng), True
    return image.clamp(-1, 1).contiguous() if changed else image.contiguous()


def _turn_colours(image: Float[Tensor, "3 H W"], saturation: float, turn: float) -> Float[Tensor, "3 H W"]:
    cosine, sine = saturation * math.cos(2 * math.pi * turn), saturation * math.sin(2 * math.pi * turn)
    plane = torch.tensor([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]])
    matrix = _FROM_YIQ @ plane @ _TO_YIQ
    return (matrix @ image.reshape(3, -1)).view_as(image)


# Optical densities in red, green and blue (Ruifrok and Johnston 2001), and a rest at right angles; rows of length 1.
_HAEMATOXYLIN, _EOSIN = torch.tensor([0.650, 0.704, 0.286]), torch.tensor([0.072, 0.990, 0.105])
_STAINS = F.normalize(torch.stack([_HAEMATOXYLIN, _EOSIN, torch.linalg.cross(_HAEMATOXYLIN, _EOSIN)]), dim=1)
_FROM_STAINS = torch.linalg.inv(_STAINS)
_DARKEST = 1 / 255  # of the light that passes; a black pixel would have an endless density


def _restained(image: Float[Tensor, "3 H W"], amount: float, rng: torch.Generator) -> Float[Tensor, "3 H W"]:
    """The tissue as another laboratory might have stained it; white stays nearly white."""
    draws = 2 * torch.rand((2, 3, 1), generator=rng) - 1
    density = -((image.reshape(3, -1) + 1) / 2).clamp(min=_DARKEST).log()
    stains = _FROM_STAINS.T @ density  # (3, H W): haematoxylin, eosin, rest
    stains = stains * (1 + amount * draws[0]) + 0.1 * amount * draws[1]
    return (2 * (-(_STAINS.T @ stains)).exp() - 1).view_as(image)


def _blurred(image: Float[Tensor, "C H W"], sigma: float) -> Float[Tensor, "C H W"]:
    radius = min(math.ceil(3 * sigma), min(image.shape[-2:]) - 1)
    if sigma < 0.1 or radius < 1:
        return image
    at = torch.arange(-radius, radius + 1, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(image[:, None], (radius,) * 4, mode="reflect")  # (C, 1, H + 2r, W + 2r)
    return F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None, :])[:, 0]
