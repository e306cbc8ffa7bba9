"""The report on synthesised images: `report.json`, tables as CSV, sheets as PNG, and one page that shows them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from medtextdiff.evaluation import adherence as adherence_part
from medtextdiff.evaluation import pages, pictures, report_folder, sheets, synthesis
from medtextdiff.evaluation import utility as utility_part
from medtextdiff.evaluation.cost import Cost
from medtextdiff.evaluation.memorisation import Audit
from medtextdiff.evaluation.report_folder import csv_text
from medtextdiff.evaluation.statistics import Interval

FORMAT = 1
FILES = (
    "report.json", "report.html", "quality.csv", "adherence.csv", "per_image.csv", "samples.png", "closest_pairs.png",
)  # fmt: skip
_PAIR_SHEETS = 12
_GENERATED = "generated"  # the row that the rest is held against


@dataclass(frozen=True)
class Content:
    """All that a report says. Tables without content are left out of the page.

    Fields:
        quality: rows of the table; the generated images' is called "generated".
        groups, attributes: lines of adherence. audits: memorisation by space ("pixels", "features").
        utility: lines, and the attributes they are a mean over.
        challenge: figures of a challenge's protocol by name, with what to know of them.
        real, generated: images to show. pairs: generated, nearest training image, in turn, closest first.
        per_image: head and rows of per_image.csv.
    """

    title: str
    meta: Mapping[str, Any]
    quality: Sequence[synthesis.Row]
    audits: Mapping[str, Audit]
    real: Sequence[UInt8[np.ndarray, "H W 3"]]
    generated: Sequence[UInt8[np.ndarray, "H W 3"]]
    pairs: Sequence[UInt8[np.ndarray, "H W 3"]]
    per_image: tuple[Sequence[str], Sequence[Sequence[object]]]
    groups: Sequence[adherence_part.Line] = ()
    attributes: Sequence[adherence_part.Line] = ()
    utility: Sequence[utility_part.Line] = ()
    utility_attributes: Sequence[str] = ()
    cost: Cost | None = None
    challenge: Mapping[str, float] = field(default_factory=dict)
    challenge_says: str = ""
    remarks: Sequence[str] = ()


def write(out_dir: Path, content: Content) -> Path:
    """Write the report, whole or not at all, and give the path of its page. See `report_folder.check_free` first.

    Raises:
        OSError: the disk is full or refuses.
    """
    shown = sheets.sheet([*content.real[:16], *content.generated[:32]], columns=8)
    pairs = sheets.sheet(content.pairs[: 2 * _PAIR_SHEETS], columns=6)
    files: dict[str, str | bytes] = {
        "report.json": _json(content),
        "quality.csv": _quality_csv(content),
        "per_image.csv": csv_text(*content.per_image),
        "samples.png": sheets.png_bytes(shown, {"Synthetic": "in part; the rows behind the real images"}),
        "closest_pairs.png": sheets.png_bytes(pairs, {"Synthetic": "in part; the left image of each pair"}),
        "report.html": _page(content, pairs),
    }
    if content.groups:
        files["adherence.csv"] = _adherence_csv(content)
    report_folder.write_folder(out_dir, files)
    return out_dir / "report.html"


def _json(content: Content) -> str:
    value = {
        "format": FORMAT,
        "title": content.title,
        "meta": dict(content.meta),
        "quality": [asdict(row) | {"figures": _intervals(row.figures)} for row in content.quality],
        "adherence": {
            "groups": [_line(line) for line in content.groups],
            "attributes": [_line(line) for line in content.attributes],
        },
        "memorisation": {name: _audit(found) for name, found in content.audits.items()},
        "utility": {
            "attributes": list(content.utility_attributes),
            "rows": [asdict(line) | {"score": line.score._asdict()} for line in content.utility],
        },
        "cost": asdict(content.cost) if content.cost else None,
        "challenge": dict(content.challenge),
        "remarks": list(content.remarks),
    }
    return json.dumps(_plain(value), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """NaN, which JSON does not have, as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _intervals(figures: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {name: interval._asdict() for name, interval in figures.items()}


def _line(line: adherence_part.Line) -> dict[str, Any]:
    told = asdict(line) | {"right": line.right._asdict(), "real": line.real._asdict()}
    return told | {"relative": line.relative, "kept": line.kept}


def _audit(found: Audit) -> dict[str, Any]:
    return {
        "threshold": found.threshold,
        "calibrated_rate": found.rate,
        "held_out_that_are_training_images": found.repeated,
        "copies": found.copies._asdict(),
        "p_value": found.p_value,
        "more_than_calibrated": found.more_than_calibrated,
        "nearest_distance_median": float(np.median(found.distance)),
    }


def _quality_csv(content: Content) -> str:
    names = list(dict.fromkeys(name for row in content.quality for name in row.figures))
    cost = asdict(content.cost) if content.cost else {}
    head = ["row", "images", "interval_over", *(f"{name}{end}" for name in names for end in ("", "_low", "_high"))]
    empty = Interval(math.nan, math.nan, math.nan)

    def line(row: synthesis.Row) -> list[object]:
        figures = [value for name in names for value in row.figures.get(name, empty)]
        costs = [value if row.name == _GENERATED else None for value in cost.values()]
        return [row.name, row.images, row.spread, *figures, *costs]

    return csv_text([*head, *cost], map(line, content.quality))


def _adherence_csv(content: Content) -> str:
    head = ["kind", "name", "claims", "images", "right", "low", "high", "shuffled", "real", "real_shuffled", "relative",
            "kept"]  # fmt: skip
    kinds = (("group", content.groups), ("attribute", content.attributes))
    return csv_text(
        head,
        (
            [kind, line.name, line.claims, line.images, *line.right, line.shuffled, line.real.mean, line.real_shuffled,
             line.relative, line.kept]
            for kind, lines in kinds
            for line in lines
        ),
    )  # fmt: skip


def _page(content: Content, pairs: np.ndarray) -> str:
    real = sheets.sheet(content.real[:16], columns=8)
    made = sheets.sheet(content.generated[:32], columns=8)
    sections = [
        pages.cards(_cards(content)),
        pages.section(
            "Images",
            pages.figure(pictures.png_uri(made), "A sheet of generated images", "Generated, the first in their order"),
            pages.figure(pictures.png_uri(real), "A sheet of real images", "Real, held out, prepared alike"),
        ),
        pages.section("Quality", *_quality(content)),
    ]
    if content.groups:
        sections.append(pages.section("Adherence to the prompt", *_adherence(content)))
    sections.append(pages.section("Memorisation", *_memorisation(content, pairs)))
    if content.utility:
        sections.append(pages.section("Utility", *_utility(content)))
    if content.challenge:
        figures = [[name, _number(value)] for name, value in content.challenge.items()]
        sections.append(pages.section("Challenge", pages.table(content.challenge_says, ["Figure", "Value"], figures)))
    told = [(str(name), str(value)) for name, value in content.meta.items() if value not in (None, "", [])]
    remarks = "".join(f"<p>{pages.escape(remark)}</p>" for remark in content.remarks)
    sections.append(pages.section("How this was obtained", remarks, pages.facts(told)))
    return pages.document(content.title, "Synthetic images against real ones that were held out", sections)


def _generated(content: Content) -> synthesis.Row:
    return next(row for row in content.quality if row.name == _GENERATED)


def _cards(content: Content) -> list[tuple[str, str, str]]:
    row = _generated(content)
    figures = []
    for key in ("fid", "kid", "precision", "coverage"):
        interval = row.figures[key]
        small = f"{_number(interval.low)} to {_number(interval.high)}, over {row.spread}"
        figures.append((synthesis.NAMES[key], _number(interval.mean), small))
    copies = content.audits["pixels"].copies
    figures.append(
        ("Copies, by pixels", f"{100 * copies.mean:.1f} %", f"{100 * copies.low:.1f} to {100 * copies.high:.1f} %")
    )
    return figures


def _quality(content: Content) -> list[str]:
    names = [name for name in synthesis.NAMES if any(name in row.figures for row in content.quality)]
    arrows = {name: " ↓" if name in synthesis.SMALLER_IS_BETTER else " ↑" for name in names}
    lines = [
        [
            synthesis.NAMES[name] + arrows[name],
            *(_with_interval(row.figures[name]) if name in row.figures else "–" for row in content.quality),
        ]
        for name in names
    ]
    lines += [
        [name, *(value if row.name == _GENERATED else "–" for row in content.quality)]
        for name, value in (_cost(content.cost) if content.cost else [])
    ]
    head = ["Figure", *(row.name[:1].upper() + row.name[1:] for row in content.quality)]
    row = _generated(content)
    caption = (
        f"Each column: {row.images} images against the same {row.images} held-out real ones [95 % interval]. "
        f"Features: {content.meta['extractor']}."
    )
    says = (
        "FD is the Fréchet distance (called FID where the features are Inception's); with few images it is too large, "
        "alike in every column, so compare columns and not papers. KD, the kernel distance (KID), is unbiased. Joint "
        "distances also see what the prompts say: they grow when images and prompts do not belong together. Precision, "
        "recall, density and coverage with 5 neighbours. MS-SSIM is between images of a set: high means all alike. IS "
        "is over the extractor's classes, or else over the attributes (then from 1 to 2). Intervals of the "
        "generated are over seeds where several were made; else over random halves of the images."
    )
    return [pages.table(caption, head, lines), f'<p class="soft">{says}</p>']


def _adherence(content: Content) -> list[str]:
    def lines(found: Sequence[adherence_part.Line]) -> list[list[str]]:
        return [
            [
                line.name,
                str(line.claims),
                str(line.images),
                _percent(line.right),
                f"{100 * line.shuffled:.1f}",
                _percent(line.real),
                f"{100 * line.real_shuffled:.1f}",
                _share(line.relative),
                _share(line.kept),
            ]
            for line in found
        ]

    head = [
        "Attribute",
        "Claims",
        "Images",
        "Right (%)",
        "Shuffled",
        "Real (%)",
        "Real shuffled",
        "Of real (%)",
        "Kept (%)",
    ]
    caption = (
        "Share of what prompts claim that classifiers, trained on real training images, find in the image [95 % "
        "interval over images]. Shuffled: another image's prompt. Real: held-out real images and their own prompts."
    )
    says = (
        "Of real: right, as a share of the classifier's own accuracy on real images. Kept: the gain over shuffled "
        "prompts, as a share of the gain that real images have; 100 is as good as real, 0 as good as chance."
    )
    return [
        pages.table(caption, head, lines(content.groups)),
        f'<p class="soft">{says}</p>',
        "<details><summary>Every attribute</summary>"
        + pages.table("As above, one by one.", head, lines(content.attributes))
        + "</details>",
    ]


def _memorisation(content: Content, pairs: np.ndarray) -> list[str]:
    lines = [
        [
            space,
            _percent(found.copies),
            f"{100 * found.rate:.1f}",
            _number(found.threshold),
            _number(float(np.median(found.distance))),
            f"{found.p_value:.2g}",
            "more than calibrated" if found.more_than_calibrated else "not more than calibrated",
        ]
        for space, found in content.audits.items()
    ]
    head = ["Space", "Copies (%)", "Held-out real (%)", "Threshold", "Median distance", "p", "Verdict"]
    caption = (
        "Generated images that lie closer to a training image (in pixels: or to its mirror image) than all but 1 % of "
        "held-out real images do [95 % interval]; p: the chance of so many if they lay as held-out images do."
    )
    figure = pages.figure(
        pictures.png_uri(pairs),
        "Pairs of a generated image and its nearest training image",
        "The closest pairs by pixels: generated left, its nearest training image right, three pairs a row",
    )
    return [pages.table(caption, head, lines), figure]


def _utility(content: Content) -> list[str]:
    lines = [[line.name, str(line.images), _percent(line.score)] for line in content.utility]
    caption = (
        "A small classifier trained on each set, tested on held-out real images: mean balanced accuracy (%) over "
        f"{len(content.utility_attributes)} attributes ({', '.join(content.utility_attributes)}); 50 is chance."
    )
    return [pages.table(caption, ["Trained on", "Images", "Balanced accuracy (%)"], lines)]


def _cost(cost: Cost) -> list[tuple[str, str]]:
    told = [("Seconds an image", f"{cost.seconds:.2f} (batch of {cost.batch})")]
    if cost.gflop is not None:
        told.append(("Arithmetic an image", f"{cost.gflop:.1f} GFLOP"))
    if cost.parameters is not None:
        told.append(("Parameters, all parts", f"{cost.parameters:,}"))
    if cost.peak_mb is not None:
        told.append(("Peak memory", f"{cost.peak_mb:.0f} MB above the model"))
    if cost.training_hours is not None:
        told.append(("Training, without what it began with", f"{cost.training_hours:.2f} hours"))
    return told


def _with_interval(interval: Interval) -> str:
    if not math.isfinite(interval.low):
        return _number(interval.mean)
    return f"{_number(interval.mean)} [{_number(interval.low)}, {_number(interval.high)}]"


def _percent(interval: Interval) -> str:
    return f"{100 * interval.mean:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _share(value: float) -> str:
    return f"{100 * value:.0f}" if math.isfinite(value) else "–"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
