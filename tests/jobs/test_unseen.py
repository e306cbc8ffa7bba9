"""`evaluate` knows which images the run was trained on."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtextdiff import recipes
from medtextdiff.config import override
from tests.jobs.conftest import call, write_data


def _rows(report: Path) -> list[str]:
    return [line.split(",")[0] for line in (report / "per_image.csv").read_text().splitlines()[1:]]


def _meta(report: Path) -> dict[str, str]:
    return json.loads((report / "report.json").read_text())["meta"]


@pytest.fixture
def mixed(data_dir: Path, run_dir: Path) -> tuple[Path, Path]:
    """The run, and its data after case0 and case1, which it was trained on, became validation images."""
    table = data_dir / "notes.csv"
    lines = table.read_text().splitlines()
    lines[1:3] = [line.replace(",train,", ",val,") for line in lines[1:3]]
    table.write_text("\n".join(lines) + "\n")
    return run_dir, data_dir


def test_images_trained_on_are_told_and_can_be_left_out(mixed: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = mixed
    all_of_them = call("evaluate", run, "--data", data, "-o", tmp_path / "all")
    assert all_of_them.exit_code == 0
    assert "2 of these 4 images were trained on" in all_of_them.stderr
    assert _rows(tmp_path / "all") == ["case0", "case1", "case4", "case5"]
    assert (
        _meta(tmp_path / "all")["trained on"]
        == "2 of the split's images, as far as lock.json tells, scored as well: no test"
    )
    new = call("evaluate", run, "--data", data, "--unseen", "-o", tmp_path / "new")
    assert new.exit_code == 0
    assert "were trained on" not in new.stderr
    assert _rows(tmp_path / "new") == ["case4", "case5"]
    assert _meta(tmp_path / "new")["trained on"] == "2 of the split's images, as far as lock.json tells, left out"
    assert " --unseen" in _meta(tmp_path / "new")["command"]


def test_a_split_of_nothing_new_is_refused(run_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    refused = call("evaluate", run_dir, "--data", data_dir, "--split", "train", "--unseen", "-o", out)
    assert refused.exit_code != 0
    assert "every image of split 'train'" in refused.stderr
    assert not out.exists()


def test_both_models_of_a_pair_count(mixed: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = mixed
    words = ["--data", data, "--unseen", "-o", tmp_path / "report"]
    shipped = call("evaluate", run, *words, "--against", "nuclei-small")
    assert shipped.exit_code != 0
    assert "nuclei-small has no lock.json" in shipped.stderr
    (run / "lock.json").write_text("{")
    damaged = call("evaluate", run, *words)
    assert damaged.exit_code != 0
    assert "lock.json is damaged" in damaged.stderr
    assert len(damaged.stderr.splitlines()) == 1


def test_images_of_one_name_in_two_folders_are_both_known(data_dir: Path, tmp_path: Path) -> None:
    more = write_data(tmp_path / "more")
    for path in (more / "images").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    run = tmp_path / "run"
    words = ["--set", f"data.root={data_dir}", "--set", f"data.more={more}", "-o", run]
    assert call("train", "segmentation.fasttextdiff_tiny", *words).exit_code == 0
    assert len(set(json.loads((run / "lock.json").read_text())["data"].values())) == 8
    for folder in (data_dir, more):
        told = call("evaluate", run, "--data", folder, "--split", "train", "--unseen", "-o", tmp_path / "report")
        assert "every image of split 'train'" in told.stderr


def test_a_run_does_not_go_on_with_another_note(run_dir: Path, data_dir: Path) -> None:
    lock = json.loads((run_dir / "lock.json").read_text())
    about = lock["also"]
    job = override(recipes.find("segmentation.fasttextdiff_tiny"), [f"data.root={data_dir}"]).job()
    assert job.also_read == about
    assert job.frozen.keys() == {"text"}
    assert job.frozen == lock["frozen"]
    table = data_dir / "notes.csv"
    table.write_text(table.read_text().replace("One disc on the left.", "A disc on the left.", 1))
    job = override(recipes.find("segmentation.fasttextdiff_tiny"), [f"data.root={data_dir}"]).job()
    assert [name for name in about if about[name] != job.also_read[name]] == ["mask and notes of case0"]


def test_a_run_does_not_go_on_with_other_validation_or_unlabelled_images(data_dir: Path) -> None:
    words = [f"data.root={data_dir}", 'data.subset=["case0"]', 'consistency={"weight": 1.0}']
    run = override(recipes.find("segmentation.fasttextdiff_tiny"), words)
    before = run.job().also_read
    assert sorted(name for name in before if name.startswith("validation")) == [f"validation: case{k}" for k in (4, 5)]
    table = data_dir / "notes.csv"
    table.write_text(table.read_text().replace("One disc on the right.", "A disc on the right.", 1))  # of case1
    Image.fromarray(np.zeros((40, 48), dtype=np.uint8)).save(data_dir / "masks" / "case5.png")
    after = run.job().also_read
    assert sorted(name for name in before if before[name] != after[name]) == [
        "validation: case5",
        "without labels: case1",
    ]


def test_two_masks_of_one_image_are_no_two_cases(data_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 48), 255, dtype=np.uint8)).save(data_dir / "masks" / "whole.png")
    found = data_dir / "found.csv"
    rows = [("a", "case4", "case4"), ("b", "case4", "whole"), ("c", "case5", "case5")]
    lines = [f"{name},images/{image}.png,masks/{mask}.png,val" for name, image, mask in rows]
    found.write_text("\n".join(["id,image,mask,split", *lines]) + "\n")
    done = call("evaluate", run_dir, "--data", found, "-o", tmp_path / "report")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "report" / "report.json").read_text())["summary"]["num_groups"] == 2
    groups = [line.split(",")[1] for line in (tmp_path / "report" / "per_image.csv").read_text().splitlines()[1:]]
    assert groups == ["image a", "image a", "image c"]
