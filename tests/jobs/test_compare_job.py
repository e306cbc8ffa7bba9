"""`compare` end to end at toy size: cells are kept, gone on with, and a failing one does not stop the others."""

import json
from pathlib import Path

import pytest

from medtextdiff.api import comparing
from medtextdiff.diffusion import denoiser
from medtextdiff.recipes.segmentation import fasttextdiff_compared, fasttextdiff_tiny
from medtextdiff.text.encoders import tiny
from tests.jobs.conftest import SECRET, call, refused


@pytest.fixture
def toys(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy data, a recipe of its size, and a tiny encoder beside it."""
    full, small = fasttextdiff_compared(), fasttextdiff_tiny()
    views = full.data.augmentation.replace(crop=32, num_views=2)
    denoiser.Scratch.tiny().build().save_pretrained(tmp_path / "denoiser")
    frozen = small.model.replace(denoiser=denoiser.Config(path=str(tmp_path / "denoiser")))
    toy_run = small.replace(
        model=frozen,
        data=full.data.replace(size=40, augmentation=views),
        training=small.training.replace(max_steps=2),
        use=full.use.replace(size=40),
    )
    monkeypatch.setattr(comparing.recipes, "find", lambda name: toy_run)
    tiny.Config(layers=1).build().save_pretrained(tmp_path / "encoder")
    return toy / "data"


def test_cells_are_trained_once_and_summed_up(toys: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["compare", "--encoder", "none", "--encoder", tmp_path / "encoder", "--data", toys, "--seeds", "1"]
    result = call(*words, "-o", out)
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report" / "report.json").read_text())
    none, ours = report["sets"]["data"]["lines"]
    assert none["note_ms"] is None
    assert ours["note_ms"] > 0
    assert ours["training_s"] > 0
    assert {"difference", "p_holm", "verdict"} <= set(ours)
    scores = sorted((out / "cells").rglob("scores.json"))
    assert len(scores) == 2
    assert list((out / "bank").rglob("*.levels"))
    assert SECRET not in (out / "report" / "report.html").read_text()
    before = [path.stat().st_mtime_ns for path in scores]
    more = call(*words[:-1], "2", "--encoder", "bag-of-words", "-o", out)
    assert more.exit_code == 0, more.output
    assert [path.stat().st_mtime_ns for path in scores] == before
    assert len(list((out / "cells").rglob("scores.json"))) == 6
    report = json.loads((out / "report" / "report.json").read_text())
    assert [line["num_runs"] for line in report["sets"]["data"]["lines"]] == [2, 2, 2]


def test_a_failing_encoder_is_listed_and_the_rest_goes_on(toys: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    words = ["compare", "--encoder", "none", "--encoder", broken, "--data", toys, "--seeds", "1"]
    result = call(*words, "-o", tmp_path / "out")
    assert result.exit_code == 1, result.output
    assert f"failed: data, {broken}, seed 0" in result.stderr
    assert "no finished run" in result.output
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    assert len(report["failures"]) == 1
    assert [line["name"] for line in report["sets"]["data"]["lines"]] == ["none"]


def test_other_settings_do_not_mix(toys: Path, tmp_path: Path) -> None:
    words = ["compare", "--encoder", "none", "--encoder", "bag-of-words", "--data", toys, "--seeds", "1"]
    assert call(*words, "-o", tmp_path / "out").exit_code == 0
    refused(call(*words, "--set", "training.max_steps=3", "-o", tmp_path / "out"), "other settings or another encoder")
    refused(call(*words, "--split", "train", "-o", tmp_path / "out"), "other settings or another encoder")
    scores = next((tmp_path / "out").rglob("scores.json"))
    table = toys / "notes.csv"
    notes = table.read_text()
    table.write_text(notes.replace("right", "left"))
    assert table.read_text() != notes
    refused(call(*words, "-o", tmp_path / "out"), "of other images, masks or notes")
    table.write_text(notes)
    kept = json.loads(scores.read_text())
    del kept["made_with"]["data"]  # as earlier versions left it
    del kept["made_with"]["run"]["training"]["tensorboard"]
    scores.write_text(json.dumps(kept))
    assert call(*words, "-o", tmp_path / "out").exit_code == 0
    (tmp_path / "out" / ".report.0a1b2c3d").mkdir()  # what a kill leaves of a report
    scores.write_text("{")
    refused(call(*words, "-o", tmp_path / "out"), "is damaged")


def test_bad_input_gets_one_line(toys: Path, tmp_path: Path) -> None:
    out, two = tmp_path / "out", ("--encoder", "none", "--encoder", "bag-of-words")
    refused(call("compare", "--encoder", "none", "--data", toys, "-o", out), "two encoders or more")
    refused(call("compare", *two, "--encoder", "none", "--data", toys, "-o", out), "each named once")
    refused(call("compare", *two, "--data", tmp_path / "no", "-o", out), "does not exist")
    refused(call("compare", *two, "--data", toys, "--data", toys, "-o", out), "a folder of its own name")
    refused(call("compare", *two, "--data", toys, "--seeds", "0", "-o", out), "0 seeds")
    refused(call("compare", "--encoder", "none", "--encoder", "bagofwords", "--data", toys, "-o", out), "bag-of-words")
    refused(call("compare", *two, "--data", toys, "--split", "vall", "-o", out), "did you mean 'val'")
    for name in ("training.seed=7", "model.text.max_tokens=64", "bank.dtype=float16"):
        told = f"sets {name.split('=')[0]} itself"
        refused(call("compare", *two, "--data", toys, "--set", name, "-o", out), told)
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    refused(call("compare", *two, "--data", toys, "-o", out), "is no comparison")
