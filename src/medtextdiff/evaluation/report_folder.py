"""The folder of a report: written whole or not at all, and replaced only where it holds nothing but a report."""

import csv
import io
import json
import secrets
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = "report.html"
FILES = ("report.json", "per_image.csv", "table.csv", PAGE)  # of every report that there is


def check_free(out_dir: Path, overwrite: bool, names: Collection[str] = FILES) -> None:
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


def write_folder(out_dir: Path, files: Mapping[str, str | bytes]) -> Path:
    """Fill a folder beside `out_dir`, then move it there; an old report goes only after the new one is whole.

    Gives the path of its page.

    Raises:
        OSError: the disk is full, or the place cannot be written; what was there is there still.
    """
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    part, old = (out_dir.with_name(f".{out_dir.name}.{secrets.token_hex(4)}") for _ in range(2))
    try:
        part.mkdir()
        for name, content in files.items():
            (part / name).write_bytes(
                content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
            )
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
    return out_dir / PAGE


def json_text(report: Mapping[str, Any]) -> str:
    """The report as JSON.

    Raises:
        ValueError: values that JSON has not.
    """
    try:
        return json.dumps(report, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"meta must be plain JSON values (text, finite numbers, lists, dicts): {error}") from None


def csv_text(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as csv; floats with nine digits."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([f"{cell:.9g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return file.getvalue()
