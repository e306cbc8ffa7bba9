"""A frozen denoiser's levels are kept: in training, and by `features --bank`, which resumes."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medtextdiff import api
from medtextdiff.config import override
from medtextdiff.diffusion import denoiser
from medtextdiff.recipes import segmentation
from tests.jobs.conftest import call, write_data

FINITE = ("data.augmentation.num_views=2", "data.augmentation.brightness=0.2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, a pre-trained `denoiser`, and `run`, trained on it frozen."""
    root = tmp_path_factory.mktemp("frozen")
    write_data(root / "data")
    torch.manual_seed(0)
    denoiser.Scratch.tiny().build().save_pretrained(root / "denoiser")
    train(root, root / "run", *FINITE)
    return root


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes that the denoiser was run with."""
    seen, real = [], denoiser.Denoiser.levels

    def counting(self: denoiser.Denoiser, x: torch.Tensor, t: torch.Tensor, taps: tuple[int, ...]) -> object:
        seen.append(len(x))
        return real(self, x, t, taps)

    monkeypatch.setattr(denoiser.Denoiser, "levels", counting)
    return seen


def train(root: Path, out: Path, *settings: str) -> None:
    run = segmentation.fasttextdiff_tiny()
    run = run.replace(model=run.model.replace(denoiser=denoiser.Config(path=str(root / "denoiser"))))
    api.train(override(run, [f"data.root={root / 'data'}", "training.batch_size=1", *settings]), out=out)


def entries(bank: Path) -> list[Path]:
    return sorted(bank.rglob("*.levels"))


def test_training_with_a_bank_gives_the_same_weights(place: Path, tmp_path: Path, calls: list[int]) -> None:
    train(place, tmp_path / "without", *FINITE, "training.max_steps=12", "bank=null")
    without = len(calls)
    calls.clear()
    train(place, tmp_path / "with", *FINITE, "training.max_steps=12")
    kept = entries(tmp_path / "with" / "bank")
    assert len(calls) == len(kept) <= 4 * 2 + 2  # four images in two views, two validation images of one tile
    assert without == 12 + 6 * 2
    assert not entries(tmp_path / "without")
    one, other = (load_file(tmp_path / name / "head" / "model.safetensors") for name in ("with", "without"))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_endless_views_are_not_kept_and_validation_is(place: Path, tmp_path: Path, calls: list[int]) -> None:
    train(place, tmp_path / "run")
    assert len(entries(tmp_path / "run" / "bank")) == 2
    assert len(calls) == 4 + 2


def test_a_folder_is_banked_and_a_second_time_nothing_is_computed(
    place: Path, tmp_path: Path, calls: list[int]
) -> None:
    bank, words = tmp_path / "bank", ("--model", place / "run", "--precision", "float32")
    some = tmp_path / "some"
    shutil.copytree(place / "data" / "images", some)
    for name in ("case3.png", "case5.png"):
        (some / name).unlink()
    first = call("features", some, "--bank", bank, *words)
    assert first.exit_code == 0, first.output
    assert len(entries(bank)) == len(calls) == 4
    assert "4/4 case4.png  4 made, 0 there  0:00:00 left" in first.stderr
    calls.clear()
    entries(bank)[0].write_bytes(b"half")
    rest = call("features", place / "data", "--bank", bank, *words)  # the data set's root: its masks are no images
    assert rest.exit_code == 0, rest.output
    assert len(calls) == 3
    assert rest.stdout.splitlines()[1].split() == ["6", "3", "3"]
    calls.clear()
    segmented = call("segment", some, "--bank", bank, "-o", tmp_path / "out", *words)
    assert segmented.exit_code == 0, segmented.output
    scored = call("evaluate", place / "run", "--data", place / "data", "--bank", bank, "-o", tmp_path / "report",
                  "--precision", "float32")  # fmt: skip
    assert scored.exit_code == 0, scored.output
    assert calls == []


def test_a_bad_file_is_listed_and_the_others_go_on(place: Path, tmp_path: Path) -> None:
    some = Path(shutil.copytree(place / "data" / "images", tmp_path / "some"))
    (some / "case1.png").write_bytes(b"")
    done = call("features", some, "--bank", tmp_path / "bank", "--model", place / "run")
    assert done.exit_code == 1
    assert len(entries(tmp_path / "bank")) == 5
    assert done.stderr.splitlines()[-1].startswith(f"failed: {some / 'case1.png'}: ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "give -o FILE.safetensors for one image, or --bank DIR"),
        (("-o", "x.safetensors"), "is a folder"),
        (("--bank", "bank", "--budget-gb", "0"), "give a budget above 0"),
        (("--bank", "file"), "is a file; give a folder for the feature bank"),
    ],
)
def test_a_mistake_gets_one_clear_line(
    words: tuple[str, ...], says: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    done = call("features", place / "data", "--model", place / "run", *words)
    assert done.exit_code == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
