"""The page of a prediction: image, mask and probability side by side, with its figures."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from medtextdiff.evaluation import pages, pictures


@dataclass(frozen=True)
class ResultItem:
    """One segmented image. `note` is shown when given: leave it None unless the person asked for it."""

    id: str
    image: UInt8[np.ndarray, "H W 3"]
    mask: Int[np.ndarray, "H W"]
    confidence: float  # [0, 1], see evaluation.calibration.confidence
    seconds: float
    model: str
    probability: Float[np.ndarray, "H W"] | None = None  # of the foreground
    note: str | None = None

    @property
    def foreground(self) -> float:
        """The share of the image that the mask covers, in [0, 1]."""
        return float((self.mask > 0).mean())


@dataclass(frozen=True)
class Shown:
    """What a page holds of an item: its section, with shrunken pictures, and its line of the overview."""

    section: str
    line: list[str]

    @classmethod
    def of(cls, item: ResultItem, max_side: int = 640) -> "Shown":
        """Draw the item; `max_side` is the longer side of its pictures, in pixels."""
        figures = f"{100 * item.foreground:.1f}", f"{100 * item.confidence:.1f}", f"{item.seconds:.2f}"
        return cls(_section(item, max_side), [item.id, item.model, *figures])


def result_page(
    path: Path, *, title: str, items: Iterable[ResultItem | Shown], max_side: int = 640, overwrite: bool = False
) -> None:
    """Write one HTML page, which needs no other file, for the items in their order.

    Items may come from a generator: only what is shown of them is kept. `max_side` is the longer side of their
    pictures, in pixels; take less for many images.

    Raises:
        FileExistsError: `path` exists, without `overwrite`.
        ValueError: no items.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name, or overwrite it with --overwrite")
    shown = [item if isinstance(item, Shown) else Shown.of(item, max_side) for item in items]
    if not shown:
        raise ValueError("no images were segmented: a page needs at least one")
    head = ["Image", "Model", "Foreground (%)", "Confidence (%)", "Seconds"]
    caption = "Confidence is the model's own: the largest class probability, averaged over the predicted foreground."
    overview = pages.section("Overview", pages.table(caption, head, [one.line for one in shown], num_names=2))
    subtitle = f"{len(shown)} image{'s' * (len(shown) != 1)} segmented"
    pages.write_page(path, pages.document(title, subtitle, [overview, *(one.section for one in shown)]))


def _section(item: ResultItem, max_side: int) -> str:
    image, mask = pictures.shrink_image(item.image, max_side), pictures.shrink_labels(item.mask, max_side)
    height, width = item.mask.shape
    figures = [
        pages.figure(pictures.png_uri(image), f"Image {item.id}", f"Image, {width} x {height} pixels"),
        pages.figure(
            pictures.png_uri(pictures.overlay(image, mask)),
            f"Image {item.id} with the mask in colour",
            f"Mask, {100 * item.foreground:.1f} % of the image",
        ),
    ]
    if item.probability is not None:
        figures.append(_probability(item, item.probability, max_side))
    note = f"<p>Note: {pages.escape(item.note)}</p>" if item.note else ""
    return pages.section(item.id, note, f'<div class="pair">{"".join(figures)}</div>')


def _probability(item: ResultItem, probability: Float[np.ndarray, "H W"], max_side: int) -> str:
    colours = ", ".join(map(pages.css_colour, pictures.HEAT))
    ramp = (
        f'<div class="ramp" style="background:linear-gradient(to right, {colours})"></div>'
        '<div class="ends"><span>0</span><span>1</span></div>'
    )
    picture = pictures.shrink_image(pictures.heat(probability), max_side)
    description = f"Probability of foreground in image {item.id}, dark is 0 and bright is 1"
    return pages.figure(pictures.png_uri(picture), description, "Probability of foreground", ramp)
