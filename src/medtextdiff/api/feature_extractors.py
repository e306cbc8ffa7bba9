"""Which extractor a name or a path means."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from medtextdiff.config import Config, ConfigError, nearest, override, siblings
from medtextdiff.recipes.run_folder import locate

_FAMILY = "medtextdiff.synthesis.extractors"


def build(name_or_path: str, settings: Sequence[str] = ()) -> Any:
    """The extractor: one of the family by name, a folder of a denoiser or of a vision model, or a TorchScript file.

    `settings` change its config, e.g. "size=256".

    Raises:
        ConfigError, DenoiserError: nothing of that name, or it cannot be loaded; a setting it does not have, or with
        which it reads no image: it is tried on one, before any is generated.
    """
    extractor = cast(Any, locate(override(_config(name_or_path), settings))).build()
    try:
        extractor(torch.zeros(1, 3, extractor.size, extractor.size))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        why = str(error).strip().splitlines()[0]
        raise ConfigError(f"extractor '{name_or_path}' cannot read images of {extractor.size} px: {why}") from None
    return extractor


def _config(name: str) -> Config:
    from medtextdiff.synthesis.extractors import denoiser, efficientnet_lite0, huggingface, torchscript

    path = Path(name)
    if path.is_file():
        return torchscript.Config(path=name)
    if path.is_dir():
        return denoiser.Config(path=name) if _is_denoiser(path) else huggingface.Config(path=name)
    if name == "denoiser":
        return denoiser.Config()
    if name == "efficientnet_lite0":
        return efficientnet_lite0.Config()
    known = [one for one in siblings(f"{_FAMILY}.denoiser") if one not in ("huggingface", "torchscript")]
    raise ConfigError(f"no extractor '{name}'; give a folder, a TorchScript file or a name; {nearest(name, known)}")


def _is_denoiser(folder: Path) -> bool:
    path = folder / "config.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, OSError):
        return False
    return isinstance(told, dict) and told.get("_class_name") == "UNet2DModel"
