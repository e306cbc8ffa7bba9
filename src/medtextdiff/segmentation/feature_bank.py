"""Levels of a frozen denoiser, computed once for each view of an image and kept on disk.

The key of an entry follows from all that decides the levels: the image's values, the denoiser's weights and settings,
the features' settings, the precision. So whoever asks the bank gets what the denoiser would give, up to `dtype`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.segmentation.bank_store import Store
from medtextdiff.segmentation.features import Features
from medtextdiff.types import Levels

_VERSION = 1  # of what the levels are and how they are kept; another number never meets old entries


class Config(config.Config):
    """Where levels are kept.

    folder: "./NAME" lies in the run folder. budget_gb: the least used entries beyond it are dropped.
    dtype: of the numbers on disk; "as_computed" changes no bit, the others halve the space of float32 levels.
    """

    folder: str = "./bank"
    budget_gb: PositiveFloat = 20.0
    dtype: Literal["as_computed", "float16", "bfloat16"] = "as_computed"

    def build(self) -> "FeatureBank":
        """The bank; its folder is made when the first levels are kept.

        Raises:
            ConfigError: the folder, or what it should lie in, is a file.
        """
        folder = Path(self.folder)
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not there.is_dir():
            raise ConfigError(f"{there} is a file; give a folder for the feature bank")
        return FeatureBank(self)


class FeatureBank:
    """Gives the levels of images, from disk where they are there. `found` and `made` count images, since the start."""

    def __init__(self, settings: Config) -> None:
        self.settings = settings
        self.store = Store(Path(settings.folder), int(settings.budget_gb * 1e9))
        self.found = self.made = 0
        self._dtype: torch.dtype | None = getattr(torch, settings.dtype, None)  # None: as computed
        self._fingerprints: WeakKeyDictionary[nn.Module, tuple[int, str]] = WeakKeyDictionary()

    def __deepcopy__(self, memo: object) -> "FeatureBank":
        """Itself: a copied model, as consistency's teacher, keeps its levels in the same place."""
        return self

    @torch.no_grad()
    def levels(self, features: Features, denoiser: Any, images: Float[Tensor, "B 3 H W"]) -> Levels:
        """What `features(denoiser, images)` gives, image by image, so that no entry depends on what was beside it.

        One image found on a CPU is a view of the memory map; several are stacked.
        """
        singles = [self._one(features, denoiser, image) for image in images.split(1)]
        return singles[0] if len(singles) == 1 else [torch.cat(maps) for maps in zip(*singles, strict=True)]

    def key(self, features: Features, denoiser: Any, image: Float[Tensor, "1 3 H W"]) -> str:
        """What the levels of an image are kept under."""
        kind = image.device.type
        about = {
            "version": _VERSION,
            "stored": self.settings.dtype,
            "denoiser": self._fingerprint(denoiser),
            "features": config.to_json(features.settings),
            "image": [list(image.shape), str(image.dtype)],
            "autocast": str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else None,
        }
        digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=20)
        digest.update(_content(image))
        return digest.hexdigest()

    def _one(self, features: Features, denoiser: Any, image: Tensor) -> Levels:
        key = self.key(features, denoiser, image)
        levels = self.store.read(key)
        if levels is not None:
            self.found += 1
            return [level.to(image.device) for level in levels]
        self.made += 1
        computed = features(denoiser, image)
        stored = [level if self._dtype is None else level.to(self._dtype) for level in computed]
        if not all(bool(level.isfinite().all()) for level in stored):
            return computed  # too large for the dtype on disk: never kept, so it is the same each time
        self.store.write(key, stored, [level.dtype for level in computed])
        return [level.to(like.dtype) for level, like in zip(stored, computed, strict=True)]

    def _fingerprint(self, denoiser: nn.Module) -> str:
        """Of all that decides what the denoiser computes; taken again only when a weight was changed or moved."""
        state = hash(tuple((t.data_ptr(), t._version, t.dtype) for t in _tensors(denoiser).values()))
        known = self._fingerprints.get(denoiser)
        if known is None or known[0] != state:
            known = self._fingerprints[denoiser] = (state, fingerprint(denoiser))
        return known[1]


def fingerprint(denoiser: nn.Module) -> str:
    """A digest of a denoiser's weights, and of its `architecture` where it tells one; not of where they lie."""
    digest = hashlib.blake2b(digest_size=20)
    digest.update(json.dumps(getattr(denoiser, "architecture", {}), sort_keys=True, default=str).encode())
    digest.update(repr(denoiser).encode())
    for name, tensor in _tensors(denoiser).items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_content(tensor))
    return digest.hexdigest()


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _content(tensor: Tensor) -> memoryview:
    """A tensor's values as bytes, in the order of its axes."""
    flat: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)
