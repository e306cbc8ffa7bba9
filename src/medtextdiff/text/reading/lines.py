"""The lines of a plain or gzip-compressed file, as bytes, in bounded memory."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medtextdiff.text.errors import TextError

LONGEST = 16 * 2**20  # bytes; nothing that a person wrote is longer


class CutShortError(Exception):
    """The file ends, or is damaged, in the middle; what came before it was given."""


def read_lines(path: Path) -> Iterator[bytes]:
    """Its lines with their ends, without a byte order mark; a line beyond `LONGEST` comes in pieces.

    Raises:
        CutShortError: a compressed file that is cut short or damaged.
        TextError: a file that cannot be read, or is not compressed although its name says so.
    """
    try:
        with _open(path) as stream:
            if first := stream.readline(LONGEST).removeprefix(codecs.BOM_UTF8):
                yield first
            while line := stream.readline(LONGEST):
                yield line
    except gzip.BadGzipFile as error:
        if "Not a gzipped file" in str(error):
            raise TextError(
                f"'{path.name}' is not a gzip file, although its name says so; unpack or rename it"
            ) from None
        raise CutShortError from None
    except (EOFError, zlib.error):
        raise CutShortError from None
    except OSError as error:
        raise TextError(f"'{path.name}' cannot be read: {error.strerror or error}") from None


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
