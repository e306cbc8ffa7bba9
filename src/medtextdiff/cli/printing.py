"""What the commands print: results, progress, and one clear line for an error."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer


@contextmanager
def one_line_errors() -> Iterator[None]:
    """One clear line for every error, and the exit status that fits."""
    try:
        yield
    except typer.Exit:
        raise
    except BrokenPipeError:  # the reader of a pipe has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise typer.Exit(130) from None
    except Exception as error:
        if os.environ.get("MEDTEXTDIFF_DEBUG"):
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        raise typer.Exit(2) from None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None:  # the system's own, e.g. a folder without permission
        text = f"{error.filename}: {error.strerror}; check the path, its permissions and the space on the disk"
    expected = isinstance(error, ValueError | OSError) or type(error).__module__.startswith("medtextdiff")
    return text if expected else f"{type(error).__name__}: {text} (unexpected; MEDTEXTDIFF_DEBUG=1 shows where)"


def say(line: str) -> None:
    """Progress, beside the results."""
    print(line, file=sys.stderr)


def report_failures(failures: Sequence[tuple[str, str]]) -> None:
    """What failed and why, then exit status 1; nothing where nothing failed."""
    for place, reason in failures:
        print(f"failed: {place}: {reason}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)


def tables(found: dict[str, list[list[Any]]]) -> None:
    """Tables under their names, each a head and its rows."""
    for name, (header, *rows) in found.items():
        print(f"\n{name}")
        table(header, rows)


def table(header: list[str], rows: list[list[Any]]) -> None:
    """A table in columns."""
    cells = [[_printable(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _printable(cell: Any) -> str:
    """A file name may hold what is no UTF-8."""
    return str(cell).encode("utf-8", "backslashreplace").decode("utf-8")
