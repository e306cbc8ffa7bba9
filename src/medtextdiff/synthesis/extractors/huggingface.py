"""Features of a vision model in a local folder, as transformers loads it: ViT, BiomedCLIP's ViT, ResNet, DINOv2.

The class token where the model has one (as the MEDVQA-GI 2025 script takes it), else the mean over the last map.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from medtextdiff import config
from medtextdiff.synthesis.extraction import Extracted, sha256_of

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Config(config.Config):
    """A folder with config.json and safetensors of a vision model.

    Fields:
        pooling: "cls" the first token, "mean" of the last map; "auto" is cls where tokens outnumber the grid by one.
        size: side of the square it reads; None: as its config says, else 224.
    """

    path: str
    pooling: Literal["auto", "cls", "mean"] = "auto"
    size: int | None = Field(default=None, ge=8)

    @classmethod
    def tiny(cls, folder: Path) -> "Config":
        """Write a random ViT into `folder` and give its config."""
        from transformers import ViTConfig, ViTModel

        torch.manual_seed(0)
        settings = ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
        )
        ViTModel(settings, add_pooling_layer=False).save_pretrained(folder)
        return cls(path=str(folder))

    def build(self) -> "Extractor":
        """Load it, from the folder alone.

        Raises:
            ConfigError: no folder, or none that transformers loads as a vision model.
        """
        folder = Path(self.path)
        if not (folder / "config.json").is_file():
            raise config.ConfigError(f"extractor: {folder} has no config.json; give a folder that transformers loads")
        return Extractor(self, *_load(folder))


class Extractor(torch.nn.Module):
    """Images to the model's own features, not standardised."""

    standardised = False
    mean: Tensor
    scale: Tensor

    def __init__(self, settings: Config, network: Any, classifies: bool) -> None:
        super().__init__()
        folder = Path(settings.path)
        self.network, self.settings, self.classifies = network, settings, classifies
        self.size = settings.size or _side(network.config)
        mean, scale = _normalisation(folder)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1))
        self.about = {
            "extractor": f"{network.config.model_type} from {folder.name}",
            "extractor sha256": sha256_of(folder),
            "features": f"last hidden state, pooling {settings.pooling}, {self.size} px",
        }

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Extracted:
        """Of images in [-1, 1]."""
        pixels = ((images + 1) / 2 - self.mean) / self.scale
        # Of a classifier, too, what the network without its head gives: of a ViT after its last norm.
        last = self.network.base_model(pixel_values=pixels).last_hidden_state
        return self._extracted(last, self.network(pixel_values=pixels).logits.softmax(-1) if self.classifies else None)

    def _extracted(self, last: Tensor, probs: Tensor | None) -> Extracted:
        if last.ndim == 4:  # (B, C, h, w)
            return Extracted(last.mean(dim=(2, 3)), last, probs)
        side = int((last.shape[1] - 1) ** 0.5)
        has_token = side * side == last.shape[1] - 1
        grid = last[:, 1:] if has_token else last
        side = int(grid.shape[1] ** 0.5)
        square = side * side == grid.shape[1]
        maps = grid.transpose(1, 2).reshape(len(grid), -1, side, side) if square else None  # (B, D, h, w)
        take_token = self.settings.pooling == "cls" or (self.settings.pooling == "auto" and has_token)
        return Extracted(last[:, 0] if take_token else grid.mean(dim=1), maps, probs)


def _load(folder: Path) -> tuple[Any, bool]:
    from transformers import AutoModel, AutoModelForImageClassification
    from transformers.utils import logging

    shown, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        classifies = any("ForImageClassification" in name for name in settings.get("architectures") or ())
        kind = AutoModelForImageClassification if classifies else AutoModel
        options = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
        # In float32 whatever the file has: distances are not taken in half precision.
        network, info = kind.from_pretrained(folder, dtype=torch.float32, **options)
        network = network.eval().requires_grad_(False)
        if hasattr(network, "vision_model"):  # a pair of towers, as CLIP
            network = network.vision_model
    except Exception as error:  # transformers and safetensors raise a dozen types
        raise config.ConfigError(
            f"extractor: {folder} cannot be loaded: {str(error).strip().splitlines()[0]}; give config.json and "
            "safetensors of a vision model"
        ) from None
    finally:
        logging.set_verbosity(shown)
        if bars:
            logging.enable_progress_bar()
    _check_loaded(folder, network, info)
    return network, classifies


def _check_loaded(folder: Path, network: Any, info: dict[str, Any]) -> None:
    """Refuse what transformers lets pass: it draws at random what the file lacks. A pooler is not used."""
    lost = [key for key in info["missing_keys"] if "pooler" not in key.split(".")]
    for fault, keys in (("lacks", lost), ("has in another shape", [key[0] for key in info["mismatched_keys"]])):
        if keys:
            raise config.ConfigError(
                f"extractor: the weights in {folder} do not fit its config.json: the file {fault} {len(keys)} of the "
                f"model's tensors, e.g. {sorted(keys)[0]}; give a folder that transformers wrote (save_pretrained)"
            )
    for name, value in network.named_parameters():
        if not torch.isfinite(value).all():
            raise config.ConfigError(f"extractor: {folder} is damaged: '{name}' holds values that are not finite")


def _side(settings: Any) -> int:
    size = getattr(settings, "image_size", None) or 224
    return int(size[0] if isinstance(size, list | tuple) else size)


def _normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """As the model's own preprocessor says; ImageNet's where it says nothing."""
    path = folder / "preprocessor_config.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return tuple(told.get("image_mean", _IMAGENET[0])), tuple(told.get("image_std", _IMAGENET[1]))
