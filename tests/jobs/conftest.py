"""A made-up data set in the layout of `folders`, and the commands as a person calls them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from medtextdiff.cli import app

SECRET = "Haemangioblastoma"  # stands for a note's text: no message, file or log may hold it
RECIPE = "segmentation.fasttextdiff_tiny"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The data set, for one test to spoil."""
    return write_data(tmp_path / "data")


def write_data(root: Path) -> Path:
    """Six 48 x 40 images of bright discs, four to train on, with notes that say where they lie."""
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


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, whose notes hold the secret, and `run`, trained on it."""
    root = tmp_path_factory.mktemp("toy")
    table = write_data(root / "data") / "notes.csv"
    table.write_text(table.read_text().replace("One disc", f"One {SECRET} disc"))
    done = call("train", RECIPE, "--set", f"data.root={root / 'data'}", "-o", root / "run")
    assert done.exit_code == 0, done.output
    return root


@pytest.fixture
def run(toy: Path, tmp_path: Path) -> Path:
    """A copy of the run, for one test to spoil."""
    return Path(shutil.copytree(toy / "run", tmp_path / "run"))


@pytest.fixture
def data(toy: Path, tmp_path: Path) -> Path:
    """A copy of the data, for one test to spoil."""
    return Path(shutil.copytree(toy / "data", tmp_path / "data"))


def stopped(result: Result, says: str) -> None:
    """Refused after it had told what it does: the last line is the error."""
    assert result.exit_code == 2, result.output
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: "), result.stderr
    assert says in last


def refused(result: Result, says: str, code: int = 2) -> None:
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert says in result.stderr
    assert "MEDTEXTDIFF_DEBUG" not in result.stderr  # what the command says of an error it did not foresee
    assert SECRET not in result.output


def told_nowhere(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if SECRET.encode() in path.read_bytes() or SECRET in path.name]
    assert not [path for path in folder.rglob(".*") if path.name != ".lock"]


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def rewrite(data: Path, old: str, new: str) -> None:
    table = data / "notes.csv"
    table.write_text(table.read_text().replace(old, new))
