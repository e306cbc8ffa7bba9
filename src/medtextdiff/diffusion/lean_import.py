"""diffusers' `UNet2DModel` without the rest of diffusers: a command that segments one image should start at once.

`import diffusers` is lazy, but its `models.unets` package imports every U-Net, these every transformer, and these peft
and half of scipy. That is a second or two of Python that a `UNet2DModel` never runs.
"""

import importlib
import importlib.machinery
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PACKAGES = ("diffusers.models.unets", "diffusers.models.transformers")  # their __init__ imports all that is in them
_ONE_AT_A_TIME = threading.Lock()


def unet_2d_model() -> type[Any]:
    """`diffusers.UNet2DModel`, the very class; of diffusers only what it needs is imported.

    Whatever is imported from diffusers later finds the real packages. Where diffusers is laid out in another way than
    this expects, it is imported as usual.
    """
    loaded = sys.modules.get("diffusers.models.unets.unet_2d")
    if loaded is not None:
        return loaded.UNet2DModel
    try:
        with _ONE_AT_A_TIME, _bare(_PACKAGES):
            module = importlib.import_module("diffusers.models.unets.unet_2d")
    except (ImportError, AttributeError):
        module = importlib.import_module("diffusers")
    return module.UNet2DModel


@contextmanager
def _bare(names: tuple[str, ...]) -> Iterator[None]:
    """Packages whose modules can be imported before their own `__init__` runs; it runs when asked for afterwards."""
    parents = importlib.import_module("diffusers.models").__path__
    missing = [name for name in names if name not in sys.modules]
    for name in missing:
        package = types.ModuleType(name)
        package.__path__ = [str(Path(parent) / name.rpartition(".")[2]) for parent in parents]
        package.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = package
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]
            vars(sys.modules["diffusers.models"]).pop(name.rpartition(".")[2], None)
