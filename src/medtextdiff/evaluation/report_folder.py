"""A report's folder: written beside its place and moved there, whole or not at all."""

import csv
import io
import secrets
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path


def check_free(out_dir: Path, overwrite: bool, names: Collection[str]) -> None:
    """Raise FileExistsError where no report of the files `names` may be written. Call it before long work, too."""
    if not out_dir.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{out_dir} exists; choose another folder, or overwrite it with --overwrite")
    strange = [path.name for path in out_dir.iterdir() if path.name not in names] if out_dir.is_dir() else ["a file"]
    if strange:
        raise FileExistsError(
            f"{out_dir} is not only a report (it has {strange[0]}), so it is not overwritten; choose another folder"
        )


def write_folder(out_dir: Path, files: Mapping[str, str | bytes]) -> None:
    """Fill a folder beside `out_dir`, then move it there; an old report goes only after the new one is whole.

    Raises:
        OSError: the disk is full or refuses, in one line.
    """
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    part, old = (out_dir.with_name(f".{out_dir.name}.{secrets.token_hex(4)}") for _ in range(2))
    try:
        part.mkdir()
        for name, content in files.items():
            (part / name).write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        if out_dir.exists():
            out_dir.rename(old)
        part.rename(out_dir)
    except BaseException as error:
        if old.exists() and not out_dir.exists():
            old.rename(out_dir)
        if isinstance(error, OSError):
            raise OSError(
                f"cannot write {out_dir}: {error.strerror}; free some space or choose another folder"
            ) from None
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if out_dir.exists():
            shutil.rmtree(old, ignore_errors=True)


def csv_text(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV; floats with nine digits."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow([f"{cell:.9g}" if isinstance(cell, float) else cell for cell in row])
    return file.getvalue()
