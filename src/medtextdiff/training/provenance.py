"""`lock.json` of a run folder: what the run was made from and with."""

import json
import platform
import subprocess
import time
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from medtextdiff import config as configs
from medtextdiff.training import disk
from medtextdiff.training.errors import RunError

PACKAGES = ("medtextdiff", "torch", "accelerate", "diffusers", "transformers", "monai", "numpy", "safetensors")


def write_lock(
    run_dir: Path,
    *,
    config: configs.Config,
    data: Mapping[str, str],
    seed: int,
    also: Mapping[str, str] | None = None,
    frozen: Mapping[str, str] | None = None,
    resumed: bool = True,
    free: Collection[str] = (),
) -> dict[str, Any]:
    """Write (or, on resuming, check and extend) `lock.json`, and return its content.

    `data` maps the name of each training file to its hash; `also`, what else must not change, as masks and notes, or
    images without labels: `trained_on` does not tell it; `frozen`, the components that do not train, to digests. The
    first start's config, data and seed stay; every start adds its versions, git commit (None outside a checkout) and
    CPU to `sessions`. `resumed` False: no checkpoint came of an earlier start, so what it was begun with does not
    count. `free` names settings that may change, as "training.max_steps".

    Raises:
        RunError: the run folder was begun with other data or settings, or its lock.json is damaged.
    """
    path = run_dir / "lock.json"
    began: dict[str, Any] = {"config": configs.to_json(config), "seed": seed}
    lock = began | {"data": dict(data), "also": dict(also or {}), "frozen": dict(frozen or {}), "sessions": []}
    if resumed and path.exists():
        before = _read(path)
        _check_data(before["data"], dict(data), path)
        for what in ("also", "frozen"):
            before[what] = before.get(what) or lock[what]  # older runs did not note it
            _check_data(before[what], lock[what], path)
        _check_config(_flat(configs.completed(before["config"])), _flat(lock["config"]), free, path)
        lock = before
    lock["sessions"].append(_session())
    disk.write_json(path, lock)
    return lock


def trained_on(run_dir: Path) -> frozenset[str] | None:
    """The hashes of the files a run was trained on, or None where it has no `lock.json` (a packed model).

    Raises:
        RunError: its lock.json is damaged.
    """
    path = run_dir / "lock.json"
    return frozenset(_read(path)["data"].values()) if path.exists() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
        lock["config"], lock["seed"], lock["data"].keys(), lock["sessions"].append
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RunError(
            f"{path} is damaged; delete it if you are sure of the data, or choose a new run folder"
        ) from None
    return lock


def _check_data(before: dict[str, str], now: dict[str, str], path: Path) -> None:
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed:
        raise RunError(
            f"what this run reads changed since it began ({path}): {len(changed)} of its files or parts, the first is "
            f"'{changed[0]}'; put it back, or choose a new run folder"
        )


def _check_config(before: dict[str, Any], now: dict[str, Any], free: Collection[str], path: Path) -> None:
    for name in sorted((before.keys() | now.keys()) - set(free)):
        old, new = before.get(name), now.get(name)
        if old != new:
            raise RunError(
                f"this run was begun with {name}={old!r}, now it is {new!r} ({path}); "
                "set it back to resume, or choose another run folder"
            )


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """A nested config's plain values by their dotted names."""
    if not isinstance(value, dict) or not value:
        return {name: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _flat(item, f"{name}.{key}" if name else str(key))
    return found


def _session() -> dict[str, Any]:
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git_commit(),
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the checkout that this package lies in, with "+changes" if it has any."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        tracked = _git(here, "ls-files", "--error-unmatch", Path(__file__).name)
        return commit + ("+changes" if _git(here, "status", "--porcelain", "-uno") else "") if tracked else None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *command: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
