"""A run's config on disk, and where the paths in it lead.

In a config a path is written as it is, or
- `builtin:NAME/COMPONENT`: a component of a run that ships in the package's `pretrained/`;
- `./NAME`: a folder within the run folder, so that a run can be moved.

A relative one was told from where training began. In use that may be elsewhere, so a model's parts are looked for from
the folders above the run, too.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, TypeVar

from medtextdiff import config
from medtextdiff.config import ConfigError, from_json, map_strings, nearest, to_json
from medtextdiff.training import weights
from medtextdiff.training.components import BUILT_ON, MANIFEST, check_components
from medtextdiff.training.disk import write_json
from medtextdiff.training.errors import RunError

PRETRAINED = Path(__file__).parents[1] / "pretrained"
CONFIG = "config.json"
_BUILTIN = "builtin:"

C = TypeVar("C", bound=config.Config)


def builtin_names() -> list[str]:
    """Names of the folders that ship with the package."""
    return sorted(path.name for path in PRETRAINED.glob("*") if (path / "MODEL_CARD.md").is_file())


def locate(settings: C, run_dir: Path | None = None) -> C:
    """The config with its `builtin:` paths, and with `run_dir` its `./` paths, made real.

    Raises:
        ConfigError: no such builtin folder; the nearest name is offered.
    """

    def real(text: str) -> str:
        if text.startswith(_BUILTIN):
            folder, inside = _builtin(text)
            return str(folder / inside)
        if text.startswith("./") and run_dir is not None:
            return str(run_dir / text.removeprefix("./"))
        return text

    located: C = map_strings(settings, real)
    return located


def locate_model(settings: C, run_dir: Path | None = None) -> C:
    """As `locate`; of a run in use, a relative path that leads nowhere from here is tried from each folder above it.

    Raises:
        ConfigError: as `locate`.
    """

    def found(text: str) -> str:
        if run_dir is None or "/" not in text or os.path.exists(text):
            return text
        return next((str(above / text) for above in run_dir.resolve().parents if os.path.isdir(above / text)), text)

    located: C = map_strings(locate(settings, run_dir), found)
    return located


def _builtin(text: str) -> tuple[Path, str]:
    name, _, inside = text.removeprefix(_BUILTIN).partition("/")
    if name not in builtin_names():
        raise ConfigError(f"'{name}' does not ship with this package; {nearest(name, builtin_names())}")
    return PRETRAINED / name, inside


def foundations(settings: config.Config) -> dict[str, str]:
    """The `builtin:` paths of a config, each with one SHA-256 for the files there, by their manifest.

    Raises:
        ConfigError: no such builtin folder; the nearest name is offered.
    """
    found: dict[str, str] = {}

    def note(text: str) -> str:
        if text.startswith(_BUILTIN):
            folder, inside = _builtin(text)
            files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
            told = [f"{name}{value}" for name, value in sorted(files.items()) if Path(name).is_relative_to(inside)]
            found[text] = hashlib.sha256("".join(told).encode()).hexdigest()
        return text

    map_strings(settings, note)
    return found


def check(run_dir: Path) -> dict[str, str]:
    """The files of a finished run with their SHA-256, after checking them, and what the run stands on.

    Raises:
        RunError: a file is missing or was changed, or a component that ships is not the one that it was trained beside.
        ConfigError: such a component does not ship.
    """
    hashes = check_components(run_dir)
    told = json.loads((run_dir / MANIFEST).read_text(encoding="utf-8")).get(BUILT_ON, {})
    if not isinstance(told, dict):
        raise RunError(f"{run_dir / MANIFEST} is damaged; {weights.RESTORE}")
    here = foundations(read_config(run_dir)) if told else {}
    for path, value in told.items():
        if here.get(path) != value:
            raise RunError(
                f"{run_dir} was trained beside another {path} than this version of medtextdiff has; use the version "
                "that it was trained with, or train it again"
            )
    return hashes


def write_config(run: config.Config, run_dir: Path) -> None:
    """Write `config.json`, whole or not at all."""
    write_json(run_dir / CONFIG, to_json(run))


def read_config(run_dir: Path) -> config.Config:
    """The run that a run folder describes, its paths still as written.

    Raises:
        ConfigError: no run folder, or a config that is damaged or names what it may not.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        raise ConfigError(
            f"{run_dir} is no run folder: it has no {CONFIG}; give a folder that `medtextdiff train` wrote"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, thousands of brackets
        raise ConfigError(f"{path} is damaged ({error}); restore it, or train the run again") from None
    found = from_json(value)
    if not isinstance(found, config.Config):
        raise ConfigError(f"{path} holds no run: it lacks a 'kind'; restore it, or train the run again")
    return found


def parts_elsewhere(settings: config.Config) -> list[str]:
    """Names of a model config's parts that are loaded from a path outside the run folder and the package."""
    paths = {name: getattr(getattr(settings, name), "path", "") for name in type(settings).model_fields}
    return [name for name, path in paths.items() if path and not path.startswith((_BUILTIN, "./"))]


def own_parts(settings: config.Config) -> list[str]:
    """Names of a model config's parts that are loaded from within the run folder."""
    names = type(settings).model_fields
    return [name for name in names if getattr(getattr(settings, name), "path", "") == f"./{name}"]


def forget_folders(run_dir: Path) -> None:
    """Keep the last two parts of each absolute path in a config, the model excepted: the rest is one machine's."""
    path = run_dir / CONFIG
    value = json.loads(path.read_text(encoding="utf-8"))
    value = {name: part if name == "model" else _without_folders(part) for name, part in value.items()}
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {_without_folders(name): _without_folders(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_folders(part) for part in value]
    return "/".join(Path(value).parts[-2:]) if isinstance(value, str) and Path(value).is_absolute() else value
