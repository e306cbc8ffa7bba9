"""Which device and precision a model computes in, one hash for all its files, and what it did not read."""

import hashlib
from collections.abc import Callable
from typing import Any, Literal, cast

import torch

from medtextdiff.config import ConfigError


def device_of(name: str) -> torch.device:
    """The device called auto (a GPU if there is one), cpu, cuda or cuda:N.

    Raises:
        ConfigError: no such device, or it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"no device '{name}'; give auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"no device '{name}'; give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device '{name}' is not there: torch sees no GPU; use --device cpu")
    return device


def precision_of(name: str, device: torch.device) -> Literal["float32", "bf16"]:
    """The precision called auto (bf16 where the device computes in it), float32 or bf16.

    Raises:
        ConfigError: no such precision.
    """
    if name not in ("auto", "float32", "bf16"):
        raise ConfigError(f"no precision '{name}'; give auto, float32 or bf16")
    if name != "auto":
        return cast(Literal["float32", "bf16"], name)
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bf16" if torch.backends.mkldnn.is_available() and _has_bf16_units() else "float32"


def _has_bf16_units() -> bool:
    """Whether the CPU multiplies in bf16 (AVX512-BF16 or AMX), and does not only emulate it."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and bool(torch.cpu._is_avx512_bf16_supported())


def digest(hashes: dict[str, str]) -> str:
    """One SHA-256 for the files of a run, by their names and hashes."""
    return hashlib.sha256("".join(f"{name}{value}" for name, value in sorted(hashes.items())).encode()).hexdigest()


def tell_cuts(model: Any, say: Callable[[str], None]) -> None:
    """Say how many notes, since the model was built, were longer than its text encoder takes."""
    text = getattr(model, "text", None)
    if text is not None and hasattr(text, "cuts") and text.cuts.notes:
        say(f"notes longer than the text encoder takes: {text.cuts.notes}; tokens cut: {text.cuts.tokens}")
