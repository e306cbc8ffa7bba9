"""The weights of a finished run: one sub-folder per component, sealed by `manifest.json`."""

import copy
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medtextdiff.training import disk, weights
from medtextdiff.training.errors import RunError

MANIFEST = "manifest.json"
BUILT_ON, BESIDE = "built_on", "beside"


def save_components(
    model: nn.Module,
    run_dir: Path,
    *,
    dtype: torch.dtype | None = None,
    also: Iterable[str] = (),
    kept: Iterable[str] = (),
    built_on: Mapping[str, str] | None = None,
    beside: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Write what was trained of each direct child of `model` to `run_dir/NAME/`, and return the files' SHA-256.

    A child with `save_trained(folder, dtype)` is written by it (an adapter writes itself, and no base); one with
    `save_pretrained` by that, whole; another one as `model.safetensors` with its trainable
    parameters and their buffers; a child without trainable parameters not at all, unless `kept` names it (it must have
    one of the two). Parameters of the model itself go to `run_dir/model.safetensors`. `dtype` (e.g. torch.float16,
    for shipping) is for floating-point tensors. `also` names further files in `run_dir`, already there, that the
    manifest shall seal (`config.json`). For the manifest: `built_on` has hashes of what ships and the weights were
    trained beside, `beside` digests of frozen components from elsewhere, by name.

    Raises:
        RunError: the disk is full or refuses; each component is written whole or not at all.
    """
    written: list[Path] = []
    kept = set(kept)
    for name, child in model.named_children():
        if name in kept or any(p.requires_grad for p in child.parameters()):
            with disk.whole_folder(run_dir / name) as folder:
                _save_child(child, folder, dtype)
            written += [path for path in sorted((run_dir / name).rglob("*")) if path.is_file()]
    if own := _own(model):
        disk.write_whole(run_dir / "model.safetensors", lambda path: weights.write(path, own, dtype))
        written.append(run_dir / "model.safetensors")
    written += [run_dir / name for name in also]
    hashes = {path.relative_to(run_dir).as_posix(): disk.sha256(path) for path in written}
    further = {BUILT_ON: dict(built_on or {}), BESIDE: dict(beside or {})}
    disk.write_json(run_dir / MANIFEST, {"files": hashes} | {name: told for name, told in further.items() if told})
    return hashes


def writes_itself(child: nn.Module) -> bool:
    """Whether a component writes its own files, so that its config, not `load_components`, reads them again."""
    return hasattr(child, "save_trained") or hasattr(child, "save_pretrained")


def load_components(model: nn.Module, run_dir: Path, *, built: Iterable[str] = ()) -> None:
    """Fill `model` with what `save_components` wrote; the other parameters stay as they are built.

    `built` names children that were built from their folder in `run_dir`: their files are checked, not read again.

    Every tensor of every file must have its place in the model, and every trainable parameter of the model its tensor.

    Raises:
        RunError: a file is missing or not as it was written, or does not fit the model; names both. Or a frozen
            component from elsewhere is not the one that it was trained beside.
    """
    files = check_components(run_dir)
    children = dict(model.named_children())
    for name, expected in read_beside(run_dir).items():
        if name not in children or weights.digest(children[name]) != expected:
            raise RunError(
                f"the {name} of {run_dir} is not the one that it was trained beside; put that one back where "
                "config.json says, or train again"
            )
    for name in sorted({Path(file).parts[0] for file in files if len(Path(file).parts) > 1}):
        if name not in children:
            raise RunError(f"{run_dir / name} is a component that the model does not have; use the run's own config")
        if name in built:
            del children[name]
            continue
        found = [run_dir / file for file in files if Path(file).parts[0] == name and file.endswith(".safetensors")]
        _fill_child(children.pop(name), found, run_dir / name)
    for name, child in children.items():
        if any(p.requires_grad for p in child.parameters()):
            raise RunError(f"{run_dir} has no folder '{name}', a trainable component of the model; {weights.RESTORE}")
    own = weights.read(run_dir / "model.safetensors") if "model.safetensors" in files else {}
    weights.fill(_own(model), own, run_dir / "model.safetensors")


def check_components(run_dir: Path) -> dict[str, str]:
    """The files of a run's manifest with their SHA-256, after checking that each is as it was written.

    Raises:
        RunError: the manifest or one of its files is missing or was changed.
    """
    path = run_dir / MANIFEST
    try:
        files: dict[str, str] = dict(json.loads(path.read_text(encoding="utf-8"))["files"])
    except FileNotFoundError:
        raise RunError(
            f"{path} is missing: {run_dir} is no finished run; train it to its end, or copy it again"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RunError(f"{path} is damaged; {weights.RESTORE}") from None
    for name, expected in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise RunError(f"{path} names '{name}', which is outside the run folder; {weights.RESTORE}")
        if not (run_dir / name).is_file():
            raise RunError(f"{run_dir / name} is missing; {weights.RESTORE}")
        if disk.sha256(run_dir / name) != expected:
            raise RunError(f"{run_dir / name} is not as it was written (its SHA-256 differs); {weights.RESTORE}")
    return files


def read_beside(run_dir: Path) -> dict[str, str]:
    """Digests of frozen components from elsewhere, by name, from a manifest that was checked.

    Raises:
        RunError: the manifest is damaged.
    """
    told = json.loads((run_dir / MANIFEST).read_text(encoding="utf-8")).get(BESIDE, {})
    if not isinstance(told, dict):
        raise RunError(f"{run_dir / MANIFEST} is damaged; {weights.RESTORE}")
    return told


def _save_child(child: Any, folder: Path, dtype: torch.dtype | None) -> None:
    if hasattr(child, "save_trained"):
        child.save_trained(folder, dtype)
        return
    if not hasattr(child, "save_pretrained"):
        weights.write(folder / "model.safetensors", weights.trained(child), dtype)
        return
    if dtype is not None or not all(p.is_contiguous() for p in child.parameters()):  # safetensors takes no other order
        child = copy.deepcopy(child).to(dtype=dtype).to(memory_format=torch.contiguous_format)
    child.save_pretrained(folder)


def _fill_child(child: nn.Module, files: list[Path], place: Path) -> None:
    values: dict[str, Tensor] = {}
    for file in files:
        values |= weights.read(file)
    targets = child.state_dict(keep_vars=True)
    needed = {name: tensor for name, tensor in weights.trained(child).items() if name not in values}
    pointers = {targets[name].data_ptr() for name in values if name in targets}
    tied = [name for name, tensor in needed.items() if tensor.data_ptr() in pointers]  # saved once, under one name
    weights.fill({name: targets[name] for name in targets if name in values} | needed, values, place, optional=tied)


def _own(model: nn.Module) -> dict[str, Tensor]:
    """The trained tensors that belong to no trainable child."""
    children = {name for name, child in model.named_children() if any(p.requires_grad for p in child.parameters())}
    return {name: tensor for name, tensor in weights.trained(model).items() if name.partition(".")[0] not in children}
