"""An adapter made one with its base: plain weights that any diffusers program reads."""

from pathlib import Path

import torch

from medtextdiff.api import shelf
from medtextdiff.api.generator import load_generator
from medtextdiff.config import ConfigError
from medtextdiff.data.atomic import check_place
from medtextdiff.recipes import lora_run
from medtextdiff.training import disk


def merge(
    run: str | Path, *, out: str | Path, base: str | Path | None = None, prior_base: str | Path | None = None
) -> list[Path]:
    """Write each adapted network with its adapter added to its weights to `out/NAME`, NAME as in the base.

    With such a folder in the place of the base's own, the base makes the run's images without peft. Gives the folders.

    Raises:
        ConfigError: a run without adapters, another base than the adapter's, or `out` is there; RunError: the run is
            damaged.
    """
    target = Path(out)
    if target.exists():
        raise ConfigError(f"{target} exists; give another folder with -o")
    check_place(target)
    loaded = load_generator(shelf.find(run, "generate"), str(run), device="cpu", base=base, prior_base=prior_base)
    if not isinstance(loaded.run, lora_run.Run):
        raise ConfigError(f"{run} has no adapter to merge; give a run of a synthesis.*_lora recipe")
    networks = loaded.system.merge()
    with disk.whole_folder(target) as folder:
        for name, network in networks.items():
            network.to(memory_format=torch.contiguous_format).save_pretrained(folder / name)
    return [target / name for name in networks]
