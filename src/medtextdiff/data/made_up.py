"""A tiny made-up data set: a bright disc on noise, and a note that says where it lies. For tests and examples."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from medtextdiff.data import images
from medtextdiff.types import Picture

PLACES = ("upper left", "upper right", "lower left", "lower right")


@dataclass(frozen=True)
class Example:
    """One made-up image with its note and mask."""

    name: str
    pixels: Float[np.ndarray, "H W 3"]
    mask: Int[np.ndarray, "H W"]
    note: str
    split: str


def examples(num: int = 8, size: int = 32, seed: int = 0) -> list[Example]:
    """Discs whose corner goes round; the last quarter is the val split."""
    random = np.random.default_rng(seed)
    return [_example(index, size, random, "val" if index >= num - num // 4 else "train") for index in range(num)]


def write(folder: Path, suffix: str = ".png", mask_prefix: str = "", **options: int) -> list[Example]:
    """Write `images/` and `masks/` under `folder`; give what was written. For a source's `tiny`."""
    made = examples(**options)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for example in made:
        images.write_picture(folder / "images" / (example.name + suffix), Picture(example.pixels), overwrite=True)
        images.write_mask(folder / "masks" / f"{mask_prefix}{example.name}.png", example.mask, overwrite=True)
    return made


def _example(index: int, size: int, random: np.random.Generator, split: str) -> Example:
    place = PLACES[index % 4]
    row = size * (0.28 if "upper" in place else 0.72)
    column = size * (0.28 if "left" in place else 0.72)
    rows, columns = np.mgrid[:size, :size]
    mask = (rows - row) ** 2 + (columns - column) ** 2 < (size * random.uniform(0.12, 0.2)) ** 2
    pixels = 0.3 + 0.1 * random.random((size, size, 3)) + 0.4 * mask[:, :, None]
    note = f"A bright disc in the {place}."
    return Example(f"disc_{index:02d}", pixels.astype(np.float32), mask.astype(np.int64), note, split)
