"""`sensitivity` end to end: a run on one target, a run on two, and bad input."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtextdiff import api
from medtextdiff.data.sources import targets
from medtextdiff.recipes.segmentation import fasttextdiff_lungs, fasttextdiff_targets, fasttextdiff_tiny
from tests.jobs.conftest import SECRET, call, refused, told_nowhere

ASKED = {"masks_left": ("The left lung.", "Left lung"), "masks_right": ("The right lung.", "Right lung")}


def read(report: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((report / "per_image.csv").read_text().splitlines()))


def test_every_telling_is_scored(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    result = call("sensitivity", toy / "run", "--data", toy / "data", "-o", out)
    assert result.exit_code == 0, result.output
    assert "sides swapped" in result.output
    report = json.loads((out / "report.json").read_text())
    names = [line["notes"] for line in report["tellings"]]
    assert names[:3] == ["right", "none", "another image's"]
    assert len(names) == 11
    changed = {line["notes"]: line["num_changed"] for line in report["tellings"]}
    assert changed["right"] == 0
    assert changed["none"] == changed["sides swapped"] == changed["after 2,000 tokens of other text"] == 2
    rows = read(out)
    assert [row["id"] for row in rows] == ["case4", "case5"]
    assert SECRET not in result.output
    told_nowhere(out)
    again = call("sensitivity", toy / "run", "--data", toy / "data", "-o", tmp_path / "again")
    assert again.exit_code == 0
    assert (tmp_path / "again" / "per_image.csv").read_bytes() == (out / "per_image.csv").read_bytes()


def test_its_right_note_is_what_evaluate_scores(toy: Path, tmp_path: Path) -> None:
    assert call("sensitivity", toy / "run", "--data", toy / "data", "-o", tmp_path / "s").exit_code == 0
    assert call("evaluate", toy / "run", "--data", toy / "data", "-o", tmp_path / "e").exit_code == 0
    ours = [row["right (dice)"] for row in read(tmp_path / "s")]
    theirs = [row["foreground_dice"] for row in read(tmp_path / "e")]
    np.testing.assert_allclose([float(x) for x in ours], [float(x) for x in theirs], atol=1e-6)


@pytest.fixture
def chest(tmp_path: Path) -> Path:
    """Four pictures with a mask on either side; left is the patient's."""
    root = tmp_path / "chest"
    for name in ("images", *ASKED):
        (root / name).mkdir(parents=True)
    rows = ["image,mask,split"]
    for k in range(4):
        left = np.zeros((32, 48), dtype=np.uint8)
        left[8:24, 30 + k : 42] = 255
        Image.fromarray(left // 2 + left[:, ::-1] // 2 + 20).save(root / "images" / f"x{k}.png")
        Image.fromarray(left).save(root / "masks_left" / f"x{k}.png")
        Image.fromarray(left[:, ::-1].copy()).save(root / "masks_right" / f"x{k}.png")
        rows.append(f"x{k}.png,x{k}.png,{'train' if k < 2 else 'val'}")
    (root / "notes.csv").write_text("\n".join(rows) + "\n")
    return root


def test_two_targets_give_a_confusion_matrix(chest: Path, tmp_path: Path) -> None:
    run = fasttextdiff_tiny()
    data = run.data.replace(source=targets.Config(targets=ASKED, side="patient"), root=str(chest))
    api.train(run.replace(data=data), out=tmp_path / "run")
    result = call("sensitivity", tmp_path / "run", "--data", chest, "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "asked and given" in result.output
    assert "the other side was given" in result.output
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["num_records"] == 4
    assert report["num_images"] == 2
    assert set(report["by_target"]) == set(ASKED)
    assert np.sum(report["answers"]["counts"]) == 4
    assert report["answers"]["swapped"]["of"] == 4
    scored = call("evaluate", tmp_path / "run", "--data", chest, "-o", tmp_path / "scored")
    assert scored.exit_code == 0, scored.output
    assert json.loads((tmp_path / "scored" / "report.json").read_text())["summary"]["num_groups"] == 2


def test_the_recipe_reads_its_root_and_names_a_missing_folder(chest: Path, tmp_path: Path) -> None:
    recipe = "segmentation.fasttextdiff_targets"
    assert fasttextdiff_targets().data.source.side == "patient"
    refused(call("train", recipe, "-o", tmp_path / "x"), "--set data.root=DIR")
    refused(call("train", recipe, "--set", f"data.root={chest}", "-o", tmp_path / "x"), "no folder 'masks_left_lung'")
    assert not (tmp_path / "x").exists()


def test_the_recipe_of_the_lungs_asks_for_them_alone_and_as_the_recipe_of_all_targets() -> None:
    lungs, every = fasttextdiff_lungs().data.source, fasttextdiff_targets().data.source
    assert set(lungs.targets) == {"masks_left_lung", "masks_right_lung"}
    assert lungs.targets.items() <= every.targets.items()
    assert lungs.side == "patient"


def test_bad_input_gets_one_line(toy: Path, tmp_path: Path, data: Path) -> None:
    out = tmp_path / "report"
    refused(
        call("sensitivity", toy / "run", "--data", toy / "data", "--split", "vall", "-o", out), "did you mean 'val'"
    )
    refused(call("sensitivity", toy / "run", "--data", tmp_path / "no", "-o", out), "does not exist")
    refused(call("sensitivity", toy / "run", "--data", data, "--masks", "masks_x", "-o", out), "masks_x")
    table = data / "notes.csv"
    lines = [line.rpartition(",")[0] + "," for line in table.read_text().splitlines()]
    table.write_text("\n".join(["image,mask,split,note", *lines[1:]]) + "\n")
    refused(call("sensitivity", toy / "run", "--data", data, "-o", out), "no image of this split has a note")
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    refused(call("sensitivity", toy / "run", "--data", data, "-o", out, "--overwrite"), "not only a report")
