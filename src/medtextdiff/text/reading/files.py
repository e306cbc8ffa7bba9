"""The files of a folder of text."""

import os
from pathlib import Path


def below(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Files with these endings in `folder` and all folders below it, those of linked folders too; sorted.

    A folder that several links lead to, or that holds a link to itself, is read once. Names that begin with "._" are
    left out: macOS writes them beside files, and they are no text.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()  # of two links to one folder always the same is read
        found += [Path(place, name) for name in names if name.endswith(endings) and not name.startswith("._")]
    return sorted(found)
