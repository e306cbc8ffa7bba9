"""The folder of a report: written whole or not at all; of an old one only the files of a report are replaced."""

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

    Gives the path of its page. What a person put into the old one meanwhile is moved into the new one.

    Raises:
        OSError: the disk is full, or the place cannot be written; what was there is there still.
    """
    place = out_dir.resolve()  # "." has no name, and a link stays one
    place.parent.mkdir(parents=True, exist_ok=True)
    part, old = (place.with_name(f".{secrets.token_hex(8)}") for _ in range(2))
    try:
        part.mkdir()
        for name, content in files.items():
            (part / name).write_bytes(
                content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
            )
        if place.exists():
            place.rename(old)
        part.rename(place)
    except BaseException as error:
        if old.exists() and not place.exists():
            old.rename(place)
        if isinstance(error, OSError):
            raise OSError(
                f"cannot write {out_dir}: {error.strerror}; free some space or choose another folder"
            ) from None
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if old.exists():
        for kept in [path for path in old.iterdir() if path.name not in (*FILES, *files)]:
            kept.rename(place / kept.name)
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
