"""The sections of `report.html`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from medtextdiff.evaluation import pages, pictures, plots
from medtextdiff.evaluation.segmentation import AS_PUBLISHED, FOREGROUND, Row
from medtextdiff.evaluation.statistics import Interval

_SIDE = 480  # pixels of a picture on the page
_NAMES = {"dice": "Dice", "iou": "IoU", "hd95": "HD95", "nsd": "NSD"}
_MAX_CURVES = 8
_NOT_CURVES = frozenset({"step", "epoch", "time", "seconds", "elapsed", "eta"})


@dataclass(frozen=True)
class Example:
    """What the pictures of one image are made from, all of one size."""

    image: UInt8[np.ndarray, "H W 3"]
    truth: Int[np.ndarray, "H W"]  # 255 = ignored
    pred: Int[np.ndarray, "H W"]


@dataclass(frozen=True)
class Content:
    """All that a report says. `notes` are by id; `examples` are (what it stands for, its scores, its pixels)."""

    title: str
    rows: Sequence[Row]
    summary: Mapping[str, Any]
    meta: Mapping[str, Any]
    comparison: Sequence[Mapping[str, Any]]
    examples: Sequence[tuple[str, Row, Example]]
    curves: Sequence[Mapping[str, Any]]
    notes: Mapping[str, str]
    unit: str  # of HD95


def render(content: Content) -> str:
    """The whole page; sections without content are left out."""
    rows, summary, unit = content.rows, content.summary, content.unit
    main = main_region(rows)
    sections = [pages.cards(_cards(summary, main, unit)), pages.section("Scores", _scores(summary, unit))]
    if content.comparison:
        sections.append(pages.section("Compared with", *_comparison(content.comparison, summary["level"], unit)))
    sections.append(pages.section("Every image", _distribution(rows, summary, main)))
    if content.examples:
        parts = _examples(content.examples, main, content.notes, unit)
        sections.append(pages.section("Best, median and worst image", *parts))
    charts = _curves(content.curves)
    if charts:
        sections.append(pages.section("Training", *charts))
    sections.append(pages.section("How this was obtained", pages.facts(_origin(content.meta, summary))))
    return pages.document(content.title, _subtitle(summary), sections)


def main_region(rows: Sequence[Row]) -> str:
    """The region that plots and pictures are about: foreground when it was scored, else the first."""
    return FOREGROUND if FOREGROUND in rows[0].scores else next(iter(rows[0].scores))


def _subtitle(summary: Mapping[str, Any]) -> str:
    images, notes, groups = summary["num_images"], summary["num_with_notes"], summary["num_groups"]
    grouped = f", {groups} groups" if groups != images else ""
    return f"{images} image{'s' * (images != 1)}{grouped}, {notes} with a note. Every image weighs the same."


def _cards(summary: Mapping[str, Any], main: str, unit: str) -> list[tuple[str, str, str]]:
    found = summary["regions"][main]
    percent = f"{100 * summary['level']:g} % interval"
    figures = []
    for metric in (metric for metric in _NAMES if metric in found):
        low, high = (_value(metric, found[metric][end], unit, bare=True) for end in ("low", "high"))
        figures.append(
            (
                _heading(metric, unit),
                _value(metric, found[metric]["mean"], unit, bare=True),
                f"{low} to {high}, {percent}",
            )
        )
    if "num_missed" in found:
        small = f"of {found['num_present']} with one; {found['num_false_alarm']} found where there is none"
        figures.append(("Missed structures", str(found["num_missed"]), small))
    return figures


def _scores(summary: Mapping[str, Any], unit: str) -> str:
    regions = summary["regions"]
    metrics = [m for m in dict.fromkeys(m for found in regions.values() for m in found) if not m.startswith("num_")]
    counts = any("num_missed" in found for found in regions.values())
    lines = []
    for region, found in regions.items():
        line = [_plain(region)]
        line += [_with_interval(metric, found[metric], unit) if metric in found else "–" for metric in metrics]
        if counts:
            missed = f"{found['num_missed']} of {found['num_present']}" if "num_missed" in found else "–"
            line += [missed, str(found.get("num_false_alarm", "–"))]
        lines.append(line)
    head = ["Region", *(_heading(metric, unit) for metric in metrics), *(["Missed", "False alarms"] if counts else [])]
    caption = (
        f"Mean over images [{100 * summary['level']:g} % bootstrap interval]. "
        "A missed structure scores Dice 0 and, as HD95, the image's diagonal."
    )
    if AS_PUBLISHED in regions:
        caption += " As published: the published code's formula at 256 px, to set beside its figures only."
    return pages.table(caption, head, lines)


def _comparison(comparison: Sequence[Mapping[str, Any]], level: float, unit: str) -> list[str]:
    lines: list[list[str | pages.Cell]] = []
    for line in comparison:
        metric, verdict = line["metric"], line["verdict"]
        lines.append(
            [
                str(line["against"]),
                _plain(line["region"]),
                _heading(metric, unit),
                pages.Cell(_value(metric, line["this"], unit, bare=True), verdict == "better"),
                pages.Cell(_value(metric, line["other"], unit, bare=True), verdict == "worse"),
                _with_interval(metric, line["difference"], unit, sign="+"),
                _p(line["p_value"]),
                _p(line["p_holm"]),
                {"better": "this run is better", "worse": "the other is better"}.get(verdict, "no difference shown"),
            ]
        )
    head = ["Other run", "Region", "Score", "This", "Other", "This - other", "p", "p (Holm)", "Verdict"]
    num_pairs = comparison[0]["num_pairs"]
    caption = f"The same {num_pairs} images, paired; [{100 * level:g} % bootstrap interval of the difference]."
    explanation = (
        "p is of the two-sided Wilcoxon signed-rank test; Holm corrects it for the number of runs compared. A winner "
        f"is set in bold only when the interval leaves out zero and the corrected p is below {1 - level:.2g}."
    )
    return [pages.table(caption, head, lines, num_names=3), f'<p class="soft">{explanation}</p>']


def _distribution(rows: Sequence[Row], summary: Mapping[str, Any], main: str) -> str:
    metric = "dice" if "dice" in rows[0].scores[main] else next(iter(summary["regions"][main]))
    values = [row.scores[main][metric] for row in rows]
    interval = Interval(**summary["regions"][main][metric])
    name = f"{_plain(main)} {_NAMES.get(metric, metric)} (%)"
    return f'<div class="wide">{plots.score_plot(values, [row.id for row in rows], interval, name=name)}</div>'


def _examples(
    examples: Sequence[tuple[str, Row, Example]], main: str, notes: Mapping[str, str], unit: str
) -> list[str]:
    colours = [
        (pictures.AGREED, "found"),
        (pictures.MISSED, "missed"),
        (pictures.FALSE_ALARM, "found where there is none"),
    ]
    parts = []
    for what, row, example in examples:
        image = pictures.shrink_image(example.image, _SIDE)
        truth, pred = (pictures.shrink_labels(mask, _SIDE) for mask in (example.truth, example.pred))
        if ((truth > 0) & (pred > 0) & (truth != pred) & (truth != 255)).any():
            colours[3:] = [(pictures.WRONG_CLASS, "found, but as another class")]
        figures = ", ".join(
            f"{_NAMES[metric]} {_value(metric, value, unit)}"
            for metric, value in row.scores[main].items()
            if metric in _NAMES
        )
        note = f'<p class="soft">Note: {pages.escape(notes[row.id])}</p>' if row.id in notes else ""
        parts.append(
            f'<h3>{what}: {pages.escape(row.id)}</h3>{note}<div class="pair">'
            + pages.figure(pictures.png_uri(image), f"Image {row.id}", "Image")
            + pages.figure(
                pictures.png_uri(pictures.error_overlay(image, truth, pred)),
                f"Image {row.id} with agreement and errors in colour",
                figures,
            )
            + "</div>"
        )
    return [pages.legend(colours), *parts]


def _curves(curves: Sequence[Mapping[str, Any]]) -> list[str]:
    """One chart for each figure that the log holds more than once, in the order they first appear."""
    x_name = next((name for name in ("step", "epoch") if curves and name in curves[0]), "line")
    series, num_broken = _series(curves, x_name)
    charts = [
        f"<figure><h3>{pages.escape(name)}</h3>{plots.line_chart(points, name=name, x_name=x_name)}"
        f"<figcaption>by {x_name}</figcaption></figure>"
        for name, points in series.items()
        if len(points) > 1
    ]
    parts = [f'<div class="pair">{"".join(charts[:_MAX_CURVES])}</div>'] if charts else []
    if len(charts) > _MAX_CURVES:
        parts.append(f'<p class="soft">{len(charts) - _MAX_CURVES} more are in the log.</p>')
    if num_broken:
        parts.append(f'<p class="soft">Values of the log that were not finite, and are not drawn: {num_broken}.</p>')
    return parts


def _series(curves: Sequence[Mapping[str, Any]], x_name: str) -> tuple[dict[str, list[tuple[float, float]]], int]:
    """Points by name ("train loss" for the loss of an event "train"), and how many values were not finite."""
    series: dict[str, list[tuple[float, float]]] = {}
    num_broken = 0
    for position, line in enumerate(curves):
        event = f"{line['event']} " if isinstance(line.get("event"), str) else ""
        x = float(line.get(x_name, position))
        for name, value in line.items():
            if name in _NOT_CURVES or isinstance(value, bool | str):
                continue
            if value is None or (isinstance(value, float) and not math.isfinite(value)):  # the log writes NaN as null
                num_broken += 1
            elif isinstance(value, int | float):
                series.setdefault(f"{event}{name}", []).append((x, float(value)))
    return series, num_broken


def _origin(meta: Mapping[str, Any], summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = [(_plain(str(name)), _said(value)) for name, value in meta.items()]
    intervals = (
        f"percentile bootstrap over images{' by group' if summary['num_groups'] != summary['num_images'] else ''}, "
        f"{summary['num_resamples']:,} resamples, seed {summary['seed']}"
    )
    return [*lines, ("Number of images", str(summary["num_images"])), ("Intervals", intervals)]


def _said(value: Any) -> str:
    """A value of `meta` as a person would write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    return value if isinstance(value, str) else json.dumps(value)


def _plain(name: str) -> str:
    name = name.replace("_", " ")
    return name[:1].upper() + name[1:]


def _heading(metric: str, unit: str) -> str:
    if metric == "hd95":
        return f"HD95 ({unit})"
    return f"{_NAMES[metric]} (%)" if metric in _NAMES else _plain(metric)


def _value(metric: str, value: float, unit: str, *, bare: bool = False, sign: str = "") -> str:
    if metric == "hd95":
        return f"{value:{sign}.1f}" + ("" if bare else f" {unit}")
    return f"{100 * value:{sign}.1f}" if metric in _NAMES else f"{value:{sign}.3g}"


def _with_interval(metric: str, found: Mapping[str, float], unit: str, *, sign: str = "") -> str:
    mean, low, high = (_value(metric, found[end], unit, bare=True, sign=sign) for end in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
