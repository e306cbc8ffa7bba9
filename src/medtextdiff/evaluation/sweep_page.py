"""The page of `sweep`: a generator's settings of use side by side."""

from collections.abc import Mapping
from typing import Any

from medtextdiff.evaluation import pages, synthesis

_SHOWN = ("fid", "kid", "recall", "coverage", "joint_fid")
HEAD = ("setting", *(synthesis.NAMES[name] for name in _SHOWN), "claims right (%)", "of shuffled (%)", "s an image")


def lines_of(report: Mapping[str, Any]) -> list[list[str]]:
    """The rows below HEAD."""
    rows = []
    for row in report["reference"]:
        rows.append([row["name"], *(_text(row["figures"].get(name)) for name in _SHOWN), "", "", ""])
    for row in report["rows"]:
        right, shuffled = _claims(row)
        figures = [_text(row["figures"].get(name)) for name in _SHOWN]
        claims = ["" if share is None else f"{100 * share:.1f}" for share in (right, shuffled)]
        rows.append([_name(row["setting"]), *figures, *claims, f"{row['seconds']:.2f}"])
    return rows


def plain(report: Mapping[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Head and rows of table.csv: numbers, ends of intervals in columns of their own."""
    ends = ("mean", "low", "high")
    head = [
        "images_are",
        "sampler",
        "steps",
        "guidance",
        "images",
        *(f"{name}_{end}" for name in _SHOWN for end in ends),
    ]
    rows: list[list[object]] = []
    for row in report["reference"]:
        figures = [row["figures"].get(name, {}).get(end) for name in _SHOWN for end in ends]
        rows.append([row["name"], None, None, None, row["images"], *figures, None, None, None])
    for row in report["rows"]:
        figures = [row["figures"].get(name, {}).get(end) for name in _SHOWN for end in ends]
        rows.append(["generated", *row["setting"].values(), row["images"], *figures, *_claims(row), row["seconds"]])
    return [*head, "claims_right", "claims_right_shuffled", "seconds_an_image"], rows


def render(report: Mapping[str, Any]) -> str:
    """The whole page, of what goes to report.json."""
    spread = " or ".join(sorted({row["spread"] for row in report["rows"]}))
    caption = (
        f"Against as many real images of the split {report['meta']['split']}; 95 % intervals over {spread}. Below the "
        "floor (real images in the place of the generated) stands the run's own setting; each other changes one thing "
        "of it. Claims: what prompts say, classifiers find."
    )
    facts = [(name, str(value)) for name, value in report["meta"].items()]
    sections = [
        pages.section("Settings", pages.table(caption, HEAD, lines_of(report))),
        pages.section("How this was obtained", pages.facts(facts)),
    ]
    return pages.document("Sampling settings compared", "The same prompts and seeds in every row.", sections)


def _name(setting: Mapping[str, Any]) -> str:
    return f"{setting['sampler']}, {setting['steps']} steps, guidance {setting['guidance']:g}"


def _claims(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Shares of all claims that are found, and that are found in images of other prompts."""
    total = sum(line["claims"] for line in row["adherence"])
    if not total:
        return None, None
    right = sum(line["right"]["mean"] * line["claims"] for line in row["adherence"]) / total
    return right, sum(line["shuffled"] * line["claims"] for line in row["adherence"]) / total


def _text(figure: Mapping[str, float | None] | None) -> str:
    if figure is None or figure["mean"] is None:
        return ""
    mean, low, high = (None if figure[end] is None else f"{figure[end]:.3g}" for end in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]" if low and high else str(mean)
