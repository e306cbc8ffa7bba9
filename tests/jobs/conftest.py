"""A made-up data set in the layout of `folders`, and the commands as a person calls them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from medtextdiff.cli import app


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Six 48 x 40 images of bright discs, four to train on, with notes that say where they lie."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rng = np.random.default_rng(0)
    rows = ["image,mask,split,note"]
    for k in range(6):
        left = k % 2 == 0
        y, x = np.mgrid[:40, :48]
        disc = (y - 20) ** 2 + (x - (12 if left else 36)) ** 2 < 64
        pixels = rng.integers(0, 90, (40, 48, 3)) + 130 * disc[..., None]
        Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / f"case{k}.png")
        Image.fromarray((255 * disc).astype(np.uint8)).save(root / "masks" / f"case{k}.png")
        side = "left" if left else "right"
        rows.append(f"case{k}.png,case{k}.png,{'train' if k < 4 else 'val'},One disc on the {side}.")
    (root / "notes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def call(*words: object) -> Result:
    """`medtextdiff WORDS...`, in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def run_dir(data_dir: Path, tmp_path: Path) -> Path:
    """A toy run, trained through the CLI."""
    out = tmp_path / "run"
    result = call("train", "segmentation.fasttextdiff_tiny", "--set", f"data.root={data_dir}", "-o", out)
    assert result.exit_code == 0, result.output
    return out
