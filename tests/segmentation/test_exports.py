"""Exported graphs do what torch does, at sizes they were not traced at; what is no export is refused in one line."""

import errno
import importlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from medtextdiff import api, config
from medtextdiff.api import exports
from medtextdiff.api.training import finish
from medtextdiff.config import ConfigError
from medtextdiff.recipes import segmentation_run
from medtextdiff.segmentation import features, use
from medtextdiff.segmentation.fusion import none
from medtextdiff.segmentation.graphs import checking, description, traced, writing
from medtextdiff.segmentation.heads import published, pyramid
from medtextdiff.segmentation.models import unet
from medtextdiff.segmentation.runtimes import onnx, openvino
from medtextdiff.text.encoders import tiny
from medtextdiff.training.errors import RunError
from medtextdiff.types import TextFeatures
from tests.segmentation.conftest import small

FUSIONS = config.siblings(none.__name__)
TEXT = tiny.Config(width=16, layers=2, exact=False)
NOISY = features.Config(taps=(0, 2), timesteps=(50, 150), noise="shared", channel_order="bgr")
NOTES = ["many nuclei upper right", "", "few"]


def fusion(name: str) -> config.Config:
    return importlib.import_module(f"{none.__name__.rpartition('.')[0]}.{name}").Config()


def awake(segmenter):
    """New weights shaken: parts that begin at zero would hide an error."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in segmenter.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return segmenter.eval()


def write_run(settings, folder: Path) -> Path:
    torch.manual_seed(0)
    run = segmentation_run.Run(model=settings, use=use.Config(tile=32, overlap=0.0))
    run = run.replace(data=run.data.replace(root="/somewhere/of/mine/set"))
    finish(run, awake(run.build_model()), folder)
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A FastTextDiff whose levels are noised as published, all of it trained (so that the run holds its weights)."""
    settings = small(text=TEXT.replace(trainable=True), features=NOISY)
    settings = settings.replace(denoiser=settings.denoiser.replace(trainable=True))
    folder = tmp_path_factory.mktemp("runs") / "fasttextdiff"
    folder.mkdir()
    return write_run(settings, folder)


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "onnx"
    errors = api.export(run, to="onnx", out=out)
    assert set(errors) == {"encode", "decode", "text"}
    assert max(errors.values()) < description.TOLERANCE
    return out


@pytest.fixture(scope="session")
def both(run, exported):
    """The segmenter by torch and by ONNX Runtime."""
    by_torch = api.load(run, device="cpu", precision="float32").segmenter
    return by_torch, api.load(exported).segmenter


@torch.no_grad()
@pytest.mark.parametrize("size", [(4, 4), (30, 45), (64, 20), (100, 7)])
@pytest.mark.parametrize("notes", [NOTES, ["", ""], ["one note, " + "and a long one " * 9]])
def test_logits_are_those_of_torch_at_any_size(both, size, notes):
    images = torch.rand(len(notes), 3, *size, generator=torch.Generator().manual_seed(3)) * 2 - 1
    boxes = torch.rand(len(notes), 4, generator=torch.Generator().manual_seed(4))
    expected, found = (segmenter(images, notes, boxes) for segmenter in both)
    assert checking.relative_error([found], [expected]) < 1e-4


@torch.no_grad()
def test_an_absent_note_and_padded_words_are_what_they_are_in_torch(both):
    exported = both[1]
    levels = exported.encode(torch.rand(2, 3, 32, 32) * 2 - 1)
    boxes = torch.tensor([[0.0, 0, 1, 1]] * 2)
    text = exported.text(["few nuclei", ""])
    assert not text.mask[1].any()
    plain = exported.head(levels, text, boxes, (32, 32))
    spoilt = TextFeatures(torch.where(text.mask[..., None], text.tokens, torch.tensor(100.0)), text.mask, text.pooled)
    torch.testing.assert_close(exported.head(levels, spoilt, boxes, (32, 32)), plain, rtol=1e-4, atol=1e-4)


def test_the_model_segments_encodes_and_decodes(run, exported):
    image = torch.rand(40, 50, 3, generator=torch.Generator().manual_seed(5)).numpy()
    by_torch, by_onnx = api.load(run, device="cpu", precision="float32"), api.load(exported)
    assert (by_onnx.runtime, by_onnx.precision, by_onnx.sha256) == ("onnx", "float32", by_torch.sha256)
    expected = by_torch.segment(image, "few").probabilities
    assert abs(by_onnx.segment(image, "few").probabilities - expected).max() < 1e-4
    assert abs(by_onnx.decode(by_onnx.encode(image), "few").probabilities - expected).max() < 1e-4


def test_the_folder_says_what_it_holds_and_no_pickle(run, exported):
    about = description.read(exported)
    assert about.graphs == ("encode", "decode", "text")
    assert about.model_sha256 == api.load(run, device="cpu").sha256
    assert {"torch", "onnxruntime", "medtextdiff"} <= set(about.versions)
    assert {(check.batch, check.height, check.width) for check in about.checks} >= {(1, 4, 4), (1, 256, 256)}
    names = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert {"config.json", "manifest.json", "export.json", "tokenizer/tokenizer.json"} <= names
    assert {Path(name).suffix for name in names} <= {".json", ".onnx", ".data"}
    assert str(run.parent) not in (exported / "export.json").read_text()


@pytest.fixture
def copied(exported, tmp_path):
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["decode.onnx", "encode.onnx.data", "export.json", "tokenizer/tokenizer.json"])
def test_a_tampered_or_truncated_file_is_refused(copied, name):
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[: len(content) // 2])
    with pytest.raises((RunError, ConfigError), match=r"SHA-256 differs|damaged"):
        api.load(copied)


def test_a_truncated_graph_is_refused_though_its_seal_fits(copied):
    path, seal = copied / "decode.onnx", copied / "manifest.json"
    path.write_bytes(path.read_bytes()[:999])
    files = json.loads(seal.read_text())
    files["files"]["decode.onnx"] = exports.disk.sha256(path)
    seal.write_text(json.dumps(files))
    with pytest.raises(ConfigError, match=r"decode\.onnx cannot be run .* export the model again"):
        api.load(copied)


def test_what_does_not_go_with_an_export_is_refused_in_a_line(run, exported, tmp_path):
    cases = [
        (lambda: api.load(exported, runtime="openvino"), "holds graphs for onnx"),
        (lambda: api.load(exported, device="cuda"), "run on the CPU"),
        (lambda: api.load(exported, precision="bf16"), "onnx computes in float32"),
        (lambda: api.load(run, runtime="onx"), "did you mean 'onnx'"),
        (lambda: api.load(tmp_path), "no run folder"),
        (lambda: api.export(exported, to="onnx", out=tmp_path / "a"), "is an export, not a run"),
        (lambda: api.pack(exported, out=tmp_path / "b"), "is an export, not a run"),
        (lambda: api.export(run, to="onnx", out=exported), "exists; give another folder"),
        (lambda: api.export("modernbert-small", to="onnx", out=tmp_path / "c"), "it cannot segment"),
    ]
    for call, says in cases:
        with pytest.raises(ConfigError, match=says):
            call()
    assert list(tmp_path.iterdir()) == []


def test_an_export_tells_no_folders_of_this_machine(run, exported):
    assert json.loads((run / "config.json").read_text())["data"]["root"] == "/somewhere/of/mine/set"
    assert json.loads((exported / "config.json").read_text())["data"]["root"] == "mine/set"


def test_a_missing_package_is_told_with_its_remedy(monkeypatch, run, tmp_path):
    monkeypatch.setattr("medtextdiff.segmentation.graphs.packages.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'medtextdiff\[openvino\]'"):
        api.export(run, to="openvino", out=tmp_path / "out")


def test_a_graph_that_departs_from_torch_leaves_nothing_behind(monkeypatch, run, tmp_path):
    def wrong(self, graph, folder):
        (folder / f"{graph.name}.onnx").write_bytes(b"0")

    def session(self, folder, name):
        return lambda inputs: [torch.zeros(2, 2)] * (2 if name == "encode" else 1)

    monkeypatch.setattr(onnx.Runtime, "write", wrong)
    monkeypatch.setattr(onnx.Runtime, "open", session)
    with pytest.raises(ConfigError, match="'encode' departs from torch"):
        api.export(run, to="onnx", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_full_disk_is_told_as_one_and_leaves_nothing_behind(monkeypatch, run, to, tmp_path):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", full)
    with pytest.raises(RunError, match=rf"cannot write {tmp_path / 'out'}: No space left on device; free some space"):
        api.export(run, to=to, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_runtime_asked_of_a_run_is_made_once_and_kept(monkeypatch, run, exported, tmp_path):
    monkeypatch.setenv("MEDTEXTDIFF_CACHE", str(tmp_path))
    made = []

    def write(segmenter, folder, *, out, **about):
        made.append(out)
        shutil.copytree(exported, out)

    monkeypatch.setattr(exports, "write", write)
    for _ in range(2):
        assert api.load(run, runtime="onnx").runtime == "onnx"
    assert len(made) == 1
    assert tmp_path in made[0].parents


@torch.no_grad()
@pytest.mark.parametrize("part", [onnx, openvino])
def test_an_image_only_segmenter_is_one_graph(part, tmp_path):
    torch.manual_seed(0)
    segmenter = awake(unet.Config(channels=(4, 8), num_res_units=1).build())
    found = round_trip(segmenter, part.Config().build(), tmp_path)
    images = torch.rand(2, 3, 21, 33) * 2 - 1
    assert checking.relative_error([found(images, ["", ""])], [segmenter(images, ["", ""])]) < 1e-4


def round_trip(segmenter, runtime, folder):
    names, checks = writing.write_graphs(segmenter, runtime, folder)
    about = writing.describe(
        segmenter, names, checks, runtime="any", model="m", model_sha256="0", versions=runtime.versions()
    )
    return exports.exported.build(about, {name: runtime.open(folder, name) for name in names}, folder)


def test_a_reader_of_notes_in_one_piece_is_refused():
    class OnePiece(torch.nn.Module):
        text = torch.nn.Identity()

    with pytest.raises(ConfigError, match="in one piece with the image"):
        traced.graphs_of(OnePiece())


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("part", [onnx, openvino])
@pytest.mark.parametrize(
    "changes",
    [
        *({"head": pyramid.Config(width=16, fusion=fusion(name))} for name in FUSIONS),
        {"head": published.Config(width=24, hidden=(8, 4))},
        {"text": TEXT.replace(as_bert=True), "features": NOISY.replace(noise="per_image", normalise="rms")},
        {"text": None, "features": NOISY.replace(noise="none", normalise="channel", image=True)},
        {"head": pyramid.Config(width=16, detail=8), "features": NOISY.replace(image=True)},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_every_part_survives_the_round_trip(made, part, changes, tmp_path):
    segmenter = awake(made(**{"text": TEXT} | changes))
    found = round_trip(segmenter, part.Config().build(), tmp_path)
    for size in ((8, 8), (30, 45)):
        images = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(2)) * 2 - 1
        assert checking.relative_error([found(images, NOTES)], [segmenter(images, NOTES)]) < 1e-4
