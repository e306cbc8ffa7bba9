"""A pre-trained system that adapters are trained for: its components, from a diffusers folder or the hub, strictly."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from medtextdiff.config import ConfigError
from medtextdiff.diffusion import objective
from medtextdiff.diffusion.folders import load_strictly, one_line, quiet

Dtype = Literal["float32", "bf16"]
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}

_CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")
_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
_TARGETS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_SAMPLED = 256  # values of each tensor that a fingerprint looks at
_END = 1 << 20  # bytes of a file's beginning and end that decide its hash


class Base:
    """The components of one diffusers folder, each read when it is first asked for, and forgotten when told.

    `components` gives each one's class: {"vae": "diffusers.AutoencoderKL", "tokenizer": "transformers.AutoTokenizer"}.
    """

    def __init__(self, path: str, components: Mapping[str, str], dtype: Dtype) -> None:
        """Look whether everything is there; nothing large is read yet.

        Raises:
            ConfigError: no such folder or model id, or a component is missing.
        """
        self.path, self.components, self.dtype = path, dict(components), DTYPES[dtype]
        self.folder = _local(path, components)
        for name, cls in components.items():
            _check_there(self.folder, path, name, cls, components)
        self._held: dict[str, Any] = {}

    def get(self, name: str, device: torch.device | str | None = None) -> Any:
        """A component, frozen and in eval mode if it has weights.

        Raises:
            ConfigError: its files are damaged or another class's.
        """
        if name not in self._held:
            self._held[name] = self.read(name)
        part = self._held[name]
        return part.to(device) if device is not None and isinstance(part, nn.Module) else part

    def read(self, name: str) -> Any:
        """A component, new; see `get`."""
        library, _, word = self.components[name].partition(".")
        place = str(self.folder / name)
        if library == "diffusers":
            cls = _class(library, word)
            if issubclass(cls, nn.Module):
                return load_strictly(cls, place, f"the {name}", ConfigError, self.dtype).requires_grad_(False).eval()
        return _with_transformers(library, word, place, name, self.dtype)

    def settings(self, name: str) -> dict[str, Any]:
        """A component's config as it is on disk."""
        return _read_config(self.folder / name)

    def outline(self, name: str) -> nn.Module:
        """A component of diffusers without its weights (on the device "meta"), for counting."""
        cls = _class(*self.components[name].split("."))
        with quiet(), torch.device("meta"):
            return cls.from_config(cls.load_config(str(self.folder / name))).to(self.dtype).requires_grad_(False)

    def num_bytes(self, name: str) -> int:
        """Bytes of a component's weights on disk."""
        return sum(path.stat().st_size for path in (self.folder / name).glob("*.safetensors"))

    def forget(self) -> None:
        """Let go of every component, so that its memory is free."""
        self._held.clear()

    def key(self, names: Iterable[str]) -> str:
        """What decides the outputs of components: their configs, and their weights by size and both ends of a file."""
        digest = hashlib.sha256(str(self.dtype).encode())
        for name in sorted(names):
            for path in sorted(path for path in (self.folder / name).iterdir() if path.is_file()):
                digest.update(f"{name}/{path.name}:{path.stat().st_size}".encode())
                with open(path, "rb") as file:
                    digest.update(file.read(_END))
                    file.seek(max(0, path.stat().st_size - _END))
                    digest.update(file.read(_END))
        return digest.hexdigest()


@contextmanager
def silent() -> Iterator[None]:
    """Without transformers' warnings, which may repeat a prompt, and its progress bars."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def fingerprint(network: nn.Module) -> dict[str, str]:
    """What a network is: its class, its config's hash, and a hash of 256 values from each of its tensors.

    The values are rounded to bf16 first, so that a base read in float32 or in bf16 is the same base.
    """
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(_some_values(value).view(torch.uint8).numpy().tobytes())
    shown = {key: value for key, value in dict(network.config).items() if not key.startswith("_")}  # type: ignore[arg-type]
    config = hashlib.sha256(json.dumps(shown, sort_keys=True, default=str).encode()).hexdigest()
    return {"class": type(network).__name__, "config_sha256": config, "weights_sha256": digest.hexdigest()}


def objective_of(base: Base, name: str, min_snr: float | None) -> objective.Objective:
    """The objective that the scheduler `name` of a base stands for.

    Raises:
        ConfigError: a scheduler whose noise or target we don't know.
    """
    found = base.settings(name)
    # UnCLIPScheduler has one noise schedule, and does not name it.
    unclip = found.get("_class_name") == "UnCLIPScheduler"
    schedule = "squaredcos_cap_v2" if unclip else found.get("beta_schedule", "linear")
    target = found.get("prediction_type", "sample" if unclip else "epsilon")
    if schedule not in _SCHEDULES or target not in _TARGETS:
        raise ConfigError(
            f"the {name} of {base.path} has beta_schedule '{schedule}' and prediction_type '{target}'; known are "
            f"{', '.join(_SCHEDULES)} and {', '.join(_TARGETS)}"
        )
    if found.get("trained_betas"):
        raise ConfigError(f"the {name} of {base.path} has betas of its own (trained_betas), which are not read here")
    betas = {} if unclip else {word: found[word] for word in ("beta_start", "beta_end") if word in found}
    try:
        return objective.Config(
            target=_TARGETS[target],  # type: ignore[arg-type]
            schedule=_SCHEDULES[schedule],  # type: ignore[arg-type]
            num_timesteps=found.get("num_train_timesteps", 1000),
            zero_terminal_snr=bool(found.get("rescale_betas_zero_snr", False)),
            min_snr=min_snr,
            **betas,
        ).build()
    except ValidationError as error:
        raise ConfigError(f"the {name} of {base.path} cannot be used: {error.errors()[0]['msg']}") from None


def _some_values(value: Tensor) -> Tensor:
    flat = value.detach().flatten()
    step = max(1, flat.numel() // _SAMPLED)
    return flat[::step][:_SAMPLED].to("cpu", torch.bfloat16).contiguous()


def _local(path: str, components: Mapping[str, str]) -> Path:
    """The folder itself, or the hub's model in the local cache, fetched if need be: no pickle, no half copy."""
    if Path(path).is_dir():
        return Path(path)
    patterns = [f"{name}/*{end}" for name in components for end in (".json", ".txt", ".model", ".safetensors")]
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(path, allow_patterns=patterns, ignore_patterns=["*.fp16*", "*.bf16*"]))
    except Exception as error:  # the hub raises a dozen types: no such id, no network, no right to read
        raise ConfigError(
            f"{path} is neither a folder nor a model id that can be fetched ({one_line(error)[:120]}); set model.base "
            "to a diffusers folder"
        ) from None


def _check_there(folder: Path, path: str, name: str, cls: str, components: Mapping[str, str]) -> None:
    place = folder / name
    known = any((place / word).is_file() for word in _CONFIGS)
    weights = issubclass(_class(*cls.split(".")), nn.Module)
    if known and (not weights or any(place.glob("*.safetensors"))):
        return
    missing = f"its '{name}'" if not known else f"the weights of its '{name}' (*.safetensors)"
    raise ConfigError(
        f"the base {path} lacks {missing}, {'an' if cls[0] in 'aeio' else 'a'} {cls}; a complete one has "
        f"{', '.join(components)}: copy it again"
    )


def _read_config(place: Path) -> dict[str, Any]:
    for word in _CONFIGS:
        if (place / word).is_file():
            try:
                return dict(json.loads((place / word).read_text(encoding="utf-8")))
            except (ValueError, TypeError):
                raise ConfigError(f"{place / word} is damaged; copy the base again") from None
    raise ConfigError(f"{place} has no config; copy the base again")


def _class(library: str, word: str) -> Any:
    import importlib

    with silent():  # transformers tells at length which image library it misses
        return getattr(importlib.import_module(library), word)


def _with_transformers(library: str, word: str, place: str, name: str, dtype: torch.dtype) -> Any:
    """A scheduler, tokenizer, image processor or network that transformers reads (or a scheduler of diffusers)."""
    cls = _class(library, word)
    network = issubclass(cls, nn.Module)
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True} if network else {}
    try:
        with quiet(), silent():
            found = cls.from_pretrained(place, local_files_only=True, **options)
    except Exception as error:  # a dozen types on damaged files
        raise ConfigError(f"cannot load the {name} from {place}: {one_line(error)}") from None
    if not network:
        return found
    part, info = found
    for fault in ("missing_keys", "mismatched_keys"):
        if keys := list(info.get(fault) or ()):
            raise ConfigError(f"{place} does not fit its config: {len(keys)} {fault.replace('_', ' ')}, e.g. {keys[0]}")
    return part.requires_grad_(False).eval()
