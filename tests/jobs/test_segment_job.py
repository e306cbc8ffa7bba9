"""Train, segment, evaluate, take features: each main job through the CLI, on made-up data."""

import errno
import json
import os
import shutil
import time
import unicodedata
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import medtextdiff
from medtextdiff.api import segmenting
from medtextdiff.api.model import Model, Result
from medtextdiff.data.errors import DataError, ImageError
from medtextdiff.text.encoders import tiny
from tests.jobs.conftest import call


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_run_folder_is_complete(run_dir: Path) -> None:
    names = {path.name for path in run_dir.iterdir()}
    assert {"config.json", "lock.json", "manifest.json", "metrics.jsonl", "denoiser", "head"} <= names
    lock = json.loads((run_dir / "lock.json").read_text())
    assert len(lock["data"]) == 4
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert any("dice" in key for line in lines for key in line)


def test_segment_a_folder_with_a_table(run_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = call(
        "segment", data_dir / "images", "--notes", data_dir / "notes.csv", "--model", run_dir, "-o", out,
        "--overlay", "--probabilities", "--page",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    mask = pixels(out / "case0_mask.png")
    assert mask.shape == (40, 48)
    assert pixels(out / "case0_overlay.png").shape == (40, 48, 3)
    assert pixels(out / "case0_probability.png").shape == (40, 48)
    written = json.loads((out / "result.json").read_text())
    assert len(written["results"]) == 6
    assert "One disc" not in (out / "result.json").read_text() + (out / "result.html").read_text()
    assert written["results"][0]["foreground_percent"] == pytest.approx(100 * (mask > 0).mean(), abs=0.01)


def test_near_misses_of_names(tmp_path: Path) -> None:
    table, image = tmp_path / "notes.csv", Path("data/A/Präp.png")
    for name in (unicodedata.normalize("NFD", "Präp.png"), "A\\Präp.png"):
        table.write_text(f"image,note\n{name},x\n", encoding="utf-8")
        assert segmenting._notes([image], None, table) == ["x"]
    table.write_text("image,note\nPräp,x\nother.png,y\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2 is the first of 2 that name none of the images, and a name needs its"):
        segmenting._notes([image], None, table)


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (["A/1.png", "A/2.png", "B/1.png", "B/2.png"], ["A/1.png", "A/2.png"]),
        (["1.png", "2.png"], ["1.png", "2.png"]),
        (["x/1.png", "2.png"], ["x/1.png", "2.png"]),  # the folder was moved
        (["A/1.png", "2.png"], ["A/1.png", "2.png"]),
        (["2.png", "data/A/1.png", "1.png", "x/2.png"], ["data/A/1.png", "2.png"]),
        (["A/1.png", "B/1.png", "B/2.png"], None),  # B/2.png is another person's, maybe
        (["A/1.png", "", "/"], None),
    ],
)
def test_an_image_gets_no_note_of_another_folder(rows: list[str], found: list[str] | None, tmp_path: Path) -> None:
    table = tmp_path / "notes.csv"
    table.write_text("image,note\n" + "".join(f"{name},{name}\n" for name in rows))
    paths = [Path("data/A/1.png"), Path("data/A/2.png")]
    if found is None:
        with pytest.raises(DataError, match=r"has no row for 1 images \(2.png\)"):
            segmenting._notes(paths, None, table)
    else:
        assert segmenting._notes(paths, None, table) == found


def test_many_images_find_their_notes_soon(tmp_path: Path) -> None:
    table, names = tmp_path / "notes.csv", [f"{k:05d}.png" for k in range(20_000)]
    table.write_text("image,note\n" + "".join(f"{name},{name}\n" for name in names))
    begun = time.monotonic()
    paths = segmenting._paths([Path("images") / name for name in names])
    assert segmenting._notes(paths, None, table) == names
    assert segmenting._names(paths)[-1] == "19999"
    assert time.monotonic() - begun < 30  # comparing each with each took minutes


def test_a_batch_goes_on_past_a_bad_file(run_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "images" / "case1.png").write_bytes(b"")
    result = call("segment", data_dir / "images", "--model", run_dir, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert len(list((tmp_path / "out").glob("*_mask.png"))) == 5
    assert "1 of 6 images failed" in result.output
    assert "case1.png" in result.output


def test_a_page_of_many_images_does_not_keep_their_arrays(
    run_dir: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, segment = [], Model.segment

    def remembered(*arguments: Any, **options: Any) -> Result:
        result = segment(*arguments, **options)
        masks.append(weakref.ref(result.mask))
        return result

    monkeypatch.setattr(Model, "segment", remembered)
    kept: list[int] = []
    monkeypatch.setattr(segmenting, "result_page", lambda *_, **__: kept.append(sum(m() is not None for m in masks)))
    done = call("segment", data_dir / "images", "--model", run_dir, "-o", tmp_path / "out", "--page")
    assert done.exit_code == 0, done.output
    assert len(masks) == 6
    assert kept == [1]  # the last one's


def test_a_page_that_finds_the_disk_full_is_named(
    run_dir: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segmenting, "result_page", full)
    out = tmp_path / "out"
    done = call("segment", data_dir / "images", "--model", run_dir, "-o", out, "--page")
    assert done.exit_code == 2
    assert f"error: cannot write {out / 'result.html'}: No space left on device" in done.output
    assert len(json.loads((out / "result.json").read_text())["results"]) == 6


def test_no_image_is_replaced_by_the_mask_of_another(run_dir: Path, data_dir: Path) -> None:
    folder = data_dir / "images"
    drawn = folder / "case0_mask.png"
    shutil.copy(data_dir / "masks" / "case0.png", drawn)
    before = drawn.read_bytes()
    result = call("segment", folder, "--model", run_dir, "-o", folder, "--overwrite")
    assert result.exit_code == 2
    assert "case0_mask.png would be written, but is one of the images" in result.output
    assert drawn.read_bytes() == before


def test_an_image_whose_logits_do_not_fit_in_memory_leaves_nothing(
    run_dir: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise ImageError("the image does not fit in the memory of cpu")

    monkeypatch.setattr(Model, "logits", full)
    image, out = data_dir / "images" / "case0.png", tmp_path / "out"
    result = call("segment", image, "--model", run_dir, "-o", out, "--save-logits", tmp_path / "x.npy")
    assert result.exit_code == 1
    assert "does not fit" in result.output
    assert not out.exists()
    assert call("segment", image, "--model", run_dir, "-o", out).exit_code == 0


def test_outputs_are_kept_unless_overwrite(run_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    image, out = data_dir / "images" / "case0.png", tmp_path / "out"
    assert call("segment", image, "--model", run_dir, "-o", out).exit_code == 0
    before = (out / "case0_mask.png").read_bytes()
    again = call("segment", image, "--model", run_dir, "-o", out, "--note", "left")
    assert again.exit_code == 2
    assert "exists" in again.output
    assert (out / "case0_mask.png").read_bytes() == before
    assert call("segment", image, "--model", run_dir, "-o", out, "--overwrite").exit_code == 0


def test_evaluate_writes_a_report_and_compares(run_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    result = call(
        *("evaluate", run_dir, "--data", data_dir, "-o", out, "--against", run_dir),
        *("--as-published", "--notes", "wrong", "--precision", "bf16"),
    )
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text())
    assert "--as-published --precision bf16" in report["meta"]["command"]
    assert report["summary"]["num_images"] == 2
    assert {"foreground", "as_published"} <= report["summary"]["regions"].keys()
    assert (out / "report.html").is_file()
    assert len((out / "per_image.csv").read_text().splitlines()) == 3


def test_what_is_not_counted_is_left_out_of_the_published_score_too(
    run_dir: Path, data_dir: Path, tmp_path: Path
) -> None:
    table = data_dir / "notes.csv"
    table.write_text(table.read_text().replace("case5.png,case5.png,val", "case5.png,case5.png,other"))
    mask = (
        medtextdiff.load(run_dir)
        .segment(data_dir / "images" / "case4.png", "One disc on the left.")
        .mask.astype(np.uint8)
    )
    mask[:, 24:] = 255
    paletted = Image.fromarray(mask, mode="P")
    paletted.putpalette([0, 0, 0, 200, 0, 0] + [90] * 762)
    paletted.save(data_dir / "masks" / "case4.png")
    result = call("evaluate", run_dir, "--data", data_dir, "-o", tmp_path / "report", "--as-published")
    assert result.exit_code == 0, result.output
    regions = json.loads((tmp_path / "report" / "report.json").read_text())["summary"]["regions"]
    assert regions["foreground"]["dice"]["mean"] == 1
    assert regions["as_published"]["dice"]["mean"] > 0.8  # its mask grows


def test_features_are_the_levels(run_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "levels.safetensors"
    assert call("features", data_dir / "images" / "case0.png", "--model", run_dir, "-o", out).exit_code == 0
    levels = load_file(out)
    assert sorted(levels) == ["level_0", "level_1"]
    assert all(np.isfinite(level).all() for level in levels.values())


def test_python_encode_once_decode_many(run_dir: Path, data_dir: Path) -> None:
    model = medtextdiff.load(run_dir, precision="float32")
    image = data_dir / "images" / "case0.png"
    encoded = model.encode(image)
    for note in ("", "One disc on the left."):
        whole = model.segment(image, note)
        parts = model.decode(encoded, note)
        np.testing.assert_allclose(parts.probabilities, whole.probabilities, atol=1e-5)


@pytest.mark.parametrize("damage", ["missing", "tampered", "config"])
def test_a_damaged_run_is_refused_in_one_line(run_dir: Path, data_dir: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    weights = copy / "head" / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "tampered":
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    else:
        (copy / "config.json").write_text((copy / "config.json").read_text().replace("medtextdiff.data", "os.data"))
    result = call("segment", data_dir / "images" / "case0.png", "--model", copy, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1
    assert result.output.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_training_twice_into_one_folder_is_refused(run_dir: Path, data_dir: Path) -> None:
    again = call("train", "segmentation.fasttextdiff_tiny", "--set", f"data.root={data_dir}", "-o", run_dir)
    assert again.exit_code == 2
    assert "finished run" in again.output


def test_a_packed_run_is_small_and_segments_alike(run_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    assert call("pack", run_dir, "-o", packed).exit_code == 0
    assert not (packed / "checkpoints").exists()
    assert str(data_dir) not in (packed / "config.json").read_text()
    weights = "denoiser/diffusion_pytorch_model.safetensors"
    assert (packed / weights).stat().st_size < 0.6 * (run_dir / weights).stat().st_size
    image = data_dir / "images" / "case0.png"
    found, expected = (
        medtextdiff.load(run, precision="float32").segment(image).probabilities for run in (packed, run_dir)
    )
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_what_was_done_is_told_when_a_person_stops_it(
    run_dir: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medtextdiff.api import segmenting

    real, done = segmenting._segment_one, []

    def stopped_at_the_third(*given):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(given[1].name)
        return real(*given)

    monkeypatch.setattr(segmenting, "_segment_one", stopped_at_the_third)
    out = tmp_path / "out"
    result = call("segment", data_dir / "images", "--model", run_dir, "--page", "-o", out)
    assert result.exit_code == 130
    assert [Path(line["image"]).name for line in json.loads((out / "result.json").read_text())["results"]] == done
    assert len(list(out.glob("*_mask.png"))) == 2
    assert (out / "result.html").exists()


def test_a_model_is_evaluated_as_it_would_be_used_otherwise(run_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    words = ["evaluate", run_dir, "--data", data_dir, "--set", "use.tile=32", "--set", "use.flips=true"]
    result = call(*words, "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    command = json.loads((tmp_path / "report" / "report.json").read_text())["meta"]["command"]
    assert "--set use.tile=32 --set use.flips=true" in command
    refused = call("evaluate", run_dir, "--data", data_dir, "--set", "training.seed=1", "-o", tmp_path / "other")
    assert refused.exit_code == 2
    assert "only settings of use.*" in refused.stderr


def test_a_page_is_written_whatever_the_letters_of_a_name(run_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    odd = os.fsencode(data_dir / "images") + b"/latin\xe9.png"
    shutil.copy(data_dir / "images" / "case0.png", odd)
    done = call("segment", data_dir / "images", "--model", run_dir, "-o", tmp_path / "out", "--page")
    assert done.exit_code == 0, done.output
    assert "latin" in (tmp_path / "out" / "result.html").read_text()
    assert len(json.loads((tmp_path / "out" / "result.json").read_text())["results"]) == 7


def test_a_path_from_here_is_none_within_the_run(
    run_dir: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = tiny.Config().build()
    encoder.save_pretrained("words")
    told = '{"kind": "medtextdiff.text.encoders.huggingface", "path": "./words"}'
    words = ["train", "segmentation.fasttextdiff_tiny", "--set", f"data.root={data_dir}", "--set", f"model.text={told}"]
    assert call(*words, "--set", "training.max_steps=1", "-o", "second").exit_code == 0
    assert medtextdiff.load("second").segment(data_dir / "images" / "case0.png", "a note").mask.shape == (40, 48)
