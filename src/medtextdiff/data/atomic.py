"""Write a file whole or not at all: a hidden neighbour first, then one rename."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from medtextdiff.data.errors import ImageError, OutputExists


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise OutputExists where `path` is there and may not be replaced. Call it before long work, too."""
    if not overwrite and os.path.lexists(path):
        raise OutputExists(f"{path} exists already; name another output, or ask for overwriting (--overwrite)")


def check_place(path: Path) -> None:
    """Raise where the folder `path` could not be made or filled. Call it before long work; nothing is made yet.

    Raises:
        OutputExists: `path`, or what it should lie in, is a file.
        ImageError: a folder that may not be written to.
    """
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise OutputExists(f"{there} is a file; give a folder with -o")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ImageError(f"{there} may not be written to; give another folder with -o, or change its permissions")


@contextmanager
def whole_file(path: Path, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends well, and leaves no trace when it does not.

    Raises:
        OutputExists: `path` is there and `overwrite` is False.
        ImageError: the folder is missing or not writable, or the disk is full.
    """
    refuse_existing(path, overwrite)
    if not path.parent.is_dir():
        raise ImageError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        refuse_existing(path, overwrite)
        os.replace(temporary, path)
    except OutputExists:
        raise
    except OSError as error:
        reason = error.strerror or "the disk refused it"
        raise ImageError(f"cannot write {path}: {reason}; free some space or choose another folder") from None
    finally:
        with suppress(OSError):
            os.unlink(temporary)
