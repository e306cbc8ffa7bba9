"""The page of `compare`: encoders side by side, everything else held equal."""

from collections.abc import Mapping
from typing import Any

from medtextdiff.evaluation import pages, plots
from medtextdiff.evaluation.sensitivity_page import p_text, spread
from medtextdiff.evaluation.statistics import Interval

HEAD = ("encoder", "runs", "Dice (%)", "less the first row", "p (Holm)", "shown", "ms per note", "training s")


def lines_of(report: Mapping[str, Any], name: str) -> list[list[str]]:
    """The rows below HEAD for one data set, the reference first; last the encoders without a finished run."""
    found = {line["name"]: line for line in report["sets"][name]["lines"]}
    rows = []
    for encoder in sorted(report["encoders"], key=lambda encoder: encoder not in found):
        if encoder not in found:
            rows.append([encoder, "0", "no finished run", "", "", "", "", ""])
            continue
        line = found[encoder]
        compared = "difference" in line
        rows.append(
            [
                encoder,
                str(line["num_runs"]),
                spread(line["dice"]),
                _difference(line) if compared else "",
                p_text(line["p_holm"]) if compared else "",
                line["verdict"] if compared else "",
                "" if line["note_ms"] is None else f"{line['note_ms']:.2f}",
                "" if line["training_s"] is None else f"{line['training_s']:.0f}",
            ]
        )
    return rows


def _difference(line: Mapping[str, Any]) -> str:
    """Told with its seeds where not all runs have a partner."""
    pairs = "" if line["num_paired"] == line["num_runs"] else f" ({line['num_paired'] or 'no'} seeds in pairs)"
    return spread(line["difference"], sign="+") + pairs


def render(report: Mapping[str, Any]) -> str:
    """The whole page, of what goes to report.json."""
    sections = []
    for name, one in report["sets"].items():
        caption = (
            f"{one['num_images']} images of the split {report['meta']['split']}. Means over images and seeds; "
            "intervals by drawing both anew; paired Wilcoxon tests over images against the first row, Holm-corrected."
        )
        body = [pages.table(caption, HEAD, lines_of(report, name))]
        if one["lines"]:
            rows = [(line["name"], Interval(**line["dice"])) for line in one["lines"]]
            plot = plots.interval_plot(rows, name="Dice (%)", line=rows[0][1].mean)
            body.insert(0, f'<div class="wide">{plot}</div>')
        sections.append(pages.section(name, *body))
    if report["failures"]:
        failed = [(one["cell"], one["why"]) for one in report["failures"]]
        sections.append(pages.section("Cells that failed", pages.facts(failed)))
    facts = [(name, str(value)) for name, value in report["meta"].items()]
    sections.append(pages.section("How this was obtained", pages.facts(facts)))
    subtitle = "One bank of image features, one head, one budget; only the text encoder changes."
    return pages.document("Text encoders compared", subtitle, sections)
