"""A run's report: `report.json`, `per_image.csv` and `report.html`, which needs no other file."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medtextdiff.evaluation.comparison import compare
from medtextdiff.evaluation.report_folder import check_free, csv_text, json_text, write_folder
from medtextdiff.evaluation.report_page import Content, Example, main_region, render
from medtextdiff.evaluation.segmentation import Row, check_rows

FORMAT = 1


def write_report(
    out_dir: Path,
    *,
    title: str,
    rows: Sequence[Row],
    summary: Mapping[str, Any],  # what summarise(rows) gave
    meta: Mapping[str, Any],  # how it was obtained, in JSON values: command, seed, model hash, data hash, ...
    pictures: Callable[[str], Example] | None = None,  # the pixels of an image, by id
    curves: Sequence[Mapping[str, Any]] | None = None,  # the lines of the run's metrics.jsonl
    against: Mapping[str, Sequence[Row]] | None = None,  # other runs' rows of the same images, by the run's name
    notes: Mapping[str, str] | None = None,  # by id; shown beside the pictures
    unit: str = "px",  # of HD95: "px" or "mm"
    overwrite: bool = False,
) -> Path:
    """Write the report into a new folder, whole or not at all, and give the path of its page.

    `pictures` is asked for the best, the median and the worst image only. A note may hold a patient's data: without
    `notes`, the default, none is written. `meta` is shown and stored as given.

    Raises:
        FileExistsError: `out_dir` exists, without `overwrite`; or, with it, holds something else than a report.
        ValueError: rows that cannot be averaged, or do not fit the summary or `against`; meta that is not JSON.
    """
    out_dir = Path(out_dir)
    check_rows(rows)
    if summary["num_images"] != len(rows) or summary["regions"].keys() != rows[0].scores.keys():
        raise ValueError("the summary is not of these rows: give what summarise(rows) gave")
    check_free(out_dir, overwrite)
    resampling = {name: summary[name] for name in ("seed", "num_resamples", "level")}
    comparison = compare(rows, against, **resampling) if against else []
    chosen = _choose(rows)
    examples = [(what, row, pictures(row.id)) for what, row in chosen] if pictures else []
    content = Content(title, rows, summary, meta, comparison, examples, curves or [], notes or {}, unit)
    report = _to_json(content, {what.lower(): row.id for what, row in chosen})
    return write_folder(
        out_dir, {"report.json": report, "per_image.csv": _per_image(rows), "report.html": render(content)}
    )


def read_curves(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; a last line cut short by a killed run is left out.

    Raises:
        ValueError: another line that is not a JSON object.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()  # a cut may part a letter
    found = []
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):
                break
            raise ValueError(f"{path}: line {number} is not JSON; was the file edited?") from None
        if not isinstance(value, dict):
            raise ValueError(f"{path}: line {number} is not a JSON object")
        found.append(value)
    return found


def _choose(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """Best, median and worst image by Dice; fewer when there are fewer images. Ties go by id, so it is repeatable."""
    region = main_region(rows)
    metric = "dice" if "dice" in rows[0].scores[region] else next(iter(rows[0].scores[region]))
    ranked = sorted(rows, key=lambda row: (-row.scores[region][metric], row.id))
    places = {"Best": 0, "Median": (len(ranked) - 1) // 2, "Worst": len(ranked) - 1}
    chosen: dict[str, tuple[str, Row]] = {}
    for what, place in places.items():
        chosen.setdefault(ranked[place].id, (what, ranked[place]))
    return list(chosen.values())


def _to_json(content: Content, examples: Mapping[str, str]) -> str:
    report = {
        "format": FORMAT,
        "title": content.title,
        "meta": dict(content.meta),
        "unit_of_hd95": content.unit,
        "summary": dict(content.summary),
        "comparison": list(content.comparison),
        "examples": dict(examples),
    }
    return json_text(report)


def _per_image(rows: Sequence[Row]) -> str:
    columns = [(region, metric) for region, metrics in rows[0].scores.items() for metric in metrics]
    head = ["id", "group", "has_note", *(f"{region}_{metric}" for region, metric in columns)]
    scores = ([float(row.scores[region][metric]) for region, metric in columns] for row in rows)
    return csv_text(
        head, ([row.id, row.group or "", int(row.has_note), *one] for row, one in zip(rows, scores, strict=True))
    )
