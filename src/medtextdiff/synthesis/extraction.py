"""Images to features: what every extractor gives, and how many images are read by one."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

_HASHED = (".json", ".safetensors", ".bin", ".pt", ".pth")
_CELLS, _PIXELS = 3, 12  # grids a side: of features, and of plain colours


@dataclass(frozen=True)
class Extracted:
    """Features of a batch: `vectors` for distances, `maps` that still know the place, `probs` of classes if any."""

    vectors: Float[Tensor, "B D"]
    maps: Float[Tensor, "B C h w"] | None = None
    probs: Float[Tensor, "B K"] | None = None


@runtime_checkable
class Extractor(Protocol):
    """Images to features. `size` is the side it reads; `about` names it in every table, with the hash of its weights.

    `standardised` says that distances are taken after each feature was standardised on real training images: for
    features without a published scale of their own.
    """

    size: int
    standardised: bool
    about: dict[str, str]

    def __call__(self, images: Float[Tensor, "B 3 S S"]) -> Extracted:
        """Of images in [-1, 1]."""
        ...


@dataclass(frozen=True)
class FeatureSet:
    """Features of a set of images: `vectors` for distances; `cells` for classifiers, with places and colours."""

    vectors: Float[np.ndarray, "N D"]
    cells: Float[np.ndarray, "N E"]
    probs: Float[np.ndarray, "N K"] | None

    def __len__(self) -> int:
        return len(self.vectors)


def extract(
    extractor: Extractor,
    images: UInt8[np.ndarray, "N S S 3"],
    *,
    batch: int = 16,
    device: torch.device | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureSet:
    """Features of square images, in their order, whatever the batch size."""
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(images[start : start + batch]).to(device or "cpu").permute(0, 3, 1, 2)
        found = extractor(_resized(pixels.float() / 127.5 - 1, extractor.size))
        colours = F.adaptive_avg_pool2d(pixels.float() / 255, _PIXELS).flatten(1)
        placed = [] if found.maps is None else [F.adaptive_avg_pool2d(found.maps.float(), _CELLS).flatten(1)]
        cells = torch.cat([found.vectors.float(), *placed, colours], dim=1)
        chances = None if found.probs is None else found.probs.double().cpu().numpy()
        parts.append((found.vectors.double().cpu().numpy(), cells.double().cpu().numpy(), chances))
        progress(min(start + batch, len(images)), len(images))
    vectors, cells, probs = zip(*parts, strict=True)
    return FeatureSet(
        np.concatenate(vectors), np.concatenate(cells), None if probs[0] is None else np.concatenate(probs)
    )


def _resized(images: Float[Tensor, "B 3 h w"], size: int) -> Float[Tensor, "B 3 S S"]:
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of all weight and config files of a folder, in hex."""
    files = [path] if path.is_file() else sorted(one for one in path.iterdir() if one.suffix in _HASHED)
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0")
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
