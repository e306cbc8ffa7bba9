"""The page of `probe`: what each encoder knows before it meets an image."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medtextdiff.evaluation import pages, plots
from medtextdiff.evaluation.statistics import Interval

Line = Mapping[str, Any]  # encoder, features, probe, metric, mean, low, high, first_ahead..., chance, num, ridge
_FIGURE, _LEAD = ("mean", "low", "high"), ("first_ahead", "first_ahead_low", "first_ahead_high")


def table_lines(lines: Sequence[Line], features: str) -> list[list[str]]:
    """A head and one row an encoder, for probes read off these features and for retrieval by them."""
    chosen = [line for line in lines if line["features"] == features]
    chance = {(line["probe"], line["metric"]): line["chance"] for line in chosen}
    rows = _rows(chosen, dict.fromkeys(line["encoder"] for line in chosen), _FIGURE)
    return [_head(chosen), *rows, ["chance", *(f"{100 * value:.1f}" for value in chance.values())]]


def table_of_leads(lines: Sequence[Line], features: str) -> list[list[str]]:
    """A head and one row each further encoder: how far the first is ahead of it on the same sentences."""
    chosen = [line for line in lines if line["features"] == features]
    others = list(dict.fromkeys(line["encoder"] for line in chosen))[1:]
    return [_head(chosen), *_rows(chosen, others, _LEAD)]


def _head(chosen: Sequence[Line]) -> list[str]:
    columns = dict.fromkeys((line["probe"], line["metric"]) for line in chosen)
    return ["encoder", *(probe if metric == "accuracy" else metric for probe, metric in columns)]


def _rows(chosen: Sequence[Line], encoders: Iterable[str], figure: Sequence[str]) -> list[list[str]]:
    columns = dict.fromkeys((line["probe"], line["metric"]) for line in chosen)
    rows = []
    for encoder in encoders:
        found = {(line["probe"], line["metric"]): line for line in chosen if line["encoder"] == encoder}
        cells = (_percent(found[column], figure) if column in found else "failed" for column in columns)
        rows.append([encoder, *cells])
    return rows


def render(report: Mapping[str, Any]) -> str:
    """The whole page, of what goes to report.json."""
    lines: Sequence[Line] = report["lines"]
    sections = []
    for features in dict.fromkeys(line["features"] for line in lines):
        head, *rows = table_lines(lines, features)
        caption = f"In percent, with bootstrap intervals over test sentences. {report['features'][features]}"
        sections.append(pages.section(f"Features: {features}", pages.table(caption, head, rows)))
    first = lines[0]["features"]
    head, *rows = table_of_leads(lines, first)
    if rows:
        caption = "Points of a hundred, with bootstrap intervals of the difference on the same test sentences."
        title = f"How far {lines[0]['encoder']} is ahead, features: {first}"
        sections.append(pages.section(title, pages.table(caption, head, rows)))
    for probe, metric in dict.fromkeys((line["probe"], line["metric"]) for line in lines):
        chosen = [one for one in lines if (one["probe"], one["metric"], one["features"]) == (probe, metric, first)]
        rows_ = [(one["encoder"], Interval(one["mean"], one["low"], one["high"])) for one in chosen]
        plot = plots.interval_plot(
            rows_, name=f"{metric} (%), features: {first}; the line is chance", line=chosen[0]["chance"]
        )
        sections.append(pages.section(probe, f'<div class="wide">{plot}</div>'))
    if report["failures"]:
        failed = [(one["encoder"], one["why"]) for one in report["failures"]]
        sections.append(pages.section("Encoders that failed", pages.facts(failed)))
    examples = [(name, "; ".join(texts)) for name, texts in report["examples"].items()]
    sections.append(pages.section("Made-up sentences of the tests", pages.facts(examples)))
    facts = [(name, str(value)) for name, value in report["meta"].items()]
    sections.append(pages.section("How this was obtained", pages.facts(facts)))
    return pages.document(report["title"], "Linear probes and retrieval of paraphrases", sections)


def _percent(line: Line, figure: Sequence[str]) -> str:
    mean, low, high = (100 * line[part] for part in figure)
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"
