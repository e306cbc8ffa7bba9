"""Sets of square images of one size, real or generated, with their prompts: what synthesis is evaluated on."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from medtextdiff.config import ConfigError
from medtextdiff.data import images, prompts, transforms
from medtextdiff.data.errors import DataError
from medtextdiff.data.generated import Generated
from medtextdiff.data.sources import detect
from medtextdiff.data.tables import join
from medtextdiff.evaluation.synthesis import MIN_IMAGES
from medtextdiff.types import Picture, Record

Say = Callable[[str], None]
FITS = ("squeeze", "crop")


@dataclass(frozen=True)
class ImageSet:
    """N images of one size. `prompts[k]` are all prompts of image k: one of a generated, often ten of a real one.

    `rounds` part a set into repetitions of the same prompts with other seeds; their spread gives intervals.
    """

    ids: list[str]
    pixels: UInt8[np.ndarray, "N S S 3"]
    prompts: list[tuple[str, ...]]
    seeds: list[int]
    rounds: list[int]
    model: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, places: Sequence[int] | np.ndarray) -> "ImageSet":
        """Some of them, in this order."""
        at = [int(place) for place in places]
        return ImageSet(
            [self.ids[k] for k in at],
            self.pixels[at],
            [self.prompts[k] for k in at],
            [self.seeds[k] for k in at],
            [self.rounds[k] for k in at],
            self.model,
        )

    def labels(self) -> np.ndarray:
        """What all prompts of each image say together: Int[N A], 1, 0 or -1 (not said)."""
        return _stacked([prompts.as_labels(prompts.image_claims(own)) for own in self.prompts])

    def prompt_labels(self) -> tuple[list[int], np.ndarray]:
        """What each prompt says, and whose it is: places of images, and Int[P A] of all P prompts."""
        pairs = [(place, prompt) for place, own in enumerate(self.prompts) for prompt in own]
        labels = [prompts.as_labels(prompts.claims(prompt)) for _, prompt in pairs]
        return [place for place, _ in pairs], _stacked(labels)

    def one_prompt_labels(self, seed: int) -> np.ndarray:
        """What one prompt of each image, drawn by the seed, says."""
        rng = np.random.default_rng(seed)
        drawn = [own[int(rng.integers(len(own)))] if own else "" for own in self.prompts]
        return _stacked([prompts.as_labels(prompts.claims(one)) for one in drawn])

    def thumbnails(self, side: int = 32) -> Float[np.ndarray, "N D"]:
        """Shrunk images as rows, in [0, 1], scaled so that a row distance is the root mean square difference."""
        small = [transforms.resize_image(_tensor(one), side).flatten() for one in self.pixels]
        return (torch.stack(small).double() / 255 / len(small[0]) ** 0.5).numpy()

    def tensors(self) -> Float[Tensor, "N 3 S S"]:
        """In [0, 1]."""
        return torch.from_numpy(self.pixels).permute(0, 3, 1, 2).float() / 255


def check_fit(fit: str) -> None:
    """Raise ConfigError unless real images can be made square so."""
    if fit not in FITS:
        raise ConfigError(f"no fit '{fit}'; give squeeze or crop")


def real_splits(data: str | Path, split: str, train_split: str) -> dict[str, list[Record]]:
    """The images of both splits, each once.

    Raises:
        DataError: no data set in `data`, no such split, or one with too few images to be compared.
    """
    real = detect(data).build()  # type: ignore[attr-defined]
    found = {name: each_once(real.records(name)) for name in dict.fromkeys((split, train_split))}
    for name, least in ((split, MIN_IMAGES), (train_split, 2 * MIN_IMAGES)):
        if len(found[name]) < least:
            raise DataError(f"split '{name}' has {len(found[name])} images; fewer than {least} cannot be compared")
    return found


def each_once(records: Sequence[Record]) -> list[Record]:
    """Each image once; records of one image (its masks) bring their prompts together."""
    found: dict[Path, Record] = {}
    for record in records:
        if record.image is None:
            continue
        first = found.setdefault(record.image, record)
        if first is not record:
            notes = [note for note in record.notes if note != first.note]
            found[record.image] = replace(first, other_notes=tuple(dict.fromkeys([*first.other_notes, *notes])))
    return list(found.values())


def of_records(
    records: Sequence[Record], size: int, fit: str, *, what: str, progress: Say = lambda line: None
) -> ImageSet:
    """Real images, each once, with all of their prompts.

    Raises:
        DataError: no images, or one that cannot be read.
    """
    chosen = [record for record in records if record.image is not None]
    if not chosen:
        raise DataError(f"{what} has no image; nothing can be compared")
    pixels = []
    for number, record in enumerate(chosen, 1):
        assert record.image is not None
        pixels.append(square(images.read(record.image), size, fit))
        if number % 500 == 0:
            progress(f"read {number}/{len(chosen)} images of {what}")
    words = [tuple(record.notes) for record in chosen]
    return ImageSet([record.id for record in chosen], np.stack(pixels), words, [0] * len(chosen), [0] * len(chosen))


def of_generated(items: Sequence[Generated], size: int | None, fit: str) -> ImageSet:
    """Generated images; `size` None: the shorter side of the first.

    Raises:
        DataError: one that cannot be read.
    """
    if size is None:
        size = min(images.read(items[0].image).pixels.shape[:2])
    pixels = np.stack([square(images.read(item.image), size, fit) for item in items])
    models = sorted({item.model for item in items})
    return ImageSet(
        [item.image.name for item in items],
        pixels,
        [(item.prompt,) for item in items],
        [item.seed for item in items],
        _rounds(items),
        join(models),
    )


def of_reconstructions(folder: Path, real: ImageSet, size: int, fit: str) -> ImageSet:
    """Images of `folder` by the names of the real ones, in their order.

    Raises:
        DataError: no folder, or an image that is missing.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the reconstructions of the held-out images, named as they are")
    there = {path.stem: path for path in images.list_images(folder)}
    lost = [name for name in real.ids if name not in there]
    if lost:
        raise DataError(f"{folder} lacks the reconstructions of {len(lost)} images ({join(lost)}); add them")
    pixels = np.stack([square(images.read(there[name]), size, fit) for name in real.ids])
    return ImageSet(real.ids, pixels, real.prompts, real.seeds, real.rounds)


def square(picture: Picture, size: int, fit: str) -> UInt8[np.ndarray, "S S 3"]:
    """The picture as a square of `size`: fit "squeeze", or "crop" its middle; grey is repeated."""
    tensor = torch.from_numpy(picture.pixels).permute(2, 0, 1).expand(3, -1, -1)
    if fit == "crop":
        height, width = tensor.shape[1:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        tensor = tensor[:, top : top + side, left : left + side]
    shrunk = transforms.resize_image(tensor.contiguous(), size).clamp(0, 1)
    return (255 * shrunk).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _rounds(items: Sequence[Generated]) -> list[int]:
    """Which repetition of the prompts each image is of: as many as all prompts' numbers of images can be divided by.

    A prompt that was asked for twice as often as another has two images in each.
    """
    num = math.gcd(*Counter(item.prompt for item in items).values())
    seen: Counter[str] = Counter()
    rounds = []
    for item in items:
        rounds.append(seen[item.prompt] % num)
        seen[item.prompt] += 1
    return rounds


def _tensor(image: UInt8[np.ndarray, "S S 3"]) -> Float[Tensor, "3 S S"]:
    return torch.from_numpy(image).permute(2, 0, 1).float()


def _stacked(rows: list[list[int]]) -> np.ndarray:
    return np.asarray(rows, dtype=np.int64).reshape(len(rows), len(prompts.ATTRIBUTES))
