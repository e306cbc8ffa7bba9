"""The page of `sensitivity`: what each way of telling the note does to the Dice."""

from collections.abc import Mapping, Sequence
from typing import Any

from medtextdiff.evaluation import pages, plots
from medtextdiff.evaluation.sensitivity import NOTHING
from medtextdiff.evaluation.statistics import Interval

TELLINGS_HEAD = ("Notes", "Notes changed", "Dice (%)", "Less the right note", "p (Holm)", "Shown")


def telling_lines(summary: Sequence[Mapping[str, Any]], num: int) -> list[list[str]]:
    """The rows below TELLINGS_HEAD."""
    return [
        [
            line["notes"],
            f"{line['num_changed']} of {num}",
            spread(line["dice"]),
            spread(line["difference"], sign="+") if "difference" in line else "",
            p_text(line["p_holm"]) if "p_holm" in line else "",
            line.get("verdict", ""),
        ]
        for line in summary
    ]


def target_lines(by_target: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Dice of each target: with the right note, and the means of the other tellings."""
    return [
        [name, str(found["num"]), spread(found["dice"]), *(f"{100 * mean:.1f}" for mean in found["means"].values())]
        for name, found in by_target.items()
    ]


def confusion_lines(answers: Mapping[str, Any]) -> list[list[str]]:
    """Asked by row, given by column, then how much of what was asked was given."""
    lines = []
    for place, (name, counts) in enumerate(zip(answers["targets"], answers["counts"], strict=True)):
        lines.append([name, *map(str, counts), f"{100 * counts[place] / max(1, sum(counts)):.1f}"])
    return lines


def confusion_head(answers: Mapping[str, Any]) -> list[str]:
    """The head above `confusion_lines`."""
    return ["Asked", *answers["targets"], NOTHING, "given what was asked (%)"]


def swapped_text(swapped: Mapping[str, float | int]) -> str:
    """How often the other side was given, in words."""
    share, low, high = (100 * swapped[name] for name in ("share", "low", "high"))
    return f"{swapped['num']:.0f} of {swapped['of']:.0f}: {share:.1f} % [{low:.1f}, {high:.1f}]"


def render(report: Mapping[str, Any]) -> str:
    """The whole page, of what goes to report.json."""
    summary, meta = report["tellings"], report["meta"]
    rows = [(line["notes"], Interval(**line["dice"])) for line in summary]
    plot = f'<div class="wide">{plots.interval_plot(rows, name="Dice (%)", line=rows[0][1].mean)}</div>'
    caption = (
        "Means over images with bootstrap intervals; paired Wilcoxon tests against the right note, Holm-corrected."
    )
    table = pages.table(caption, TELLINGS_HEAD, telling_lines(summary, report["num_records"]))
    cards = [("Right note", f"{100 * rows[0][1].mean:.1f}", "Dice (%)")]
    none = next((line for line in summary if line["notes"] == "none"), None)
    if none is not None:
        cards.append(
            ("No note", f"{100 * none['dice']['mean']:.1f}", f"less the right: {spread(none['difference'], sign='+')}")
        )
    sections = [pages.section("Does the model use the note?", plot, table)]
    if report["by_target"]:
        others = [line["notes"] for line in summary[1:]]
        head = ["Target", "Images", "right", *others]
        by_target = pages.table("Dice (%) of each target.", head, target_lines(report["by_target"]))
        sections.append(pages.section("Each target", by_target))
    if report["answers"]:
        answers = report["answers"]
        caption = "Rows: what was asked. Columns: the target that the mask overlaps best. Ties count as what was asked."
        body = [pages.table(caption, confusion_head(answers), confusion_lines(answers))]
        if answers["swapped"]["of"]:
            told = swapped_text(answers["swapped"])
            cards.append(("Sides swapped", f"{answers['swapped']['num']:.0f} of {answers['swapped']['of']:.0f}", told))
            body.append(f"<p>The other side was given in {pages.escape(told)}.</p>")
        sections.append(pages.section("What was asked and what was given", *body))
    facts = [(name, value if isinstance(value, str) else str(value)) for name, value in meta.items()]
    sections.append(pages.section("How this was obtained", pages.facts(facts)))
    subtitle = f"{report['num_records']} masks of {report['num_images']} images"
    return pages.document(report["title"], subtitle, [pages.cards(cards), *sections])


def spread(found: Mapping[str, float], *, sign: str = "") -> str:
    """A mean and its interval, in percent."""
    mean, low, high = (f"{100 * found[end]:{sign}.2f}" for end in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def p_text(value: float) -> str:
    """A p value as a person writes it."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
