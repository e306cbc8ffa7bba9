"""Studies with people: make a blinded sheet from real and synthetic images; score what raters send back."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medtextdiff import __version__
from medtextdiff.api import image_sets
from medtextdiff.config import ConfigError
from medtextdiff.data import images
from medtextdiff.data.atomic import check_place
from medtextdiff.data.errors import DataError
from medtextdiff.data.generated import TABLE, read_generated
from medtextdiff.data.sources import detect
from medtextdiff.data.tables import join, read_table
from medtextdiff.evaluation import pictures, study, study_page, study_report
from medtextdiff.evaluation.report_folder import check_free, csv_text, write_folder

Say = Callable[[str], None]
PAGE, KEY = "study.html", "key.json"
_REPORT = ("report.json", "report.html", "answers.csv")
_MAX_SIDE = 768
_KEY_SAYS = "Which image is which. Keep it from the raters until all ratings are in."


def rate_make(
    real: str | Path,
    synthetic: Sequence[str | Path],
    *,
    out: str | Path,
    num: int = 60,
    seed: int = 0,
    split: str | None = None,
    size: int | None = None,
    fit: str = "squeeze",
    overwrite: bool = False,
    progress: Say = lambda line: None,
) -> dict[str, str]:
    """Write `study.html`, for the raters, and `key.json`, which they must not see, into the folder `out`.

    All images become squares of one size and are stored anew, without names and metadata, so that neither tells.

    Args:
        real: a data set, a folder with `prompts.csv`, or a folder of images.
        synthetic: a folder for each system, as `medtextdiff generate` writes it, or of plain images.
        num: images in all, half of them real; a tenth are shown twice besides.
        split: of the data set; None: all of it.
        size: of a side; None: the shortest side of all images that are shown, at most 768.
        fit: how images become square, "squeeze" or "crop": as the generators' training did, else the framing tells.

    Raises:
        ConfigError, DataError: folders, names or numbers that cannot be used; FileExistsError: `out` is there.
    """
    out = Path(out)
    check_free(out, overwrite, (PAGE, KEY))
    check_place(out)
    image_sets.check_fit(fit)
    if size is not None and not 16 <= size <= _MAX_SIDE:
        raise ConfigError(f"images cannot be shown at {size} pixels; give 16 to {_MAX_SIDE}")
    pools = {study.REAL: _real(Path(real), split, seed)} | _systems([Path(folder) for folder in synthetic])
    try:
        items = study.draw({name: list(pool) for name, pool in pools.items()}, num, seed=seed)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    prompts = all(pools[item.system][item.image] for item in items)
    read = {item.image: images.read(item.image) for item in items}
    side = size or min(_MAX_SIDE, *(min(picture.pixels.shape[:2]) for picture in read.values()))
    progress(f"{len(items)} images of {side} x {side} pixels")
    shown = [
        study_page.Shown(
            item.number,
            pictures.png_uri(image_sets.square(read[item.image], side, fit)),
            pools[item.system][item.image],
        )
        for item in items
    ]
    told = [[item.number, item.image, item.system, item.repeats] for item in items]
    sheet_id = hashlib.sha256(json.dumps([told, seed, side, fit, prompts]).encode()).hexdigest()[:12]
    write_folder(
        out,
        {
            PAGE: study_page.page(sheet_id, shown, prompts=prompts),
            KEY: json.dumps(_key(sheet_id, told, seed, prompts) | {"fit": fit}, indent=1) + "\n",
        },
    )
    systems = {name: str(sum(item.system == name and item.repeats is None for item in items)) for name in pools}
    asked = "asked, with prompts shown" if prompts else "not asked: not all images have a prompt"
    return {"page for raters": str(out / PAGE), "key, keep it": str(out / KEY), **systems, "adherence": asked}


def rate_score(
    sheet: str | Path, ratings: Sequence[str | Path], *, out: str | Path, seed: int = 0, overwrite: bool = False
) -> dict[str, str]:
    """Score the files that raters downloaded (csv or json) against the sheet's key; write a report.

    Raises:
        DataError: a sheet without its key; ratings of another sheet, of unknown items, twice, or out of range: with the
            file and the line. FileExistsError: `out` is there.
    """
    out = Path(out)
    check_free(out, overwrite, _REPORT)
    check_place(out)
    key = _read_key(Path(sheet))
    items = [study.Item(*row) for row in key["items"]]
    found: list[study.Rating] = []
    for path in ratings:
        found += _read_ratings(Path(path), key, items, found)
    score = study.score(items, found, seed=seed)
    meta = {
        "sheet": key["sheet"],
        "images": str(len(items)),
        "of them shown twice": str(sum(item.repeats is not None for item in items)),
        "files": join((Path(path).name for path in ratings), most=20),
        "medtextdiff": __version__,
    }
    report = json.dumps({"format": 1, "meta": meta, "found": score}, indent=2, allow_nan=False) + "\n"
    write_folder(
        out,
        {
            "report.json": report,
            "report.html": study_report.page("Expert study", score, meta),
            "answers.csv": _answers(items, found),
        },
    )
    return _as_text(score)


def _real(folder: Path, split: str | None, seed: int) -> dict[str, str]:
    """Image files, each with one of its prompts at random: always the first would give the real ones away."""
    if folder.is_dir() and not (folder / TABLE).is_file() and not _is_data_set(folder):
        return _plain(folder)
    if (folder / TABLE).is_file():
        return {str(item.image): item.prompt for item in read_generated(folder)}
    records = detect(folder).build().records(split)  # type: ignore[attr-defined]
    rng, found = np.random.default_rng(seed), {}
    for record in records:
        if record.image is not None:
            found[str(record.image)] = str(rng.choice(record.notes)) if record.notes else ""
    return found


def _is_data_set(folder: Path) -> bool:
    try:
        detect(folder)
    except DataError:
        return False
    return True


def _systems(folders: Sequence[Path]) -> dict[str, dict[str, str]]:
    names = [folder.name or str(folder) for folder in folders]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or study.REAL in names:
        raise ConfigError(f"two systems cannot both be called '{(twice or [study.REAL])[0]}'; rename a folder")
    found = {}
    for name, folder in zip(names, folders, strict=True):
        table = (folder / TABLE).is_file()
        found[name] = {str(item.image): item.prompt for item in read_generated(folder)} if table else _plain(folder)
    return found


def _plain(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give folders of images")
    paths = images.list_images(folder)
    if not paths:
        raise DataError(f"folder {folder} holds no image; it may hold {', '.join(sorted(images.SUFFIXES))}")
    return {str(path): "" for path in paths}


def _key(sheet_id: str, items: list[list[Any]], seed: int, prompts: bool) -> dict[str, Any]:
    return {
        "what": _KEY_SAYS,
        "sheet": sheet_id,
        "seed": seed,
        "prompts_shown": prompts,
        "columns": ["item", "image", "system", "repeats"],
        "items": items,
    }


def _read_key(sheet: Path) -> dict[str, Any]:
    path = sheet / KEY if sheet.is_dir() else sheet
    if not path.is_file():
        raise DataError(f"{path} does not exist; give the folder that `medtextdiff rate make` wrote")
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(key["sheet"], str)
        assert all(len(row) == 4 for row in key["items"])
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
        raise DataError(f"{path} is no key of a study, or damaged; make the sheet again with the same seed") from None
    return key


def _read_ratings(
    path: Path, key: Mapping[str, Any], items: Sequence[study.Item], known: Sequence[study.Rating]
) -> list[study.Rating]:
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the files that raters sent back (.csv or .json)")
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _table_rows(path)
    numbers = {item.number for item in items}
    done = {(rating.rater, rating.item) for rating in known}
    found = []
    for place, cells in rows:
        if cells.get("sheet", "") != key["sheet"]:
            raise DataError(f"{path}, {place}: these ratings are of another sheet, not of {key['sheet']}")
        number = cells.get("item", "")
        if not number.isdecimal() or int(number) not in numbers:
            raise DataError(f"{path}, {place}: the sheet has no such item; its items are 1 to {max(numbers)}")
        rater = cells.get("rater", "").strip()
        if not rater:
            raise DataError(f"{path}, {place}: no rater is named; fill in the column 'rater'")
        if (rater, int(number)) in done:
            raise DataError(f"{path}, {place}: item {number} was rated by this rater already; remove one of the rows")
        done.add((rater, int(number)))
        found.append(study.Rating(rater, int(number), _answers_of(path, place, cells)))
    return found


def _answers_of(path: Path, place: str, cells: Mapping[str, str]) -> dict[str, int]:
    answers = {}
    for name in study.ANSWERS:
        text = cells.get(name, "").strip()
        if not text:
            continue
        allowed = range(1, 6) if name in study.SCALES else range(2)
        if not text.isdecimal() or int(text) not in allowed:
            raise DataError(f"{path}, {place}: '{name}' must be {allowed[0]} to {allowed[-1]}, or empty")
        answers[name] = int(text)
    return answers


def _table_rows(path: Path) -> list[tuple[str, Mapping[str, str]]]:
    rows = read_table(path, ("sheet", "rater", "item"), (*study.ANSWERS, "seconds"))
    return [(f"line {row.number}", row.cells) for row in rows]


def _json_rows(path: Path) -> list[tuple[str, Mapping[str, str]]]:
    if not path.is_file():
        raise DataError(f"ratings {path} do not exist; check the path")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise DataError(f"ratings {path} are no JSON; ask the rater to download them again") from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"ratings {path} must be a list of answers, as the study's page writes it")
    return [
        (f"row {k}", {name: "" if value is None else str(value) for name, value in row.items()})
        for k, row in enumerate(rows, 1)
    ]


def _answers(items: Sequence[study.Item], ratings: Sequence[study.Rating]) -> str:
    place = {item.number: item for item in items}
    head = ["rater", "item", "image", "system", "repeats", *study.ANSWERS]
    rows = []
    for rating in ratings:
        item = place[rating.item]
        own = [rating.answers.get(name, "") for name in study.ANSWERS]
        rows.append([rating.rater, item.number, Path(item.image).name, item.system, item.repeats or "", *own])
    return csv_text(head, rows)


def _as_text(score: Mapping[str, Any]) -> dict[str, str]:
    found = {"raters": str(len(score["raters"]))}
    if score["recognised"]:
        share = study.as_interval(score["recognised"]["share"])
        found["recognised (%)"] = f"{100 * share.mean:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"
    for name, one in score["systems"].items():
        if "realism" in one:
            mean = study.as_interval(one["realism"])
            found[f"realism of {name} (1 to 5)"] = f"{mean.mean:.2f} [{mean.low:.2f}, {mean.high:.2f}]"
    for answer, told in score["agreement between raters"].items():
        found[f"alpha, {answer}"] = "–" if told["alpha"] is None else f"{told['alpha']:.2f}"
    return found
