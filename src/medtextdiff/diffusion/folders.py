"""A diffusers model in a folder or on the hub: read strictly, quietly, never a pickle; written without a trace."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn


def load_strictly(cls: Any, path: str, what: str, failure: type[ValueError], dtype: torch.dtype = torch.float32) -> Any:
    """The model of diffusers' class `cls` in `path`; `what` names it in messages ("a denoiser").

    Raises:
        failure: no such folder or model id, another class's, a missing, truncated or wrong file, weights not finite.
    """
    folder = Path(path)
    if folder.exists() and not (folder / "config.json").is_file():
        raise failure(f"no {what.split()[-1]} in {path}: it needs config.json and *.safetensors of {_a(cls.__name__)}")
    try:
        name = cls.load_config(path).get("_class_name")
        if name != cls.__name__:
            raise failure(f"{path} holds a {name}, not {_a(cls.__name__)}")
        # Never a pickle; and no silent random weights for what the file lacks.
        with quiet():
            model, info = cls.from_pretrained(path, use_safetensors=True, torch_dtype=dtype, output_loading_info=True)
    except failure:
        raise
    except Exception as error:  # diffusers, safetensors and the hub raise a dozen types on a bad folder or id
        reason = one_line(error) if folder.exists() else "neither a folder nor a model id that can be fetched"
        raise failure(f"cannot load {what} from {path}: {reason}") from None
    _check_loaded(path, model, info, failure)
    return model


def save_plainly(model: Any, folder: str | Path) -> None:
    """Write config.json and *.safetensors, without the path of this machine that a model was read from."""
    model.save_pretrained(folder, safe_serialization=True)
    path = Path(folder) / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings.pop("_name_or_path", None)
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def quiet() -> Iterator[None]:
    """Without diffusers' own log lines: what went wrong is told once, by our error."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)


def one_line(error: Exception) -> str:
    """The first line of what an error says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _check_loaded(path: str, model: nn.Module, info: dict[str, Any], failure: type[ValueError]) -> None:
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if found := list(info.get(fault) or ()):
            raise failure(f"{path} does not fit its config: {len(found)} {fault.replace('_', ' ')}, e.g. {found[0]}")
    for key, value in model.named_parameters():
        if not torch.isfinite(value).all():
            raise failure(f"{path} is damaged: '{key}' holds values that are not finite")


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"
