"""Records become samples, samples become batches. Order is kept; nothing is dropped."""

import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Integer, UInt8
from torch import Tensor

from medtextdiff.data import augment, images, transforms
from medtextdiff.data.errors import DataError
from medtextdiff.data.transforms import Size
from medtextdiff.types import IGNORE, Batch, Record

WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Sample:
    """One row of a Batch. `box`: which part of the whole image it shows, (left, top, right, bottom)."""

    id: str
    note: str
    image: Float[Tensor, "3 H W"]
    mask: Int[Tensor, "H W"] | None
    box: Float[Tensor, " 4"]


@runtime_checkable
class Samples(Protocol):
    """What a training draws from: a Dataset or a Mixture."""

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: torch.Generator) -> Sample:
        """One sample; what is random about it comes from `rng`."""
        ...


class Dataset:
    """Records as samples, decoded when first asked for and kept in memory up to a limit.

    8-bit images are kept as uint8, deeper ones as float32. With an augmentation what is kept has `size` already (8-bit
    again); without one every sample is resized in float, so that scores do not depend on the cache.
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        num_classes: int = 2,
        size: int | tuple[int, int] | None = None,
        augmentation: augment.Config | None = None,
        foreground: Literal["ids", "any"] = "ids",
        resize_mask: Callable[[Tensor, Size], Tensor] = transforms.resize_mask,
        antialias: bool = True,
        cache: bool = True,
        cache_bytes: int = 4 << 30,
    ) -> None:
        """Take records; nothing is read yet.

        Args:
            records: each must have an image; without a mask its sample has none.
            num_classes: background included; a larger id in a mask is an error. IGNORE is always allowed.
            size: images become this (rows, columns; an int is a square); None: their own size.
            augmentation: views to draw; None: the whole image and its `note`.
            foreground: "any" merges all classes (but IGNORE, unless a mask has larger ids still) to 1.
            resize_mask: how masks are brought to `size`; `transforms.published_mask` repeats the published code.
            antialias: where `size` makes images smaller; False repeats the published code.
            cache: keep decoded images, up to `cache_bytes`; beyond it files are read again.

        Raises:
            DataError: no records, or one without an image.
        """
        if not records:
            raise DataError("a data set needs at least one record; check the split and the subset")
        bare = [record.id for record in records if record.image is None]
        if bare:
            raise DataError(f"{len(bare)} records have no image (the first is '{bare[0]}'); leave them out")
        self.records = list(records)
        self._num_classes, self._foreground, self._resize_mask = num_classes, foreground, resize_mask
        self._antialias = antialias
        self._size = (size, size) if isinstance(size, int) else size
        self._augmentation = augmentation.build() if augmentation is not None else None
        self._cache: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._bytes_left = cache_bytes if cache else 0

    def __len__(self) -> int:
        return len(self.records)

    def check(self) -> "Dataset":
        """Read every record once (into the cache, as far as it goes), so that a bad file is told before hours of work.

        Raises:
            DataError: as `sample`; or there are masks and none marks anything.
        """
        marked = [self._marks(index) for index in range(len(self))]
        if True not in marked and False in marked:
            raise DataError(
                f"none of {marked.count(False)} masks marks anything (0 is background, 255 among label ids is not "
                f"counted), e.g. that of '{self.records[0].id}'; look at them with medtextdiff data check"
            )
        return self

    def sample(self, index: int, rng: torch.Generator) -> Sample:
        """The sample of a record; what is random about it comes from `rng`.

        Raises:
            DataError: the mask does not fit the image or the number of classes; ImageError: a file cannot be read.
        """
        record = self.records[index]
        image, mask = self._load(index)
        if self._augmentation is not None:
            notes = (record.note, *record.other_notes)
            view = self._augmentation(image, mask, notes, rng, record.id, record.side)
            return Sample(record.id, view.note, view.image, view.mask, view.box)
        pixels = (image if image.is_floating_point() else image.float() / 255 * 2 - 1).expand(3, -1, -1)
        labels = mask.long() if mask is not None else None
        if self._size is not None:
            pixels = transforms.resize_image(pixels, self._size, self._antialias)
            labels = self._resize_mask(labels, self._size) if labels is not None else None
        if pixels.data_ptr() == image.data_ptr():
            pixels = pixels.clone()  # what is cached stays ours
        return Sample(record.id, record.note, pixels.contiguous(), labels, torch.tensor(WHOLE))

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Samples as one batch, see `collate`."""
        return collate(samples)

    def _load(self, index: int) -> tuple[Tensor, Tensor | None]:
        if index in self._cache:
            return self._cache[index]
        loaded = self._read(self.records[index])
        cost = sum(tensor.nbytes for tensor in loaded if tensor is not None)
        if cost <= self._bytes_left:
            self._bytes_left -= cost
            self._cache[index] = loaded
        return loaded

    def _marks(self, index: int) -> bool | None:
        """Whether a record's mask has any class but background; None without a mask."""
        mask = self._load(index)[1]
        return None if mask is None else bool(((mask != 0) & (mask != IGNORE)).any())

    def _read(self, record: Record) -> tuple[Tensor, Tensor | None]:
        assert record.image is not None
        picture = images.read(record.image)
        shallow = picture.header["bits"] <= 8
        pixels = torch.from_numpy(picture.pixels).permute(2, 0, 1)  # (C, H, W) in [0, 1]
        mask = read_labels(record, self._num_classes, self._foreground)
        if mask is not None and mask.shape != pixels.shape[-2:]:
            raise DataError(
                f"record '{record.id}': the mask is {mask.shape[1]} x {mask.shape[0]}, its image {pixels.shape[2]} x "
                f"{pixels.shape[1]}; give the mask that was drawn on this image"
            )
        if self._size is not None and self._augmentation is not None:
            pixels = transforms.resize_image(pixels.contiguous(), self._size, self._antialias)
            mask = self._resize_mask(mask, self._size) if mask is not None else None
        kept = pixels.mul(255).round().byte() if shallow else pixels * 2 - 1
        return kept.contiguous(), mask


class Mixture:
    """Several data sets as one: each sample draws a set by its weight, then an image of it, all from `rng`."""

    def __init__(self, parts: Sequence[tuple[Samples, float]]) -> None:
        """Take (data set, weight) pairs; weights need not sum to 1.

        Raises:
            DataError: no parts, or a weight that is not positive.
        """
        if not parts or any(weight <= 0 for _, weight in parts):
            raise DataError("a mixture needs at least one data set, each with a weight above 0")
        self._parts = [part for part, _ in parts]
        total = sum(weight for _, weight in parts)
        self._limits = list(itertools.accumulate(weight / total for _, weight in parts))

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def sample(self, index: int, rng: torch.Generator) -> Sample:
        """A sample of some part; `index` plays no role."""
        which, where = torch.rand(2, generator=rng, dtype=torch.float64).tolist()
        part = self._parts[min(bisect.bisect_right(self._limits, which), len(self._parts) - 1)]
        return part.sample(int(where * len(part)), rng)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Samples as one batch, see `collate`."""
        return collate(samples)


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples as a Batch, in order. Masks None where no sample has one; else IGNORE where one lacks it.

    Raises:
        DataError: images of different sizes.
    """
    sizes = {tuple(sample.image.shape[-2:]) for sample in samples}
    if len(sizes) != 1:
        raise DataError(
            f"images of sizes {sorted(sizes)} cannot share a batch; set `crop`, or `size` (and use the model at that "
            "size), or batches of 1"
        )
    masks: Tensor | None = None
    if any(sample.mask is not None for sample in samples):
        masks = torch.stack(
            [transforms.ignore_like(sample.image) if sample.mask is None else sample.mask for sample in samples]
        )
    return Batch(
        ids=[sample.id for sample in samples],
        notes=[sample.note for sample in samples],
        images=torch.stack([sample.image for sample in samples]),
        masks=masks,
        boxes=torch.stack([sample.box for sample in samples]),
    )


def check_scorable(record: Record, labels: Integer[Tensor, "H W"]) -> None:
    """Refuse a mask that leaves nothing to score.

    Raises:
        DataError: every pixel is IGNORE.
    """
    if (labels == IGNORE).all():
        raise DataError(
            f"record '{record.id}': every pixel of its mask is {IGNORE} (not counted), so nothing can be scored; mark "
            "some of it, or take the image out of the split"
        )


def read_labels(
    record: Record, num_classes: int, foreground: Literal["ids", "any"] = "ids"
) -> UInt8[Tensor, "H W"] | None:
    """The record's mask as uint8 class ids below `num_classes`, or IGNORE; None if it has none.

    Raises:
        DataError: an id that is too large; ImageError: the file cannot be read.
    """
    if record.mask is None:
        return None
    ids = torch.from_numpy(images.read_mask(record.mask))
    if foreground == "any":
        ignored = (ids == IGNORE) & (ids.max() <= IGNORE)  # of more than 255 objects, one is the 255th
        ids = torch.where(ignored, ids, (ids > 0).long())
    wrong = ids[(ids >= num_classes) & (ids != IGNORE)]
    if len(wrong):
        raise DataError(
            f"record '{record.id}': its mask has class {int(wrong.max())}, but there are {num_classes} classes "
            f"(0..{num_classes - 1}); raise num_classes, or set foreground=any to merge all classes"
        )
    return ids.byte()
