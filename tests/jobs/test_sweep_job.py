"""`medtextdiff sweep`: settings of a tiny generator side by side, stopped and gone on with."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medtextdiff.api.sampling_sweep import Setting
from medtextdiff.synthesis.extractors import denoiser
from tests.jobs.conftest import call, refused
from tests.jobs.made_up_endoscopy import write_real


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data`, a generator's run `run`, and a tiny denoiser `features`."""
    root = tmp_path_factory.mktemp("world")
    write_real(root / "data")
    denoiser.Config.tiny(root / "features")
    data = ("--set", f"data.root={root / 'data'}")
    done = call("train", "synthesis.autoencoder_tiny", *data, "-o", root / "ae")
    assert done.exit_code == 0, done.output
    path = ("--set", f"model.autoencoder.path={root / 'ae'}")
    done = call("train", "synthesis.msdm_tiny", *data, *path, "-o", root / "run")
    assert done.exit_code == 0, done.output
    return root


def sweep(world: Path, out: Path, *words: object, data: Path | None = None) -> Any:
    return call(
        "sweep", world / "run", "--data", data or world / "data", "--extractor", world / "features",
        "--set", "taps=0,1", "--set", "size=32", "-o", out, *words,
    )  # fmt: skip


def test_one_split_serves_as_both_sides(world: Path, tmp_path: Path) -> None:
    done = sweep(world, tmp_path / "one", "--split", "train", "--train-split", "train", "--steps", "2")
    assert done.exit_code == 0, done.output
    [floor] = json.loads((tmp_path / "one" / "report" / "report.json").read_text())["reference"]
    assert floor["images"] == 20  # a third of 60


def test_one_thing_changes_at_a_time_and_finished_rows_are_kept(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    done = sweep(world, out, "--guidance", "1,2", "--steps", "2")
    assert done.exit_code == 0, done.output
    report = json.loads((out / "report" / "report.json").read_text())
    asked = [tuple(row["setting"].values()) for row in report["rows"]]
    assert asked == [("dpm++", 4, 2.0), ("dpm++", 4, 1.0), ("dpm++", 2, 2.0)]  # guidance 2 is the run's own
    for row in report["rows"]:
        assert row["images"] == 24
        assert row["figures"]["fid"]["low"] <= row["figures"]["fid"]["mean"] <= row["figures"]["fid"]["high"]
        assert {line["name"] for line in row["adherence"]} >= {"procedure"}
    figures = [row["figures"]["fid"]["mean"] for row in report["rows"]]
    assert len(set(figures)) == 3
    with open(out / "report" / "table.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["fid_mean"]) for line in lines[1:]] == pytest.approx(figures)
    assert (lines[0]["images_are"], lines[0]["sampler"]) == ("real, trained on (the floor)", "")
    assert {(line["images_are"], line["sampler"]) for line in lines[1:]} == {("generated", "dpm++")}
    assert float(lines[0]["fid_mean"]) < min(figures)
    assert report["meta"]["extractor sha256"]
    assert "guidance 1" in (out / "report" / "report.html").read_text()
    kept = out / "rows" / "dpm++-4-2.json"
    before = kept.stat().st_mtime_ns
    done = sweep(world, out, "--samplers", "ddim")
    assert done.exit_code == 0, done.output
    assert kept.stat().st_mtime_ns == before
    rows = json.loads((out / "report" / "report.json").read_text())["rows"]
    assert [row["setting"]["sampler"] for row in rows] == ["dpm++", "ddim"]
    assert rows[0] == report["rows"][0]
    refused(sweep(world, out, "--steps", "2", "-n", "20"), "another model, data set or option")
    kept.write_text("{")
    refused(sweep(world, out, "--steps", "2"), "is damaged; delete it")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "own setting alone"),
        (("--guidance", "2"), "own setting alone"),
        (("--guidance", "much"), "guidance values are numbers"),
        (("--guidance", "99"), "guidance must be from"),
        (("--steps", "1.5"), "steps are whole numbers"),
        (("--steps", "0"), "steps must be from 1"),
        (("--samplers", "eulr"), "did you mean 'euler'"),
        (("--steps", "2", "--split", "test"), "no split 'test'"),
        (("--steps", "2", "-n", "3"), "-n 3 is too few"),
        (("--steps", "2", "--fit", "corp"), "no fit 'corp'"),
        (("--steps", "2", "--seeds", "0,0"), "each seed once"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_made(
    words: tuple[str, ...], says: str, world: Path, tmp_path: Path
) -> None:
    refused(sweep(world, tmp_path / "sweep", *words), says)
    assert not (tmp_path / "sweep").exists()


def test_each_setting_has_a_file_of_its_own():
    names = [Setting("dpm++", 4, guidance).name for guidance in (1.0, 1.0000001, 2.5)]
    assert names == ["dpm++-4-1", "dpm++-4-1.0000001", "dpm++-4-2.5"]


def test_an_image_that_cannot_be_read_is_told_before_the_work(world: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(world / "data", tmp_path / "data"))
    (data / "images" / "r003.png").write_bytes(b"no image")
    out = tmp_path / "sweep"
    result = sweep(world, out, "--steps", 2, data=data)
    assert result.exit_code != 0
    assert "r003.png" in result.output
    assert "generated" not in result.output
    assert not out.exists()


def test_rows_of_images_that_have_changed_since_are_refused(world: Path, tmp_path: Path) -> None:
    data, out = Path(shutil.copytree(world / "data", tmp_path / "data")), tmp_path / "sweep"
    assert sweep(world, out, "--steps", 2, data=data).exit_code == 0
    images = sorted((data / "images").iterdir())
    images[0].write_bytes(images[1].read_bytes())
    refused(sweep(world, out, "--steps", 2, data=data), "another model, data set or option")


def test_a_folder_of_something_else_stays(world: Path, tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_text("of the system")
    (tmp_path / "notes.txt").write_text("mine")
    refused(sweep(world, tmp_path, "--steps", "2"), "is no sweep (it has notes.txt)")
