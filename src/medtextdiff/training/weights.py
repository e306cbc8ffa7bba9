"""Which tensors of a model are its trained state, and their way to and from safetensors."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medtextdiff.training.errors import RunError


def trained(model: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Parameters that require a gradient, and the buffers that go with them, by name; the live tensors, not copies.

    A persistent buffer goes along when its module contains a trainable parameter; a module without any parameter
    (a normalisation without weights) goes with the module around it.
    """
    found: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    kept = model.state_dict(keep_vars=True)
    for path, module in model.named_modules():
        if any(p.requires_grad for p in _owner(model, path).parameters()):
            for name, _ in module.named_buffers(path, recurse=False):
                if name in kept:
                    found[name] = kept[name]
    return {prefix + name: tensor for name, tensor in found.items()}


def digest(module: nn.Module) -> str:
    """A SHA-256 of a module's floating-point tensors, whatever a library's version calls them."""
    found = [_digest(tensor) for tensor in module.state_dict().values() if tensor.is_floating_point()]
    return hashlib.sha256("".join(sorted(found)).encode()).hexdigest()


def digests_of_frozen(model: nn.Module) -> dict[str, str]:
    """A digest of each component that does not train, by name: another one in its place would make another run."""
    children = model.named_children()
    frozen = {name: child for name, child in children if not any(p.requires_grad for p in child.parameters())}
    return {name: digest(child) for name, child in frozen.items() if child.state_dict()}


def _digest(tensor: Tensor) -> str:
    found = hashlib.sha256(str(tuple(tensor.shape)).encode())
    found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors as safetensors; `dtype` is for the floating-point ones, `metadata` for the file's head."""

    def plain(tensor: Tensor) -> Tensor:
        cast = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        return tensor.detach().to("cpu", cast).contiguous().clone()

    head = {"format": "pt"} | dict(metadata or {})
    save_file({name: plain(tensor) for name, tensor in tensors.items()}, path, metadata=head)


def read(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        RunError: it is missing, truncated or something else.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} cannot be read as safetensors ({error}); {RESTORE}") from None


RESTORE = "copy it again from where the run was made, or train again"


@torch.no_grad()
def fill(
    targets: Mapping[str, Tensor], values: Mapping[str, Tensor], place: Path, optional: Iterable[str] = ()
) -> None:
    """Copy values into live tensors of the same names and shapes.

    Raises:
        RunError: names missing from `values` (unless optional), names that are not in `targets`, other shapes.
    """
    missing = sorted(set(targets) - set(values) - set(optional))
    unexpected = sorted(set(values) - set(targets))
    if missing or unexpected:
        raise RunError(
            f"{place} does not fit the model: missing {_some(missing)}; unexpected {_some(unexpected)}. "
            "It was made with another config: use the run's own"
        )
    for name, value in values.items():
        if targets[name].shape != value.shape:
            shapes = f"{tuple(value.shape)} in the file, {tuple(targets[name].shape)} in the model"
            raise RunError(f"{place} does not fit the model: '{name}' is {shapes}; use the run's own config")
        targets[name].copy_(value)


def _owner(model: nn.Module, path: str) -> nn.Module:
    """The module at `path`, or the nearest one around it that has parameters."""
    while path and not any(True for _ in model.get_submodule(path).parameters()):
        path = path.rpartition(".")[0]
    return model.get_submodule(path)


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) + more) or "none"
