"""Experiments as Python functions: each returns a complete, typed run."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable

from medtextdiff.config import Config, ConfigError, nearest


def listing() -> dict[str, Callable[[], Config]]:
    """Every recipe by name, e.g. `segmentation.fasttextdiff_monuseg`."""
    found: dict[str, Callable[[], Config]] = {}
    for module_info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            returns = inspect.signature(function).return_annotation
            own = function.__module__ == module.__name__ and not name.startswith("_")
            if own and not inspect.signature(function).parameters and _is_run(returns):
                found[f"{module_info.name}.{name}"] = function
    return found


def find(name: str) -> Config:
    """The run that the recipe called `name` describes.

    Raises:
        ConfigError: no such recipe; the nearest spelling is offered.
    """
    known = listing()
    if name not in known:
        raise ConfigError(f"no recipe '{name}'; {nearest(name, known)}")
    return known[name]()


def _is_run(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Config) and hasattr(annotation, "job")
