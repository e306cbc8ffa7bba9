"""Bad runs, checkpoints, options and disks, end to end: one clear line, nothing lost or half-written, no code run."""

import errno
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from medtextdiff.recipes import run_folder
from medtextdiff.training import disk
from tests.jobs.conftest import RECIPE, SECRET, call, half, refused, rewrite

# --- runs -------------------------------------------------------------------------------------------------------------


def sealed_again(run: Path) -> None:
    names = json.loads((run / "manifest.json").read_text())["files"]
    hashes = {name: disk.sha256(run / name) for name in names}
    (run / "manifest.json").write_text(json.dumps({"files": hashes}))


def configured(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads((run / "config.json").read_text())
    change(value)
    (run / "config.json").write_text(json.dumps(value))
    sealed_again(run)


def cut(path: Path) -> None:
    path.write_bytes(half(path.read_bytes()))


def poisoned(run: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = run / "head" / "model.safetensors"
    save_file({name: torch.full_like(value, torch.nan) for name, value in load_file(path).items()}, path)
    sealed_again(run)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda r: (r / "config.json").unlink(), "has no config.json"),
        (lambda r: (r / "manifest.json").unlink(), "is no finished run"),
        (lambda r: (r / "head" / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda r: cut(r / "config.json"), "its SHA-256 differs"),
        (lambda r: cut(r / "manifest.json"), "manifest.json is damaged"),
        (lambda r: cut(r / "head" / "model.safetensors"), "its SHA-256 differs"),
        (lambda r: (r / "manifest.json").write_text("[" * 100_000), "manifest.json is damaged"),
        (lambda r: (r / "manifest.json").write_text('{"files": {"../x": "0"}}'), "outside the run folder"),
        (lambda r: (r / "manifest.json").write_text('{"files": {"/etc/passwd": "0"}}'), "outside the run folder"),
        (lambda r: configured(r, lambda c: c["model"].update(kind="antigravity")), "outside medtextdiff"),
        (lambda r: configured(r, lambda c: c["model"].update(kind="medtextdiff.cli")), "no such part"),
        (lambda r: configured(r, lambda c: c.update(model={"kind": "medtextdiff.data.augment"})), "is no segmenter"),
        (lambda r: configured(r, lambda c: c["model"]["head"].update(width=32)), "does not fit the model"),
        (lambda r: configured(r, lambda c: c["use"].update(tile=0)), "greater than 0"),
    ],
)
def test_a_spoilt_run_is_refused(spoil: Callable[[Path], Any], says: str, run: Path, toy: Path, tmp_path: Path) -> None:
    spoil(run)
    refused(call("segment", toy / "data" / "images" / "case0.png", "-m", run, "-o", tmp_path / "out"), says)
    assert not (tmp_path / "out").exists()
    assert "antigravity" not in sys.modules


def test_weights_that_are_no_numbers_give_no_mask(run: Path, toy: Path, tmp_path: Path) -> None:
    poisoned(run)
    result = call("segment", toy / "data" / "images" / "case0.png", "-m", run, "-o", tmp_path / "out")
    refused(result, "values that are no numbers", code=1)
    assert not (tmp_path / "out").exists()


class Code:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.trace), "w")


@pytest.mark.parametrize("form", ["zip", "legacy", "plain", "oldest"])
def test_code_in_a_checkpoint_never_runs(form: str, tmp_path: Path) -> None:
    trace, path, out = tmp_path / "it-ran", tmp_path / "x.pt", tmp_path / "out"
    content = {"weight": torch.ones(2), "code": Code(trace)}
    if form in ("zip", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    else:
        path.write_bytes(pickle.dumps({"code": Code(trace)}, protocol=0 if form == "oldest" else 4))
    good = tmp_path / "head.pth"
    torch.save({"weight": torch.ones(2)}, good)
    refused(call("convert", "adm", path, "-o", out), "a pickle with code in it")
    rest = ["--text", tmp_path, "--config", "monuseg", "-o", out]
    refused(call("import-published", "--adm", good, "--head", path, *rest), "a pickle with code in it")
    refused(call("import-published", "--adm", good, "--head", good, *rest), "not the published head")
    assert sorted(tmp_path.iterdir()) == [good, path]


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["segment", "IMAGE", "--mode", "foo"], "give resize or tiles"),
        (["segment", "IMAGE", "--precision", "fp8"], "give auto, float32 or bf16"),
        (["segment", "IMAGE", "--device", "mps"], "give auto, cpu, cuda"),
        (["segment", "IMAGE", "IMAGES/case1.png", "--save-logits", "x.npy"], "takes one image"),
        (["segment", "IMAGE", "--save-logits", "x.txt"], "ends in .npy"),
        (["segment", "IMAGE", "--save-logits", "nowhere/x.npy"], "create it first"),
        (["segment", "IMAGE", "--note", SECRET, "--notes", "n.csv"], "not both"),
        (["evaluate", "--split", "nope"], "no split 'nope'"),
        (["evaluate", "--mode", "foo"], "give resize or tiles"),
        (["evaluate", "--at", "0"], "cannot be scored at 0 x 0"),
        (["evaluate", "--at", "32", "--as-published"], "leave out --at"),
        (["evaluate", "--notes", "foo"], "give right, none or wrong"),
        (["evaluate", "--against", "nowhere"], "no model or run folder 'nowhere'"),
    ],
)
def test_a_bad_option_is_told_before_the_work(
    words: list[str], says: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = toy / "data" / "images"
    words = [word.replace("IMAGES", str(folder)).replace("IMAGE", str(folder / "case0.png")) for word in words]
    of = ["-m", toy / "run"] if words[0] == "segment" else [toy / "run", "--data", toy / "data"]
    refused(call(*words, *of, "-o", "out"), says)
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_there_is_told(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    image = toy / "data" / "images" / "case0.png"
    refused(call("segment", image, "-m", toy / "run", "-o", tmp_path / "out", "--device", "cuda"), "--device cpu")
    first = ["train", RECIPE, "--set", f"data.root={toy / 'data'}", "-o", tmp_path / "out"]
    refused(call(*first, "--device", "cuda"), "use auto or cpu")
    assert list(tmp_path.iterdir()) == []


def test_wrong_notes_and_other_classes_cannot_be_evaluated(run: Path, toy: Path, data: Path, tmp_path: Path) -> None:
    for side in ("left", "right"):
        rewrite(data, f"on the {side}", "somewhere")
    out = tmp_path / "out"
    refused(call("evaluate", run, "--data", data, "-o", out, "--notes", "wrong"), "share one note")
    (data / "masks" / "case5.png").write_bytes(b"x")
    refused(call("evaluate", run, "--data", data, "-o", out), "case5.png is not a PNG")
    shutil.rmtree(data / "masks")
    rewrite(data, ",case", ",")
    first = ["train", RECIPE, "--set", f"data.root={toy / 'data'}", "--set", "training.max_steps=1"]
    first += ["--set", "model.num_classes=3", "-o", tmp_path / "three"]
    refused(call(*first), "data.foreground=any makes one class of all; --set data.foreground=ids")
    assert call(*first, "--set", "data.foreground=ids").exit_code == 0
    refused(call("evaluate", run, "--data", toy / "data", "-o", out, "--against", tmp_path / "three"), "same classes")
    assert not out.exists()


def test_what_is_there_is_kept(toy: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    checkpoint = tmp_path_factory.mktemp("other") / "x.pt"
    torch.save({"x": torch.ones(1)}, checkpoint)
    run, image = toy / "run", toy / "data" / "images" / "case0.png"
    for name in ("result.json", "report.json", "mine.txt", "x.safetensors", "x.npy"):
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.iterdir())
    refused(call("segment", image, "-m", run, "-o", tmp_path), "result.json exists")
    refused(call("segment", image, "-m", run, "-o", tmp_path / "o", "--save-logits", tmp_path / "x.npy"), "exists")
    refused(call("segment", image, "-m", run, "-o", tmp_path / "mine.txt"), "is a file")
    refused(call("evaluate", run, "--data", toy / "data", "-o", tmp_path), "exists")
    refused(call("evaluate", run, "--data", toy / "data", "-o", tmp_path, "--overwrite"), "not only a report")
    refused(call("features", image, "-m", run, "-o", tmp_path / "x.safetensors"), "exists already")
    refused(call("features", image, "-m", run, "-o", tmp_path / "x.npy"), "written as .safetensors")
    refused(call("pack", run, "-o", tmp_path), "exists")
    refused(call("convert", "adm", checkpoint, "-o", tmp_path), "exists")
    refused(call("convert", "adm", checkpoint, "-o", tmp_path, "--overwrite"), "holds more than a denoiser")
    assert sorted(tmp_path.iterdir()) == before
    assert all(path.read_text() == "mine" for path in before)


def test_data_check_of_nonsense(toy: Path, data: Path, tmp_path: Path) -> None:
    refused(call("data", "check", tmp_path / "nowhere"), "does not exist")
    refused(call("data", "check", tmp_path), "fits no known layout")
    refused(call("data", "check", data / "images" / "case0.png"), "fits no known layout")
    refused(call("data", "check", data, "--side", "up"), "viewer or patient")
    refused(call("data", "check", data, "--masks", "nope"), "has no folder 'nope'")
    (data / "notes.csv").write_text(f"{SECRET} on the left,{SECRET}\n")
    refused(call("data", "check", data), "add a header line")


@pytest.mark.parametrize("command", ["segment", "features", "train", "pack", "evaluate"])
def test_a_full_disk_leaves_nothing(command: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    image, out = toy / "data" / "images" / "case0.png", tmp_path / "out"
    words: dict[str, list[Any]] = {
        "segment": ["segment", image, "-m", toy / "run", "--overlay"],
        "features": ["features", image, "-m", toy / "run"],
        "train": ["train", RECIPE, "--set", f"data.root={toy / 'data'}"],
        "pack": ["pack", toy / "run"],
        "evaluate": ["evaluate", toy / "run", "--data", toy / "data"],
    }
    if command == "evaluate":
        monkeypatch.setattr("pathlib.Path.write_bytes", full)
    out = out.with_suffix(".safetensors") if command == "features" else out
    result = call(*words[command], "-o", out)
    assert result.exit_code in (1, 2)
    assert "cannot write" in result.stderr
    assert "No space left on device" in result.stderr.splitlines()[-1]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    if command != "train":
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["segment", "train", "pack", "evaluate"])
def test_a_folder_that_may_not_be_written_to_is_told_before_the_work(
    command: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode, **_: not mode & os.W_OK)  # root may write anywhere
    words: dict[str, list[Any]] = {
        "segment": ["segment", toy / "data" / "images", "-m", toy / "run"],
        "train": ["train", RECIPE, "--set", f"data.root={toy / 'data'}"],
        "pack": ["pack", toy / "run"],
        "evaluate": ["evaluate", toy / "run", "--data", toy / "data"],
    }
    refused(call(*words[command], "-o", tmp_path / "out"), "may not be written to")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_of_a_model_is_found_from_above_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained in `project` with texts/small; used from another folder."""
    run, text = tmp_path / "project" / "runs" / "ours", tmp_path / "project" / "texts" / "small"
    shutil.copytree(run_folder.PRETRAINED / "nuclei-small", run)
    shutil.copytree(run_folder.PRETRAINED / "modernbert-small" / "text", text)
    configured(run, lambda value: value["model"]["text"].update(path="texts/small"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    picture = tmp_path / "one.png"
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(picture)
    done = call(
        "segment", picture, "--note", "Nuclei.", "-m", Path("..", "project", "runs", "ours"), "-o", tmp_path / "o"
    )
    assert done.exit_code == 0, done.output
    shutil.rmtree(text)
    refused(call("segment", picture, "-m", run, "-o", tmp_path / "p"), "texts/small")


def test_a_run_that_was_trained_beside_another_component_is_refused(tmp_path: Path) -> None:
    """What a run reads of the package, without having it in its own folder, is pinned by its hash."""
    run = tmp_path / "run"
    shutil.copytree(run_folder.PRETRAINED / "nuclei-small", run)
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["built_on"] == run_folder.foundations(run_folder.read_config(run))
    assert list(manifest["built_on"]) == ["builtin:modernbert-small/text"]
    assert run_folder.check(run) == manifest["files"]
    manifest["built_on"]["builtin:modernbert-small/text"] = "0" * 64
    (run / "manifest.json").write_text(json.dumps(manifest))
    picture = Path(skimage.__file__).parent / "data" / "ihc.png"
    refused(call("segment", picture, "-m", run, "-o", tmp_path / "o"), "trained beside another builtin:modernbert")
    refused(call("pack", run, "-o", tmp_path / "p"), "trained beside another builtin:modernbert")
    manifest["built_on"] = ["builtin:modernbert-small/text"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    refused(call("segment", picture, "-m", run, "-o", tmp_path / "o"), "manifest.json is damaged")
