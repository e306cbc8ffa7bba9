"""Images labelled by a run, and another run trained on them: through the CLI, on made-up data."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtextdiff.api.pseudo_labelling import _mask
from medtextdiff.data import images
from medtextdiff.data.images import read_mask
from medtextdiff.types import IGNORE
from tests.jobs.conftest import call, refused


def label(source: Path, toy: Path, out: Path, *more: object):
    return call("pseudo-label", source, "--model", toy / "run", "-o", out, *more)


def test_pixels_the_model_is_unsure_of_are_open_and_read_back_so(tmp_path: Path) -> None:
    background = np.array([[0.9, 0.6, 0.1, 0.4]])
    mask = _mask(np.stack([background, 1 - background]), confidence=0.8)
    assert mask.tolist() == [[0, IGNORE, 1, IGNORE]]
    images.write_mask(tmp_path / "mask.png", mask)
    assert read_mask(tmp_path / "mask.png").tolist() == mask.tolist()
    nothing = _mask(np.stack([background[:, :2], 1 - background[:, :2]]), confidence=0.8)  # open, and no foreground
    images.write_mask(tmp_path / "open.png", nothing)
    assert read_mask(tmp_path / "open.png").tolist() == [[0, IGNORE]]


def test_pairs_are_a_data_set_to_train_on(toy: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    shutil.copytree(toy / "data" / "images", made)
    rows = [{"file": path.name, "prompt": "One disc on the left.", "seed": 1, "model": "x"} for path in made.iterdir()]
    with open(made / "prompts.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    result = label(made, toy, tmp_path / "pairs", "--confidence", 0.5, "--sure", 0.5)
    assert result.exit_code == 0, result.output
    with open(tmp_path / "pairs" / "notes.csv", encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert {row["note"] for row in written} == {"One disc on the left."}
    assert len(written) == len(rows)
    about = json.loads((tmp_path / "pairs" / "pseudo_labels.json").read_text())
    assert (about["kept"], about["unsure"], about["failed"]) == (len(rows), 0, 0)
    again = call(
        *("train", "segmentation.fasttextdiff_tiny", "--set", f"data.root={toy / 'data'}"),
        *("--set", f"data.more={tmp_path / 'pairs'}", "--set", "training.max_steps=2", "-o", tmp_path / "run"),
    )
    assert again.exit_code == 0, again.output


def test_without_notes_none_is_written_and_a_bad_file_costs_itself_alone(toy: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy / "data", data)
    spoilt = next((data / "images").glob("case0*"))
    spoilt.write_bytes(spoilt.read_bytes()[:50])
    result = label(data, toy, tmp_path / "pairs", "--no-notes", "--confidence", 0.5, "--sure", 0)
    assert result.exit_code == 1
    assert "failed" in result.output
    with open(tmp_path / "pairs" / "notes.csv", encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert {row["note"] for row in written} == {""}
    assert len(written) == 3  # of four training images


def test_a_full_disk_ends_the_command_and_is_no_images_fault(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, mask: object) -> None:
        raise images.ImageError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("medtextdiff.api.pseudo_labelling.images.write_mask", full)
    result = label(toy / "data", toy, tmp_path / "pairs", "--confidence", 0.5, "--sure", 0)
    refused(result, "No space left")
    assert "failed" not in result.output
    assert not (tmp_path / "pairs").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--confidence", 1.0, "--sure", 1), "not one of"),
        (("--confidence", 1.5), "between 0 and 1"),
    ],
)
def test_what_cannot_be_labelled_leaves_nothing(toy: Path, tmp_path: Path, more: tuple[object, ...], told: str) -> None:
    refused(label(toy / "data" / "images", toy, tmp_path / "pairs", *more), told)
    assert not (tmp_path / "pairs").exists()


def test_sources_and_places_that_will_not_do(toy: Path, tmp_path: Path) -> None:
    refused(label(tmp_path / "nowhere", toy, tmp_path / "pairs"), "no folder")
    twins = tmp_path / "twins"
    twins.mkdir()
    for name in ("a.png", "a.jpg"):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(twins / name)
    refused(label(twins, toy, tmp_path / "pairs"), "several images are called a")
    (tmp_path / "pairs").mkdir()
    refused(label(toy / "data" / "images", toy, tmp_path / "pairs"), "exists already")
