"""`medtextdiff bench`: run the parts that were asked for, and write them as JSON or as Markdown."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medtextdiff.api.computing import device_of, precision_of
from medtextdiff.bench import measure
from medtextdiff.bench.models import Bed
from medtextdiff.bench.parts import PARTS
from medtextdiff.config import ConfigError, nearest
from medtextdiff.data import atomic

_HEADER = ["what", "seconds", "times faster", "peak MB", "GFLOP", "share of peak"]


def bench(
    what: Sequence[str] = (),
    *,
    out: Path | None = None,
    runs: int = 3,
    small: bool = False,
    device: str = "auto",
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, list[list[str]]]:
    """Measure parts; none named means all. Gives each part's table as text, header first.

    Args:
        what: names of parts; `PARTS` has them all.
        out: a .json or .md file to write as well; it also names the machine and the errors against float32.
        runs: medians are over so many runs of each way.
        small: an eighth of the ADM's width, to try things out; figures of it say nothing about the full size.

    Raises:
        ConfigError: an unknown part, no run, another kind of file, or a file that exists.
    """
    for name in what:
        if name not in PARTS:
            raise ConfigError(f"nothing called '{name}' is measured; {nearest(name, PARTS)}")
    if runs < 1:
        raise ConfigError(f"--runs must be 1 or more, got {runs}")
    if out is not None and out.suffix not in (".json", ".md"):
        raise ConfigError(f"the tables are written as .json or .md, not '{out.suffix}'")
    if out is not None:
        atomic.refuse_existing(out, overwrite)
        atomic.check_place(out.parent)
        if not out.parent.is_dir():
            raise ConfigError(f"cannot write {out}: the folder {out.parent} does not exist; create it first")
    where = device_of(device)
    bed = Bed(full=not small, device=where, bf16=precision_of("auto", where) == "bf16")
    found: dict[str, Any] = {"machine": measure.machine(where), "small": small, "parts": {}, "errors": {}}
    for name in what or PARTS:
        progress(f"measuring {name}")
        rows, errors = PARTS[name](bed, runs)
        found["parts"][name] = [row.as_dict() for row in rows]
        found["errors"] |= errors
    tables = {name: _table(rows) for name, rows in found["parts"].items()}
    if found["errors"]:
        listed = [[key, f"{value:.1e}"] for key, value in found["errors"].items()]
        tables["errors"] = [["largest difference over largest value", "against the published path"], *listed]
    if out is not None:
        text = json.dumps(found, indent=2) + "\n" if out.suffix == ".json" else _markdown(found["machine"], tables)
        with atomic.whole_file(out, overwrite) as file:
            file.write(text.encode())
    return tables


def _table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    return [_HEADER] + [
        [
            row["name"],
            f"{row['seconds']:.3g}",
            f"{row['faster']:.1f}",
            "-" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}",
            "-" if row["gflop"] is None else f"{row['gflop']:.0f}",
            "-" if row["share"] is None else f"{100 * row['share']:.0f} %",
        ]
        for row in rows
    ]


def _markdown(machine: dict[str, Any], tables: dict[str, list[list[str]]]) -> str:
    lines = ["Machine: " + ", ".join(f"{key} {value}" for key, value in machine.items()), ""]
    for name, (header, *rows) in tables.items():
        lines += [f"## {name}", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    return "\n".join(lines)
