"""Low-rank adapters (LoRA, arXiv 2106.09685) of a frozen network, by peft: attached, saved, loaded, merged."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.synthesis.bases import fingerprint
from medtextdiff.training import disk, weights
from medtextdiff.training.errors import RunError

WEIGHTS, ABOUT = "pytorch_lora_weights.safetensors", "adapter.json"  # the first is diffusers' name for it
_NAME = "default"  # peft's, of an adapter that nobody named


class Config(config.Config):
    """An adapter: its rank, its strength (the update is multiplied by alpha / rank), and which layers have one.

    targets: ends of layers' names ("to_q" fits every layer whose name ends in ".to_q"). init: "gaussian" is the
    published one, "kaiming" peft's own; the other factor is zero in both, so a new adapter changes nothing. path: the
    folder of a trained adapter; "": a new one.
    """

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=8.0, gt=0)
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    init: Literal["gaussian", "kaiming"] = "gaussian"
    path: str = ""

    def build(self, prefix: str = "") -> "Adapted":
        """The place for a network and its adapter; `prefix` goes before the tensors' names on disk."""
        return Adapted(self, prefix)

    def saved(self, path: str) -> "Config":
        """The config that loads the adapter from where it was saved."""
        return self.replace(path=path)


class Adapted(nn.Module):
    """A frozen network with an adapter, or without one (settings None). Empty until `open`, for it is large."""

    def __init__(self, settings: Config | None, prefix: str = "") -> None:
        super().__init__()
        if settings is not None:
            _need_peft()
        self.settings, self.prefix = settings, prefix
        self.network: Any = None
        self.base: dict[str, str] = {}

    def open(self, network: nn.Module, name: str, trainable: bool) -> None:
        """Take the frozen base network called `name` in messages, and attach the adapter to it.

        Raises:
            ConfigError: targets that fit no layer, or the adapter in `settings.path` is another base's; RunError: its
            files are missing or damaged.
        """
        self.network = network.requires_grad_(False)
        if self.settings is None:
            return
        self.base = fingerprint(network)
        if self.settings.path:
            self._check_base(name)
        attach(network, self.settings)
        if self.settings.path:
            file = Path(self.settings.path) / WEIGHTS
            values = {_live(key.removeprefix(self.prefix)): value for key, value in weights.read(file).items()}
            weights.fill(_adapter(network), values, file)
        network.requires_grad_(False)
        for tensor in _adapter(network).values():
            tensor.requires_grad_(trainable)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def tensors(self) -> dict[str, Tensor]:
        """The adapter by the names that diffusers and peft give its tensors on disk."""
        return {self.prefix + _saved(name): tensor for name, tensor in _adapter(self.network).items()}

    def forward(self, *given: Any, **named: Any) -> Any:
        """The network's answer to inputs in its own precision."""
        dtype = self.network.dtype
        cast = {key: _cast(value, dtype) for key, value in named.items()}
        return self.network(*(_cast(value, dtype) for value in given), **cast)

    def save_trained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write the adapter alone, as diffusers reads it, and what it is an adapter of."""
        assert self.settings is not None
        about = {
            "base": self.base,
            "rank": self.settings.rank,
            "alpha": self.settings.alpha,
            "targets": list(self.settings.targets),
        }
        peft = {f"{self.prefix}{key}": value for key, value in _peft_settings(self.settings).items()}
        metadata = {"lora_adapter_metadata": json.dumps(peft)}  # so that diffusers knows alpha
        weights.write(folder / WEIGHTS, self.tensors(), dtype, metadata)
        disk.write_json(folder / ABOUT, about)

    def _check_base(self, name: str) -> None:
        assert self.settings is not None
        path = Path(self.settings.path) / ABOUT
        try:
            theirs = dict(json.loads(path.read_text(encoding="utf-8"))["base"])
        except (OSError, ValueError, KeyError, TypeError):
            raise RunError(f"{path} is missing or damaged; {weights.RESTORE}") from None
        reasons = {
            "class": f"a {theirs.get('class')}, and this is a {self.base['class']}",
            "config_sha256": "one of the same class with another config",
            "weights_sha256": "one of the same shape with other weights",
        }
        for what, reason in reasons.items():
            if theirs.get(what) != self.base[what]:
                raise ConfigError(
                    f"the adapter in {self.settings.path} was trained for another base than {name}: {reason}; set "
                    "model.base to the one it was trained for (generate: --base)"
                )


def attach(network: nn.Module, settings: Config) -> None:
    """Put a new adapter into a network's layers, in place; its own parameters are float32 and require gradients.

    Raises:
        ConfigError: targets that fit no layer of the network.
    """
    _need_peft()
    from peft import LoraConfig, inject_adapter_in_model

    lost = [end for end in settings.targets if not any(_ends(name, end) for name, _ in network.named_modules())]
    if lost:
        raise ConfigError(f"lora targets: no layer of the {type(network).__name__} ends in '{lost[0]}'; leave it out")
    found = LoraConfig(**_peft_settings(settings), init_lora_weights=_INITS[settings.init])
    inject_adapter_in_model(found, network)
    for tensor in _adapter(network).values():
        tensor.data = tensor.data.float()


@torch.no_grad()
def merge(network: nn.Module) -> nn.Module:
    """The same network with the adapter added to its weights: plain layers again, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, module.get_base_layer())
    if hasattr(network, "peft_config"):
        del network.peft_config
    return network


_INITS: dict[str, Any] = {"gaussian": "gaussian", "kaiming": True}


def _peft_settings(settings: Config) -> dict[str, Any]:
    return {
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "target_modules": list(settings.targets),
        "lora_dropout": settings.dropout,
    }


def _adapter(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.named_parameters() if ".lora_" in name}


def _saved(name: str) -> str:
    return name.replace(f".{_NAME}.", ".")


def _live(name: str) -> str:
    start, sign, end = name.rpartition(".")
    return f"{start}.{_NAME}{sign}{end}"


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith("." + end)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _need_peft() -> None:
    try:
        import peft  # noqa: F401
    except ImportError:
        raise ConfigError("LoRA needs peft, which is not installed; pip install 'medtextdiff[lora]'") from None
