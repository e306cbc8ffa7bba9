"""Checkpoints of a run that is under way: `checkpoints/step_XXXXXX` (the last) and `checkpoints/best_XXXXXX`.

A checkpoint is a folder that is written aside and renamed. Its `state.json` holds the step, the config and the hash
of every other file, and is itself sealed by a hash. Order of writing: best, then step, then the old ones go; so a
kill at any moment leaves a step folder and the best folder that it names.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medtextdiff.training import disk, weights
from medtextdiff.training.errors import RunError

STEP, BEST = "step", "best"


@dataclass(frozen=True)
class State:
    """Where a run stands, in plain values; with the tensors beside it, all that resuming needs."""

    step: int = 0
    best_step: int | None = None
    best_metric: float | None = None
    validated: int = 0  # the step of the last validation
    misses: int = 0  # validations since the best one
    seconds: float = 0.0
    window: dict[str, float] = field(default_factory=dict)  # sums since the last line of metrics.jsonl
    config: dict[str, Any] = field(default_factory=dict)
    samples: int = 0  # in the data set

    def after(self, **changes: Any) -> "State":
        """A copy with some values changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint: trained state, its average if there is one, and the optimizer's state_dict."""

    model: dict[str, Tensor]
    average: dict[str, Tensor] | None
    optimizer: dict[str, Any]


def write_best(folder: Path, step: int, tensors: Mapping[str, Tensor]) -> None:
    """Write the best weights so far under `folder`. `clean` removes the ones before."""
    with disk.whole_folder(folder / f"{BEST}_{step:06d}") as new:
        weights.write(new / "model.safetensors", tensors)
        _seal(new, {"step": step})


def read_best(folder: Path, step: int) -> dict[str, Tensor]:
    """The weights written by `write_best`.

    Raises:
        RunError: they are missing or were changed.
    """
    path = folder / f"{BEST}_{step:06d}"
    _unseal(path, f"delete {folder} to start this run again")
    return weights.read(path / "model.safetensors")


def write(folder: Path, state: State, tensors: Checkpoint) -> None:
    """Write a checkpoint under `folder`, then remove the ones that it replaces."""
    with disk.whole_folder(folder / f"{STEP}_{state.step:06d}") as new:
        weights.write(new / "model.safetensors", tensors.model)
        if tensors.average is not None:
            weights.write(new / "ema.safetensors", tensors.average)
        torch.save(tensors.optimizer, new / "optimizer.pt")
        _seal(new, asdict(state))
    clean(folder, state)


def latest(folder: Path) -> Path | None:
    """The checkpoint with the highest step, complete or not, or None."""
    return max(_folders(folder, STEP), key=_step, default=None)


def read_state(path: Path) -> State:
    """The state of a checkpoint whose files are all as they were written.

    Raises:
        RunError: a file is missing, truncated or changed; says what to delete to go on.
    """
    others = [_step(other) for other in _folders(path.parent, STEP) if other != path]
    then = f"go on from step {max(others)}" if others else "start this run again"
    return State(**_unseal(path, f"delete {path if others else path.parent} to {then}"))


def read(path: Path) -> Checkpoint:
    """The tensors of a checkpoint; call `read_state` first, which checks them."""
    average = path / "ema.safetensors"
    return Checkpoint(
        model=weights.read(path / "model.safetensors"),
        average=weights.read(average) if average.exists() else None,
        optimizer=torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True),
    )


def clean(folder: Path, state: State) -> None:
    """Remove what `state` does not name: other checkpoints, and what a killed process left half-written."""
    keep = {f"{STEP}_{state.step:06d}", f"{BEST}_{state.best_step or 0:06d}"}
    leftovers = [path for path in folder.glob(".*") if path.suffix in (".tmp", ".old")]
    for path in [*_folders(folder, STEP), *_folders(folder, BEST), *leftovers]:
        if path.name not in keep:
            shutil.rmtree(path)


def _folders(folder: Path, word: str) -> list[Path]:
    return [path for path in folder.glob(f"{word}_*") if re.fullmatch(rf"{word}_\d{{6,}}", path.name)]


def _step(path: Path) -> int:
    return int(path.name.rpartition("_")[2])


def _seal(folder: Path, state: dict[str, Any]) -> None:
    content = {"state": state, "files": {path.name: disk.sha256(path) for path in sorted(folder.iterdir())}}
    (folder / "state.json").write_text(json.dumps(content | {"seal": _digest(content)}, indent=2) + "\n")


def _unseal(folder: Path, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / "state.json").read_text())
        seal, files = content.pop("seal"), content["files"]
    except (OSError, ValueError, KeyError, AttributeError):
        raise RunError(f"{folder / 'state.json'} is missing or damaged; {remedy}") from None
    if seal != _digest(content):
        raise RunError(f"{folder / 'state.json'} was changed after it was written; {remedy}")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise RunError(f"{path} is missing; {remedy}")
        if disk.sha256(path) != expected:
            raise RunError(f"{path} is truncated or was changed after it was written; {remedy}")
    return content["state"]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
