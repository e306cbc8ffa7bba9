"""Bad input, end to end: one clear line on stderr, a non-zero exit, nothing lost or half-written, no note told."""

import io
import json
import shutil
import signal
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from medtextdiff.api import segmenting
from medtextdiff.data import images
from medtextdiff.data.errors import DataError
from medtextdiff.training.progress import Progress
from medtextdiff.types import IGNORE
from tests.jobs.conftest import RECIPE, SECRET, call, half, refused, rewrite, told_nowhere

RGB = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


# --- images -----------------------------------------------------------------------------------------------------------


def encoded(kind: str, pixels: np.ndarray = RGB, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def declared(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is huge."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


NAN = np.full((8, 8), np.nan, dtype=np.float32)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.png", None, "does not exist"),
        ("empty.png", b"", "is empty"),
        ("cut.png", half(encoded("PNG")), "damaged or cut off"),
        ("cut.jpg", half(encoded("JPEG")), "damaged or cut off"),
        ("cut.tif", half(encoded("TIFF")), "damaged or cut off"),
        ("text.png", SECRET.encode(), "is not a PNG"),
        ("scan.pdf", b"%PDF-1.4", "is not a PNG"),
        ("huge.png", declared(20_000, 20_000), "more than the limit"),
        ("bomb.png", declared(9_000, 9_000), "damaged or cut off"),
        ("nan.tif", tiff(NAN), "NaN"),
        ("pages.tif", tiff(np.zeros((5, 9, 9), np.uint8), photometric="minisblack"), "5 pages"),
    ],
)
def test_a_bad_image_is_told_and_nothing_is_written(
    name: str, content: bytes | None, says: str, toy: Path, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = call("segment", tmp_path / name, "-m", toy / "run", "-o", tmp_path / "out", "--note", SECRET, "--page")
    refused(result, says, code=1)
    assert result.stderr.count(str(tmp_path / name)) == 1
    assert not (tmp_path / "out").exists()


def test_odd_images_are_read_and_get_masks_of_their_own_size(toy: Path, tmp_path: Path) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (40, 50, 3), dtype=np.uint16)
    turned = Image.Exif()
    turned[274] = 6
    odd = {
        "one.png": encoded("PNG", RGB[:1, :1]),
        "thin.png": encoded("PNG", np.repeat(RGB, 8, axis=0)[:, :3]),
        "deep.png": encoded("PNG", deep[:, :, 0]),
        "deep_rgb.tif": tiff(deep, photometric="rgb"),
        "clear.png": encoded("PNG", np.dstack([RGB, RGB[:, :, 0]])),
        "float.tif": tiff(RGB[:, :, 0].astype(np.float32) / 255),
        "turned.jpg": encoded("JPEG", exif=turned),
        "Ünï cøde 图 .png": encoded("PNG"),
    }
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in odd.items():
        (folder / name).write_bytes(content)
    Image.fromarray(RGB).quantize(8).save(folder / "palette.png")
    Image.fromarray(RGB).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(RGB).convert("1").save(folder / "bits.png")
    result = call("segment", folder, "-m", toy / "run", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    sizes = {path.name: images.read_mask(path).shape for path in (tmp_path / "out").glob("*_mask.png")}
    others = {"one_mask.png": (1, 1), "thin_mask.png": (320, 3), "turned_mask.png": (50, 40)}
    assert sizes == {f"{Path(name).stem}_mask.png": (40, 50) for name in [*odd, "palette", "cmyk", "bits"]} | others


def test_one_bad_image_does_not_stop_the_others(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy / "data" / "images", tmp_path / "in")
    (tmp_path / "in" / "case0.png").write_bytes(b"x")
    result = call("segment", tmp_path / "in", "-m", toy / "run", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "1 of 6 images failed" in result.stderr
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (len(written["results"]), len(written["failures"])) == (5, 1)
    assert len(list((tmp_path / "out").glob("*_mask.png"))) == 5


def test_images_are_named_once_and_folders_hold_some(toy: Path, tmp_path: Path) -> None:
    image, out = toy / "data" / "images" / "case0.png", tmp_path / "out"
    (tmp_path / "folder.png").mkdir()
    refused(call("segment", image, image.parent, "-m", toy / "run", "-o", out), "would be segmented twice")
    refused(call("segment", tmp_path / "folder.png", "-m", toy / "run", "-o", out), "holds no image")
    assert not out.exists()
    for name in ("a.png", "a.jpg"):
        (tmp_path / name).write_bytes(encoded("PNG"))
    done = call("segment", tmp_path / "a.png", tmp_path / "a.jpg", "-m", toy / "run", "-o", out)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == ["a_jpg_mask.png", "a_png_mask.png", "result.json"]


# --- notes ------------------------------------------------------------------------------------------------------------


def sheet(breaking: str) -> bytes:
    """A workbook in which one thing is broken."""
    import openpyxl

    book, file = openpyxl.Workbook(), io.BytesIO()
    book.worksheets[0].append(["image", "note"])
    book.worksheets[0].append(["case0.png", SECRET])
    book.save(file)
    broken = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(broken, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"<a><b" if breaking in name else old.read(name))
    return broken.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("n.csv", f"image,nots\ncase0.png,{SECRET}\n", "rename 'nots' to 'note'"),
        ("n.csv", f"{SECRET} on the left,x\ncase0.png,{SECRET}\n", "add a header line"),
        ("n.csv", f"image,note\nother.png,{SECRET}\n", "has no row for 1 images"),
        ("n.csv", f"image,note\ncase0.png,{SECRET}\ncase0.png,other\n", "several notes"),
        ("n.csv", "image,note\n", "no rows below its header"),
        ("n.csv", "", "is empty"),
        ("n.csv", f"image,note\ncase0.png,{SECRET} caf\xe9\n".encode("cp1252"), "is not UTF-8"),
        ("n.csv", f"image,note\ncase0.png,{SECRET}, more\n", "a note with a comma needs quotes"),
        ("n.csv", f'image,note\ncase0.png,"{SECRET}\n', "check its quotes"),
        ("n.csv", f"image;note\ncase0.png;{SECRET}; more\n", "a note with a semicolon needs quotes"),
        ("n.xlsx", SECRET, "damaged or not an .xlsx"),
        ("n.xlsx", sheet("sheet1"), "damaged or not an .xlsx"),
        ("n.xlsx", sheet("workbook"), "damaged or not an .xlsx"),
        ("n.jsonl", f'{{"image": "case0.png", "note": "{SECRET}"}}\n{{"image": {SECRET}\n', "line 2: not JSON"),
        ("n.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("n.jsonl", f'{{"image": "case0.png", "note": ["{SECRET}"]}}', "is a list or object"),
        ("n.txt", SECRET, "must end in .csv"),
        ("n.csv", None, "does not exist"),
    ],
)
def test_a_bad_table_of_notes_is_told(name: str, content: Any, says: str, toy: Path, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    image = toy / "data" / "images" / "case0.png"
    refused(call("segment", image, "-m", toy / "run", "-o", tmp_path / "out", "--notes", tmp_path / name), says)
    assert not (tmp_path / "out").exists()


def test_an_image_gets_its_own_note_or_none_is_taken(tmp_path: Path) -> None:
    table = tmp_path / "n.csv"
    paths = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"]
    table.write_text("image,note\nb/x.png,of b\nx.png,of a\n")
    assert segmenting._notes(paths, None, table) == ["of a", "of b"]
    table.write_text("image,note\nelsewhere/x.png,of x\n")
    assert segmenting._notes(paths[:1], None, table) == ["of x"]
    table.write_text("image,note\nx.png,of which?\n")
    with pytest.raises(DataError, match="line 2 fits both"):
        segmenting._notes(paths, None, table)
    table.write_text("image,note\nc/x.png,of c\nd/x.png,of d\n")
    with pytest.raises(DataError, match="several notes"):
        segmenting._notes(paths[:1], None, table)


@pytest.mark.parametrize(
    "note", ["", "  ", f"{SECRET} " * 600, "Ελληνικά 中文 العربية 😀", "nul\0 bell\x07\r\nnew line\u2028"]
)
def test_odd_notes_are_taken_and_never_written(note: str, toy: Path, tmp_path: Path) -> None:
    image = toy / "data" / "images" / "case0.png"
    result = call("segment", image, "-m", toy / "run", "-o", tmp_path / "out", "--note", note, "--page", "--overlay")
    assert result.exit_code == 0, result.output
    assert SECRET not in result.output
    told_nowhere(tmp_path / "out")


def test_notes_are_nowhere_in_a_run_or_report(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told_nowhere(toy / "run")
    monkeypatch.setattr(sys, "argv", ["server", "--note", SECRET])
    done = call("evaluate", toy / "run", "--data", toy / "data", "-o", tmp_path / "report", "--notes", "wrong")
    assert done.exit_code == 0, done.output
    told_nowhere(tmp_path / "report")
    assert "--notes wrong" in json.loads((tmp_path / "report" / "report.json").read_text())["meta"]["command"]


# --- training ---------------------------------------------------------------------------------------------------------


def blank(data: Path, *names: str, size: tuple[int, int] = (40, 48), value: int = 0) -> None:
    for name in names:
        Image.fromarray(np.full(size, value, np.uint8)).save(data / "masks" / name)


def uncounted(data: Path, name: str) -> None:
    images.write_mask(data / "masks" / name, np.full((40, 48), IGNORE), overwrite=True)


CASES = [f"case{k}.png" for k in range(6)]


@pytest.mark.parametrize(
    ("spoil", "settings", "says"),
    [
        (lambda d: blank(d, "case1.png", size=(9, 9)), [], "its image 48 x 40"),
        (lambda d: blank(d, "case1.png", value=7), ["data.foreground=ids"], "its mask has class 7"),
        (lambda d: blank(d, *CASES), [], "masks marks anything"),
        (lambda d: uncounted(d, "case4.png"), [], "record 'case4': every pixel of its mask is 255"),
        (lambda d: rewrite(d, ",case", ","), [], "row"),
        (lambda d: rewrite(d, ",val,", ",train,"), [], "--set data.val_split=null"),
        (lambda d: (d / "masks" / "case5.png").write_bytes(b"x"), [], "case5.png is not a PNG"),
        (lambda d: (d / "images" / "case2.png").write_bytes(b"x"), [], "case2.png is not a PNG"),
        (lambda d: (d / "images" / "case2.png").unlink(), [], "1 rows name an image that is not there"),
        (lambda d: rewrite(d, "image,mask,split,note", "note,mask,split,image"), [], "not the name of an image"),
        (lambda d: shutil.rmtree(d / "images"), [], "fits no known layout"),
        (lambda d: shutil.rmtree(d), [], "does not exist"),
        (lambda d: None, ["data.subset=case0,nope"], "the subset names 'nope', but no record has that id; name"),
        (lambda d: None, ["data=x"], "is a group of settings"),
        (lambda d: None, ["training.max_steps=0"], "greater than or equal to 1"),
        (lambda d: None, ["training.learning_rate=-1"], "greater than 0"),
        (lambda d: None, ["training.learning_rate=inf"], "finite"),
        (lambda d: None, ["training.precision=fp8"], "'float32', 'bf16'"),
        (lambda d: None, ["training.monitor=accuracy"], "has: dice"),
        (lambda d: None, ["training.max_step=3"], "did you mean 'max_steps'"),
        (lambda d: None, ["model.head=pyramids"], "did you mean 'pyramid'"),
    ],
)
def test_bad_data_and_settings_are_told_before_the_first_step(
    spoil: Callable[[Path], Any], settings: list[str], says: str, data: Path, tmp_path: Path
) -> None:
    spoil(data)
    words = [word for setting in [f"data.root={data}", *settings] for word in ("--set", setting)]
    refused(call("train", RECIPE, *words, "-o", tmp_path / "new"), says)
    assert not (tmp_path / "new").exists()


def test_a_mask_that_counts_nowhere_is_told_before_the_first_image_is_scored(
    data: Path, toy: Path, tmp_path: Path
) -> None:
    uncounted(data, "case5.png")  # the last one
    words = ["evaluate", toy / "run", "--data", data, "-o", tmp_path / "report"]
    result = call(*words)
    refused(result, "record 'case5': every pixel of its mask is 255")
    assert not (tmp_path / "report").exists()


def test_a_stopped_run_is_resumed_as_it_was_or_not_at_all(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, first = tmp_path / "new", ["train", RECIPE, "--set", f"data.root={toy / 'data'}"]
    show = Progress.show

    def stopping(self: Progress, step: int, loss: float) -> None:
        show(self, step, loss)
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "show", stopping)
        result = call(*first, "-o", out)
    assert result.exit_code == 2
    assert "run the same command again to go on" in result.stderr
    for setting, name in (("data.augmentation.flips=false", "flips"), ("training.seed=1", "seed")):
        changed = call(*first, "--set", setting, "-o", out)
        assert changed.exit_code == 2
        assert f"{name}=" in changed.stderr
        assert "choose another run folder" in changed.stderr
    state = next((out / "checkpoints").glob("step_*")) / "model.safetensors"
    whole = state.read_bytes()
    state.write_bytes(half(whole))
    refused(call(*first, "-o", out), "is truncated or was changed")
    state.write_bytes(whole)
    done = call(*first, "-o", out)
    assert done.exit_code == 0, done.output
    refused(call(*first, "-o", out), "holds a finished run")
    told_nowhere(out)


def test_a_loss_that_is_no_number_ends_the_run_and_the_next_start_is_a_new_one(toy: Path, tmp_path: Path) -> None:
    out, first = tmp_path / "new", ["train", RECIPE, "--set", f"data.root={toy / 'data'}"]
    wild = ["--set", "training.learning_rate=1e30", "--set", "training.clip_norm=null"]
    refused(call(*first, *wild, "--set", "training.validate_every=100", "-o", out), "the loss of step")
    done = call(*first, "--set", "training.max_steps=1", "-o", out)
    assert done.exit_code == 0, done.output
    assert json.loads((out / "lock.json").read_text())["config"]["training"]["learning_rate"] < 1


def test_a_folder_of_somebody_is_not_trained_into(toy: Path, tmp_path: Path) -> None:
    first = ["train", RECIPE, "--set", f"data.root={toy / 'data'}"]
    (tmp_path / "config.json").write_text("mine")
    refused(call(*first, "-o", tmp_path), "'config.json' would be replaced")
    refused(call(*first, "-o", tmp_path / "config.json"), "is a file")
    refused(call(*first, "-o", tmp_path / "config.json" / "run"), "is a file")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
