"""Features of a TorchScript file, as the common copies of FID's InceptionV3 and RadImageNet networks are kept."""

import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from medtextdiff import config
from medtextdiff.synthesis.extraction import Extracted, sha256_of


class Config(config.Config):
    """A .pt file that maps images to features.

    Fields:
        pixels: the range it reads: "0-255" (the usual Inception file), "0-1" or "-1-1".
        call: "features" calls it with the images alone; "return_features" as `module(images, return_features=True)`,
            the usual Inception file's way to leave out its classifier.
        gives: whether the answer is features, or the logits of classes (which then are the features too).
    """

    path: str
    size: int = Field(default=299, ge=8)
    pixels: Literal["0-255", "0-1", "-1-1"] = "0-255"
    call: Literal["features", "return_features"] = "features"
    gives: Literal["features", "logits"] = "features"

    @classmethod
    def tiny(cls, folder: Path) -> "Config":
        """Write a tiny network into `folder` and give its config."""
        torch.manual_seed(0)
        layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, 4), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.save(torch.jit.trace(layers, torch.zeros(1, 3, 32, 32)), folder / "tiny.pt")
        return cls(path=str(folder / "tiny.pt"), size=32, pixels="-1-1")

    def build(self) -> "Extractor":
        """Load it.

        Raises:
            ConfigError: no such file, or no TorchScript.
        """
        if not Path(self.path).is_file():
            raise config.ConfigError(f"extractor: {self.path} does not exist; give a TorchScript file (.pt)")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch's: the files are what they are
                network = torch.jit.load(self.path, map_location="cpu").eval()
        except (RuntimeError, ValueError):
            raise config.ConfigError(
                f"extractor: {self.path} is no TorchScript file, or damaged; save the network with torch.jit.save"
            ) from None
        return Extractor(self, network)


class Extractor(torch.nn.Module):
    """Images to the file's own features, not standardised."""

    standardised = False

    def __init__(self, settings: Config, network: Any) -> None:
        super().__init__()
        self.settings, self.network, self.size = settings, network, settings.size
        path = Path(settings.path)
        self.about = {
            "extractor": f"TorchScript {path.name}",
            "extractor sha256": sha256_of(path),
            "features": f"{settings.gives}, {settings.size} px, pixels {settings.pixels}",
        }

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Extracted:
        """Of images in [-1, 1]."""
        pixels = {"0-255": (images + 1) * 127.5, "0-1": (images + 1) / 2, "-1-1": images}[self.settings.pixels]
        whole = self.settings.call == "return_features"
        found = self.network(pixels, return_features=True) if whole else self.network(pixels)
        if found.ndim not in (2, 4):
            raise config.ConfigError(f"extractor: {self.settings.path} gives shape {tuple(found.shape)}, not features")
        maps = found if found.ndim == 4 and found.shape[-1] > 1 else None
        vectors = found.mean(dim=(2, 3)) if found.ndim == 4 else found
        return Extracted(vectors, maps, vectors.softmax(dim=1) if self.settings.gives == "logits" else None)
