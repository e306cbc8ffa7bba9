"""Packages that only exports need: told in one line where they are missing."""

from importlib.util import find_spec

from medtextdiff.config import ConfigError


def need(extra: str, *packages: str) -> None:
    """Raise ConfigError unless these packages are installed; `extra` is the one of ours that brings them."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ConfigError(f"{', '.join(missing)} not installed: pip install 'medtextdiff[{extra}]'")
