"""The controlled comparison: one bank of image features, one head, one budget; only the text encoder changes."""

import hashlib
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medtextdiff import __version__, recipes
from medtextdiff.api import cells
from medtextdiff.api.cells import Cell
from medtextdiff.api.scored import drawn_together
from medtextdiff.config import Config, ConfigError, override
from medtextdiff.data.atomic import check_place
from medtextdiff.data.images import records_hash
from medtextdiff.data.sources import detect
from medtextdiff.evaluation import controlled_page
from medtextdiff.evaluation.controlled import compare_runs
from medtextdiff.evaluation.report_folder import csv_text, json_text, write_folder
from medtextdiff.recipes import segmentation_run
from medtextdiff.segmentation import feature_bank
from medtextdiff.text.named import named
from medtextdiff.training.errors import Interrupted
from medtextdiff.types import Record

Say = Callable[[str], None]
RECIPE = "segmentation.fasttextdiff_compared"
NO_TEXT = "none"
_OURS = {"cells", "bank", "report"}
_GIVEN = ("model.text", "data.root", "data.source", "data.val_split", "training.seed", "bank")  # by the comparison


def compare(
    encoders: Sequence[str],
    *,
    data: Sequence[str | Path],
    out: str | Path,
    seeds: int = 3,
    masks: str | None = None,
    split: str = "val",
    settings: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    progress: Say = lambda line: None,
) -> tuple[dict[str, list[list[str]]], list[tuple[str, str]]]:
    """Train and score every encoder on every data set, `seeds` times, and write a report into `out`/report.

    A cell (set, encoder, seed) that is finished is not run again, so a stopped comparison goes on where it was, and
    encoders, sets and seeds may be added later. A cell that fails is listed, and the others go on.

    Args:
        encoders: names that `text.named` knows, or `none` for a model without notes; the first is the reference.
        data: folders; each must have notes and a split `split`.
        masks: the folder of the masks in sets that have no `masks/`.
        settings: changes of the recipe `segmentation.fasttextdiff_compared`, as training.max_steps=200.

    Returns:
        Tables by set, each a head and its rows; and (cell, why) of those that failed.

    Raises:
        ConfigError, DataError: an encoder, set or option that cannot be used; told before anything is trained.
    """
    place = Path(out)
    chosen = _check(list(encoders), list(data), seeds, place)
    sets = {_set_name(root): _records(root, masks, split) for root in data}
    hashes = {name: records_hash(records) for name, records in sets.items()}
    _check_settings(settings)
    run = override(recipes.find(RECIPE), settings)
    assert isinstance(run, segmentation_run.Run)
    todo = [
        _cell(run, place, Path(root), masks, name, encoder, seed, split, precision, hashes[_set_name(root)])
        for root in data
        for seed in range(seeds)
        for name, encoder in chosen.items()
    ]
    scores, failures = _work(todo, device, progress)
    milliseconds = {name: _time(encoder, sets) for name, encoder in chosen.items()}
    report: dict[str, Any] = {
        "format": 1,
        "encoders": list(chosen),
        "sets": {name: _summary(name, sets[name], list(chosen), scores, milliseconds) for name in sets},
        "failures": [{"cell": cell.name, "why": why} for cell, why in failures],
        "meta": _meta(list(chosen), data, seeds, masks, split, settings, precision, place),
    }
    progress(f"wrote {_write(place / 'report', report, scores)}")
    tables = {name: [list(controlled_page.HEAD), *controlled_page.lines_of(report, name)] for name in sets}
    return tables, [(cell.name, why) for cell, why in failures]


def _check(encoders: list[str], data: list[str | Path], seeds: int, out: Path) -> dict[str, Config | None]:
    """The encoders by name, once all options are known to be usable."""
    if len(encoders) < 2 or len(set(encoders)) < len(encoders):
        raise ConfigError("a comparison needs two encoders or more, each named once: --encoder none --encoder NAME")
    names = [_set_name(root) for root in data]
    if not data or len(set(names)) < len(names):
        raise ConfigError("name one data set or more, each in a folder of its own name: --data DIR --data OTHER_DIR")
    if seeds < 1:
        raise ConfigError(f"a comparison of {seeds} seeds trains nothing; give 1 or more")
    check_place(out)
    there = [path.name for path in out.iterdir()] if out.is_dir() else []
    strange = [name for name in there if name not in _OURS and name[0] != "."]
    if strange:
        raise ConfigError(f"{out} is no comparison (it has {strange[0]}); give a new folder, or one to go on with")
    return {name: None if name == NO_TEXT else named(name) for name in encoders}


def _check_settings(settings: Sequence[str]) -> None:
    for setting in settings:
        name = setting.partition("=")[0].strip()
        if any(name == given or name.startswith(f"{given}.") for given in _GIVEN):
            raise ConfigError(f"a comparison sets {name} itself, for every cell: leave out --set {name}=...")


def _set_name(root: str | Path) -> str:
    """The name of the folder, also where it is told as "." or ".."."""
    return Path(os.path.abspath(root)).name


def _source(root: str | Path, masks: str | None) -> Any:
    """`masks` speaks of the sets that have no masks/ of their own."""
    other = masks is not None and not (Path(root) / "masks").is_dir()
    return detect(root, mask_folder=masks) if other else detect(root)


def _records(root: str | Path, masks: str | None, split: str) -> list[Any]:
    source = _source(root, masks).build()
    scored = [record for record in source.records(split) if record.mask is not None]
    records = source.records()
    if not scored or not any(record.note.strip() for record in scored):
        raise ConfigError(f"split '{split}' of {root} has no image with a mask and a note; text cannot matter there")
    return records


def _cell(
    run: segmentation_run.Run,
    out: Path,
    root: Path,
    masks: str | None,
    name: str,
    encoder: Config | None,
    seed: int,
    split: str,
    precision: str,
    data_hash: str,
) -> Cell:
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")
    if slug != name:  # two names may have become one
        slug += "-" + hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    data = root.absolute()
    own = run.replace(
        model=run.model.replace(text=encoder),
        data=run.data.replace(root="", source=_source(data, masks), val_split=None),
        training=run.training.replace(seed=seed),
        bank=feature_bank.Config(folder=str(out / "bank"), budget_gb=100.0),
    )
    folder = out / "cells" / _set_name(root) / slug / f"seed{seed}"
    return Cell(_set_name(root), name, seed, data, own, folder, split, precision, data_hash)


def _work(
    todo: Sequence[Cell], device: str, progress: Say
) -> tuple[dict[tuple[str, str, int], dict[str, Any]], list[tuple[Cell, str]]]:
    """Scores by (set, encoder, seed), and what failed."""
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    failures: list[tuple[Cell, str]] = []
    kept = [cells.finished(cell) for cell in todo]  # settings that do not fit are told before the work
    filled: set[str] = set()
    for number, (cell, scores) in enumerate(zip(todo, kept, strict=True), 1):
        try:
            if scores is None:
                if cell.set not in filled:
                    progress(f"{cell.set}: features of all training views")
                    cells.fill_views(cell.run, device)
                    filled.add(cell.set)
                # Another process may have finished it meanwhile.
                scores = cells.finished(cell) or cells.run_cell(cell, device=device)
            found[cell.set, cell.encoder, cell.seed] = scores
            mean = 100 * float(np.mean(list(scores["dice"].values())))
            progress(f"{number}/{len(todo)} {cell.name}: Dice {mean:.2f}")
        except Interrupted:
            raise
        except (ValueError, OSError, MemoryError, RuntimeError) as error:
            failures.append((cell, " ".join(str(error).split()) or type(error).__name__))
            progress(f"{number}/{len(todo)} failed: {cell.name}: {failures[-1][1]}")
    return found, failures


def _time(encoder: Config | None, sets: dict[str, list[Any]]) -> float | None:
    try:
        return cells.note_milliseconds(encoder, [record.note for records in sets.values() for record in records])
    except (ValueError, OSError, RuntimeError):  # its cells have failed and say why
        return None


def _summary(
    name: str,
    records: Sequence[Record],
    encoders: Sequence[str],
    scores: dict[tuple[str, str, int], dict[str, Any]],
    milliseconds: dict[str, float | None],
) -> dict[str, Any]:
    """Of one set. An encoder without any finished run has no line; then the first that has one is the reference."""
    runs = {e: {seed: one for (s, x, seed), one in scores.items() if (s, x) == (name, e)} for e in encoders}
    runs = {encoder: some for encoder, some in runs.items() if some}
    if not runs:
        return {"num_images": 0, "lines": []}
    ids = list(next(iter(next(iter(runs.values())).values()))["dice"])
    if any(set(one["dice"]) != set(ids) for some in runs.values() for one in some.values()):
        raise ConfigError(f"the images of {name} have changed since the first cells were run; choose another -o")
    values = {
        encoder: {seed: np.array([one["dice"][name] for name in ids]) for seed, one in some.items()}
        for encoder, some in runs.items()
    }
    by_id = {record.id: record for record in records}
    lines = compare_runs(values, groups=drawn_together([by_id[name] for name in ids]))
    for line in lines:
        times = [one["training_s"] for one in runs[line["name"]].values() if one["training_s"] is not None]
        line |= {"note_ms": milliseconds[line["name"]], "training_s": float(np.mean(times)) if times else None}
    return {"num_images": len(ids), "lines": lines}


def _write(place: Path, report: dict[str, Any], scores: dict[tuple[str, str, int], dict[str, Any]]) -> Path:
    rows = [
        [name, encoder, seed, record, value]
        for (name, encoder, seed), one in scores.items()
        for record, value in one["dice"].items()
    ]
    table = [[name, *line] for name in report["sets"] for line in controlled_page.lines_of(report, name)]
    files = {
        "report.json": json_text(report),
        "table.csv": csv_text(["set", *controlled_page.HEAD], table),
        "per_image.csv": csv_text(["set", "encoder", "seed", "id", "dice"], rows),
        "report.html": controlled_page.render(report),
    }
    return write_folder(place, files)


def _meta(
    encoders: Sequence[str],
    data: Sequence[str | Path],
    seeds: int,
    masks: str | None,
    split: str,
    settings: Sequence[str],
    precision: str,
    out: Path,
) -> dict[str, Any]:
    words = ["medtextdiff", "compare", *(w for name in encoders for w in ("--encoder", name))]
    words += [w for root in data for w in ("--data", str(root))]
    words += [w for setting in settings for w in ("--set", setting)]
    words += ["--masks", masks] if masks is not None else []
    words += ["--precision", precision] if precision != "auto" else []
    return {
        "command": shlex.join([*words, "--seeds", str(seeds), "--split", split, "-o", str(out)]),
        "recipe": RECIPE,
        "split": split,
        "seeds": seeds,
        "precision": precision,
        "ms per note": "median over notes of all sets, one at a time, nothing remembered, CPU",
        "training s": "mean over seeds, features of the images in the bank beforehand",
        "medtextdiff": __version__,
        "torch": torch.__version__,
    }
