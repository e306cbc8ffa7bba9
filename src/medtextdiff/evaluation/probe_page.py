"""The page of `probe`: what each encoder knows before it meets an image."""

from collections.abc import Mapping, Sequence
from typing import Any

from medtextdiff.evaluation import pages, plots
from medtextdiff.evaluation.statistics import Interval

Line = Mapping[str, Any]  # encoder, features, probe, metric, mean, low, high, chance, num, ridge


def table_lines(lines: Sequence[Line], features: str) -> list[list[str]]:
    """A head and one row an encoder, for probes read off these features and for retrieval by them."""
    chosen = [line for line in lines if line["features"] == features]
    columns = list(dict.fromkeys((line["probe"], line["metric"]) for line in chosen))
    rows = []
    for encoder in dict.fromkeys(line["encoder"] for line in chosen):
        found = {(line["probe"], line["metric"]): line for line in chosen if line["encoder"] == encoder}
        rows.append([encoder, *(_percent(found[column]) if column in found else "failed" for column in columns)])
    chance = {(line["probe"], line["metric"]): line["chance"] for line in chosen}
    rows.append(["chance", *(f"{100 * chance[column]:.1f}" for column in columns)])
    names = [probe if metric == "accuracy" else metric for probe, metric in columns]
    return [["encoder", *names], *rows]


def render(report: Mapping[str, Any]) -> str:
    """The whole page, of what goes to report.json."""
    lines: Sequence[Line] = report["lines"]
    sections = []
    for features in dict.fromkeys(line["features"] for line in lines):
        head, *rows = table_lines(lines, features)
        caption = f"In percent, with bootstrap intervals over test sentences. {report['features'][features]}"
        sections.append(pages.section(f"Features: {features}", pages.table(caption, head, rows)))
    first = lines[0]["features"]
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


def _percent(line: Line) -> str:
    mean, low, high = (100 * line[end] for end in ("mean", "low", "high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"
