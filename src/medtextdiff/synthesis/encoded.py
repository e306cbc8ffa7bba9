"""Images and prompts as the arrays that a large system learns from: made once, so that its encoders leave memory."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medtextdiff.training.disk import whole_folder
from medtextdiff.types import Record

Arrays = dict[str, np.ndarray]  # each [N, ...]; the same N
Tensors = dict[str, Tensor]

_BATCH = 8


@dataclass(frozen=True)
class EncodedSample:
    """One image and one of its prompts, as named tensors without a batch axis."""

    id: str
    image: Tensors
    prompt: Tensors


@dataclass(frozen=True)
class EncodedBatch:
    """What a step sees; every tensor has the batch axis first."""

    ids: list[str]
    image: Tensors
    prompt: Tensors


class Encoded:
    """Records as named arrays, in the form that the training loop draws from. The whole image, nothing turned over."""

    def __init__(self, records: Sequence[Record]) -> None:
        """Take the records; `images` [one row a record] and `prompts` [one row a distinct prompt] may come later."""
        self.records = list(records)
        self.images: Arrays = {}
        self.prompts: Arrays = {}
        self._rows = {note: row for row, note in enumerate(self.distinct())}

    def distinct(self) -> list[str]:
        """Every prompt of the records once, in order."""
        return list(dict.fromkeys(note for record in self.records for note in _notes(record)))

    def __len__(self) -> int:
        return len(self.records)

    def sample(self, index: int, rng: torch.Generator) -> EncodedSample:
        """An image and one of its prompts, drawn from `rng`."""
        assert self.images, "the images were not encoded yet"
        notes = _notes(self.records[index])
        told = notes[int(float(torch.rand((), generator=rng, dtype=torch.float64)) * len(notes))]
        return EncodedSample(self.records[index].id, _row(self.images, index), _row(self.prompts, self._rows[told]))

    def collate(self, samples: Sequence[EncodedSample]) -> EncodedBatch:
        """Samples as one batch, in order."""
        return EncodedBatch(
            [sample.id for sample in samples],
            _stacked([sample.image for sample in samples]),
            _stacked([sample.prompt for sample in samples]),
        )


@torch.no_grad()
def images(encode: Callable[[Tensor], Tensors], given: Iterable[Float[Tensor, "3 H W"]]) -> Arrays:
    """What `encode` makes of images in [-1, 1], a few at a time, in float32."""
    found: list[Arrays] = []
    waiting: list[Tensor] = []
    for image in given:
        waiting.append(image)
        if len(waiting) == _BATCH:
            found.append(_arrays(encode(torch.stack(waiting)), np.float32))
            waiting.clear()
    if waiting:
        found.append(_arrays(encode(torch.stack(waiting)), np.float32))
    return _joined(found)


@torch.no_grad()
def prompts(read: Callable[[list[str]], Tensors], given: Sequence[str]) -> Arrays:
    """What `read` makes of prompts, a few at a time; in float16, for there are many words."""
    parts = [list(given[first : first + _BATCH]) for first in range(0, len(given), _BATCH)]
    return _joined([_arrays(read(part), np.float16) for part in parts])


def kept(folder: Path, key: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays called `key` in `folder`, mapped from disk, not read; where they are not there, what `make` gives.

    Raises:
        RunError: the disk is full or refuses.
    """
    place = folder / key
    if not place.is_dir():
        arrays = make()
        with whole_folder(place) as new:
            for name, values in arrays.items():
                np.save(new / f"{name}.npy", values)
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(place.glob("*.npy"))}


def _notes(record: Record) -> list[str]:
    return record.notes or [""]


def _row(arrays: Arrays, row: int) -> Tensors:
    copies = {name: torch.from_numpy(np.array(values[row])) for name, values in arrays.items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in copies.items()}


def _stacked(rows: Sequence[Tensors]) -> Tensors:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _arrays(tensors: Tensors, dtype: type) -> Arrays:
    return {
        name: (value.float() if value.is_floating_point() else value)
        .cpu()
        .numpy()
        .astype(dtype if value.is_floating_point() else bool)
        for name, value in tensors.items()
    }


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def key(parts: Sequence[str]) -> str:
    """A short name for what decides arrays: encoders, files, prompts; nothing of them can be read from it."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
