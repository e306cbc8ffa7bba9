"""Folders of exported graphs: how one is written, found again, and opened."""

import hashlib
import importlib
import json
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from torch import nn

from medtextdiff import __version__
from medtextdiff.api.shelf import CARD
from medtextdiff.config import ConfigError, nearest, siblings, to_json
from medtextdiff.recipes import run_folder
from medtextdiff.segmentation.graphs import description, exported, writing
from medtextdiff.training import components, disk

_FAMILY = "medtextdiff.segmentation.runtimes"
TORCH = "torch"
Say = Callable[[str], None]


def runtimes() -> list[str]:
    """Names of what graphs can be exported to."""
    return siblings(f"{_FAMILY}.onnx")


def runtime(name: str, precision: str = "float32") -> writing.Runtime:
    """A runtime, in a precision that it offers.

    Raises:
        ConfigError: no such runtime or precision, or its package is not installed.
    """
    part = _part(name)
    if precision not in precisions(name):
        raise ConfigError(f"{name} computes in {', '.join(precisions(name))}, not in {precision}; use --precision")
    built: writing.Runtime = part(precision=precision).build()
    return built


def precisions(name: str) -> tuple[str, ...]:
    """What a runtime computes in."""
    found: tuple[str, ...] = get_args(_part(name).model_fields["precision"].annotation)
    return found


def write(
    segmenter: nn.Module,
    run_dir: Path,
    *,
    name: str,
    sha256: str,
    to: str,
    out: Path,
    progress: Say = lambda line: None,
) -> description.Config:
    """Write the export folder of a trained segmenter, whole or not at all; it is sealed by a manifest, as a run is.

    Raises:
        ConfigError, TextError: what cannot be exported; RunError: the disk.
    """
    part = runtime(to)
    with disk.whole_folder(out) as folder:
        graphs, checks = writing.write_graphs(segmenter, part, folder, progress)
        about = writing.describe(
            segmenter, graphs, checks, runtime=to, model=name, model_sha256=sha256, versions=_versions(part)
        )
        disk.write_json(folder / description.EXPORT, to_json(about))
        shutil.copy(run_dir / run_folder.CONFIG, folder / run_folder.CONFIG)
        run_folder.forget_folders(folder)
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        disk.write_json(folder / components.MANIFEST, {"files": {one: disk.sha256(folder / one) for one in names}})
        if (run_dir / CARD).is_file():
            shutil.copy(run_dir / CARD, folder / CARD)
    return about


def open_folder(folder: Path, precision: str = "float32") -> tuple[nn.Module, description.Config]:
    """The segmenter of an export folder, and the folder's description.

    Raises:
        RunError: a file is missing or was changed; ConfigError: the package is not installed, or a damaged graph.
    """
    components.check_components(folder)
    about = description.read(folder)
    part = runtime(about.runtime, precision)
    sessions = {name: part.open(folder, name) for name in about.graphs}
    return exported.build(about, sessions, folder), about


def cache_place(sha256: str, to: str) -> Path:
    """Where the export of a model is kept between calls: `MEDTEXTDIFF_CACHE`, or the user's own cache folder.

    Another model, package or version has another place.

    Raises:
        ConfigError: no such runtime, or its package is not installed.
    """
    key = json.dumps([sha256, to, _versions(runtime(to))], sort_keys=True)
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medtextdiff"
    root = Path(os.environ.get("MEDTEXTDIFF_CACHE") or user)
    return root / "exports" / f"{to}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _part(name: str) -> Any:
    if name not in runtimes():
        raise ConfigError(f"no runtime '{name}'; {nearest(name, runtimes())}")
    return importlib.import_module(f"{_FAMILY}.{name}").Config


def _versions(part: writing.Runtime) -> dict[str, str]:
    return {"medtextdiff": __version__, "torch": version("torch"), **part.versions()}


def refuse_export(folder: Path) -> None:
    """Raise ConfigError where a run is needed and `folder` holds an export."""
    if description.is_export(folder):
        raise ConfigError(f"{folder} is an export, not a run; give the run that it was made from")
