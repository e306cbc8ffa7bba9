"""A finished run made small: for shipping, or for a colleague."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from medtextdiff import config
from medtextdiff.api import training_time
from medtextdiff.api.exports import refuse_export
from medtextdiff.api.shelf import CARD
from medtextdiff.config import ConfigError
from medtextdiff.data.atomic import check_place
from medtextdiff.recipes import run_folder
from medtextdiff.training import components, disk

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def pack(run: str | Path, *, out: str | Path, dtype: str = "float16", settings: Sequence[str] = ()) -> dict[str, int]:
    """Write a finished run without its checkpoints and logs, its weights in `dtype`; gives each file's bytes.

    A model card that lies in the run goes along. Of the paths of data only the last two parts are kept. `settings`
    change how it will be used ("use.guidance=3"), and nothing else. The new manifest seals all of it, and says how long
    the run was trained.

    Raises:
        ConfigError: no run folder, an unknown dtype or setting, or `out` is there; RunError: the run is damaged.
    """
    source, target = Path(run), Path(out)
    if dtype not in DTYPES:
        raise ConfigError(f"no dtype '{dtype}'; give {', '.join(DTYPES)}")
    if target.exists():
        raise ConfigError(f"{target} exists; give another folder with -o")
    check_place(target)
    settled = _settled(run_folder.read_config(source), settings)
    refuse_export(source)
    names = list(run_folder.check(source))
    with disk.whole_folder(target) as folder:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _copy(source / name, folder / name, DTYPES[dtype])
        run_folder.write_config(settled, folder)
        run_folder.forget_folders(folder)
        hashes = {name: disk.sha256(folder / name) for name in names}
        sealed: dict[str, Any] = {"files": hashes}
        if built_on := run_folder.foundations(settled):
            sealed[components.BUILT_ON] = built_on
        if beside := components.read_beside(source):
            sealed[components.BESIDE] = beside
        if (hours := training_time.training_hours(source)) is not None:
            sealed[training_time.KEY] = round(hours, 2)
        disk.write_json(folder / components.MANIFEST, sealed)
        if (source / CARD).is_file():
            shutil.copy(source / CARD, folder / CARD)
    return {name: (target / name).stat().st_size for name in names}


def _settled(run: config.Config, settings: Sequence[str]) -> config.Config:
    for setting in settings:
        if not setting.startswith("use."):
            raise ConfigError(f"'{setting}' would change what was trained; only use.... can be set when packing")
    return config.override(run, settings)


def _copy(source: Path, target: Path, dtype: torch.dtype) -> None:
    if source.suffix != ".safetensors":
        shutil.copy(source, target)
        return
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    save_file({n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}, target, metadata)
