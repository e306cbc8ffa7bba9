"""What a generator is trained on: images of a data set at one size, their prompts, and the images held out."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import Field, SerializeAsAny
from torch import Tensor

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.data.dataset import Dataset
from medtextdiff.data.images import content_hash
from medtextdiff.data.sources import detect
from medtextdiff.types import Record


class Data(config.Config):
    """A data set by its folder, its layout found by looking; `source` says more where that is needed.

    size: images are made size x size, the whole image each time: a prompt speaks of the whole image, so nothing is
    cut off. val_split: the images that are held out; None: none are.
    """

    root: str = ""
    source: SerializeAsAny[config.Config] | None = None
    train_split: str = "train"
    val_split: str | None = "val"
    size: int = Field(default=128, ge=8, le=2048)

    def training(self) -> list[Record]:
        """The images to train on, masks left out.

        Raises:
            ConfigError: no root; DataError: no data set there, or no such split.
        """
        return self._records(self.train_split)

    def heldout(self) -> list[Record]:
        """The images that are held out, masks left out.

        Raises:
            ConfigError: no root, or nothing is held out; DataError: no data set there, or no such split.
        """
        if self.val_split is None:
            raise ConfigError("data.val_split is null, but held-out images are needed here; name their split")
        return self._records(self.val_split)

    def _records(self, split: str) -> list[Record]:
        if not self.root and self.source is None:
            raise ConfigError("no data: name the data set's folder with --set data.root=DIR")
        source = (self.source if self.source is not None else detect(self.root)).build()  # type: ignore[attr-defined]
        found = [replace(record, mask=None) for record in source.records(split) if record.image is not None]
        if not found:
            raise ConfigError(f"split '{split}' of {self.root} has no image; a generator learns from images")
        return found


def whole_images(records: Iterable[Record], size: int) -> Iterator[Float[Tensor, "3 H W"]]:
    """Each record's whole image, size x size, in [-1, 1], in order."""
    dataset = Dataset(list(records), size=size, cache=False)
    for index in range(len(dataset)):
        yield dataset.sample(index, torch.Generator()).image


def also_read(records: Iterable[Record], heldout: Iterable[Record] = ()) -> dict[str, str]:
    """What else a resumed run must find unchanged: the prompts that are trained on, and all of the held-out images."""
    told = {f"prompts of {record.id}": _hash_of_prompts(record) for record in records if record.notes}
    for record in heldout:
        told |= {f"held out: {name}": value for name, value in hashes([record]).items()}
        told[f"prompts of held-out {record.id}"] = _hash_of_prompts(record)
    return told


def hashes(records: Iterable[Record]) -> dict[str, str]:
    """Which files were trained on: id -> SHA-256 of the content."""
    return {record.id: content_hash(Path(record.image)) for record in records if record.image is not None}


def _hash_of_prompts(record: Record) -> str:
    return hashlib.sha256("\0".join(record.notes).encode()).hexdigest()
