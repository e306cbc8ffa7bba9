"""Images as latents, made once: mean and deviation of each, and of its mirror images, drawn fresh at every visit."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from medtextdiff.data.notes import flip_note
from medtextdiff.diffusion.autoencoder import Autoencoder, Moments
from medtextdiff.training import weights
from medtextdiff.training.disk import whole_folder
from medtextdiff.types import Record

_BATCH = 8
_FILES = ("mean.npy", "std.npy")

# How an image is turned over: index -> (left-right, top-bottom).
VIEWS = ((False, False), (True, False), (False, True), (True, True))


@dataclass(frozen=True)
class LatentSample:
    """One image's latents as a distribution, one of its prompts, and which of `VIEWS` it is."""

    id: str
    note: str
    mean: Float[Tensor, "C h w"]
    std: Float[Tensor, "C h w"]
    mirrored: int


@dataclass(frozen=True)
class LatentBatch:
    """What a step of a latent model sees."""

    ids: list[str]
    notes: list[str]
    mean: Float[Tensor, "B C h w"]
    std: Float[Tensor, "B C h w"]
    mirrored: Int[Tensor, " B"]

    def to(self, device: torch.device) -> "LatentBatch":
        """The same on another device."""
        arrays = {name: getattr(self, name).to(device) for name in ("mean", "std", "mirrored")}
        return replace(self, **arrays)

    def moments(self) -> Moments:
        """The latents as distributions."""
        return Moments(self.mean, self.std)


class Latents:
    """Records as latents, in the form that the training loop draws from.

    Views beside the first are drawn as often as the first; each comes with its prompt rewritten, so that no prompt is
    contradicted. Nothing is cropped or recoloured.
    """

    def __init__(
        self, records: Sequence[Record], moments: tuple[np.ndarray, np.ndarray] | None = None, at_once: int = 1
    ) -> None:
        """Take records and the arrays of `encode` or `kept`, [N, views, C, h, w] each; these may come later.

        `at_once`: most prompts of an image that are told together; how many is drawn, too.
        """
        self.records = list(records)
        self.moments = moments
        self._at_once = at_once

    def __len__(self) -> int:
        return len(self.records)

    def sample(self, index: int, rng: torch.Generator) -> LatentSample:
        """A view of an image and one or some of its prompts, both drawn from `rng`."""
        assert self.moments is not None, "the latents were not made yet"
        means, stds = self.moments
        which, told, many = torch.rand(3, generator=rng, dtype=torch.float64).tolist()
        record = self.records[index]
        notes = record.notes or [""]
        view = int(which * means.shape[1])
        mean, std = (torch.from_numpy(values[index, view].astype(np.float32)) for values in (means, stds))
        first, num = int(told * len(notes)), 1 + int(many * min(self._at_once, len(notes)))
        chosen = [notes[first]]
        if num > 1:
            others = [notes[k] for k in torch.randperm(len(notes), generator=rng).tolist() if k != first]
            chosen += others[: num - 1]
        return LatentSample(record.id, rewritten(" ".join(chosen), view), mean, std, view)

    def collate(self, samples: Sequence[LatentSample]) -> LatentBatch:
        """Samples as one batch, in order."""
        return LatentBatch(
            ids=[sample.id for sample in samples],
            notes=[sample.note for sample in samples],
            mean=torch.stack([sample.mean for sample in samples]),
            std=torch.stack([sample.std for sample in samples]),
            mirrored=torch.tensor([sample.mirrored for sample in samples]),
        )


def rewritten(note: str, view: int) -> str:
    """A prompt for the image turned over as `VIEWS[view]` says: its place words swap."""
    return flip_note(note, *VIEWS[view])


@torch.no_grad()
def encode(
    autoencoder: Autoencoder, images: Iterable[Float[Tensor, "3 H W"]], num_views: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means and deviations [N, views, C, h, w], float16, of images in [-1, 1] and their first `num_views` views."""
    device = next(autoencoder.parameters()).device
    found: list[tuple[np.ndarray, np.ndarray]] = []
    waiting: list[Tensor] = []

    def work() -> None:
        batch = torch.stack(waiting).to(device)
        views = [_turned(batch, view) for view in range(num_views)]
        moments = [autoencoder.encode(view) for view in views]
        found.append(
            (
                torch.stack([m.mean for m in moments], dim=1).cpu().numpy().astype(np.float16),
                torch.stack([m.std for m in moments], dim=1).cpu().numpy().astype(np.float16),
            )
        )
        waiting.clear()

    for image in images:
        waiting.append(image)
        if len(waiting) == _BATCH:
            work()
    if waiting:
        work()
    return np.concatenate([mean for mean, _ in found]), np.concatenate([std for _, std in found])


def kept(folder: Path, key: str, make: Callable[[], tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The arrays called `key` in `folder`, mapped from disk, not read; where they are not there, what `make` gives.

    Raises:
        RunError: the disk is full or refuses.
    """
    place = folder / key
    if not all((place / name).is_file() for name in _FILES):
        arrays = make()
        with whole_folder(place) as new:
            for name, values in zip(_FILES, arrays, strict=True):
                np.save(new / name, values)
    mean, std = (np.load(place / name, mmap_mode="r") for name in _FILES)
    return mean, std


def cache_key(autoencoder: Autoencoder, hashes: Sequence[str], size: int, num_views: int) -> str:
    """What decides the latents: the autoencoder's weights and normalisation, the files, their order, size and views."""
    told = [list(hashes), size, num_views, autoencoder.normalisation, weights.digest(autoencoder)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _turned(images: Float[Tensor, "B 3 H W"], view: int) -> Float[Tensor, "B 3 H W"]:
    left_right, top_bottom = VIEWS[view]
    axes = [-1] * left_right + [-2] * top_bottom
    return images.flip(axes).contiguous() if axes else images
