"""Train an autoencoder and a generator, generate: through the CLI, on made-up data."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import medtextdiff
from medtextdiff import config
from medtextdiff.api import Generator
from medtextdiff.api.training_time import training_hours
from medtextdiff.config import ConfigError
from medtextdiff.recipes import synthesis
from medtextdiff.synthesis.latents import LatentBatch
from tests.jobs.conftest import SECRET, call, refused, stopped, write_data

PROMPTS = ("One disc on the left.", "One disc on the right.")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, an autoencoder's run `ae` and a generator's run `run`."""
    root = tmp_path_factory.mktemp("shop")
    write_data(root / "data")
    data = f"data.root={root / 'data'}"
    first = call("train", "synthesis.autoencoder_tiny", "--set", data, "-o", root / "ae")
    assert first.exit_code == 0, first.output
    path = f"model.autoencoder.path={root / 'ae'}"
    second = call("train", "synthesis.msdm_tiny", "--set", data, "--set", path, "-o", root / "run")
    assert second.exit_code == 0, second.output
    return root


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "prompts.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_run_folders_are_complete(shop: Path) -> None:
    autoencoder = {path.name for path in (shop / "ae").iterdir()}
    assert {"autoencoder", "config.json", "manifest.json", "reconstructions.png"} <= autoencoder
    report = json.loads((shop / "ae" / "autoencoder" / "reconstruction.json").read_text())
    assert report["images"] == 2
    assert {"psnr", "ssim", "l1"} <= report.keys()
    run = {path.name for path in (shop / "run").iterdir()}
    assert {"autoencoder", "conditioning", "denoiser", "manifest.json", "samples.png"} <= run
    assert Image.open(shop / "run" / "samples.png").text["Synthetic"].startswith("yes")  # type: ignore[attr-defined]
    assert "text" not in run  # frozen, and made by its config
    assert json.loads((shop / "run" / "config.json").read_text())["model"]["autoencoder"]["path"] == "./autoencoder"


def test_generate_writes_images_a_table_and_a_sheet(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = call("generate", *PROMPTS, "--model", shop / "run", "-n", 2, "--seed", 5, "-o", out)
    assert result.exit_code == 0, result.output
    lines = rows(out)
    assert [line["file"] for line in lines] == [f"{k:06d}.png" for k in range(4)]
    assert [line["prompt"] for line in lines] == [PROMPTS[0]] * 2 + [PROMPTS[1]] * 2
    assert [line["seed"] for line in lines] == ["5", "6", "7", "8"]
    assert pixels(out / "000000.png").shape == (32, 32, 3)
    assert pixels(out / "contact_sheet.png").shape == (66, 66, 3)


def test_every_file_says_that_it_is_synthetic_and_not_its_prompt(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("generate", SECRET, "--model", shop / "run", "--seed", 3, "-o", out).exit_code == 0
    for path in out.glob("*.png"):
        with Image.open(path) as image:
            text = image.text
        assert text["Synthetic"].startswith("yes")
        assert len(text["Model-SHA256"]) == 64
        assert SECRET.encode() not in path.read_bytes()
        assert SECRET not in path.name
    with Image.open(out / "000000.png") as image:
        assert image.text["Seed"] == "3"
    assert SECRET not in (out / "request.json").read_text()


def test_same_seed_same_image_whatever_the_batch_size(shop: Path, tmp_path: Path) -> None:
    words = ["generate", *PROMPTS, "One disc.", "--model", shop / "run", "--precision", "float32", "--seed", 1]
    for size in (1, 3):
        assert call(*words, "--batch-size", size, "-o", tmp_path / str(size)).exit_code == 0
    alone = ["generate", PROMPTS[1], "--model", shop / "run", "--precision", "float32", "--seed", 2]
    assert call(*alone, "-o", tmp_path / "alone").exit_code == 0
    for k in range(3):
        assert (tmp_path / "1" / f"{k:06d}.png").read_bytes() == (tmp_path / "3" / f"{k:06d}.png").read_bytes()
    np.testing.assert_array_equal(pixels(tmp_path / "alone" / "000000.png"), pixels(tmp_path / "1" / "000001.png"))


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_beside_a_damaged_request_nothing_is_touched(shop: Path, tmp_path: Path, overwrite: list[str]) -> None:
    (tmp_path / "request.json").write_text('{"images": 3, "req')
    (tmp_path / "000002.png").write_bytes(b"of the old request")
    result = call("generate", *PROMPTS, "--model", shop / "run", "-o", tmp_path, *overwrite)
    assert result.exit_code == 2
    assert "request.json is damaged" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000002.png", "request.json"]
    assert (tmp_path / "000002.png").read_bytes() == b"of the old request"


def test_python_gives_the_same_images(shop: Path, tmp_path: Path) -> None:
    model = medtextdiff.load(shop / "run", precision="float32")
    found = model.generate(PROMPTS, seed=4)
    assert found.shape == (2, 3, 32, 32)
    words = ["generate", *PROMPTS, "--model", shop / "run", "--precision", "float32", "--seed", 4, "-o", tmp_path / "o"]
    assert call(*words).exit_code == 0
    for k in range(2):
        expected = found[k].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(pixels(tmp_path / "o" / f"{k:06d}.png") / 255, expected, atol=0.5 / 255 + 1e-4)
    torch.testing.assert_close(medtextdiff.generate(PROMPTS[0], model=shop / "run", seed=4).shape, (1, 3, 32, 32))


def test_what_is_there_is_not_made_again(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["generate", *PROMPTS, "--model", shop / "run", "-n", 2, "-o", out]
    assert call(*words).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.glob("0*.png")}
    stamp = (out / "000000.png").stat().st_mtime_ns
    (out / "000002.png").unlink()
    again = call(*words)
    assert again.exit_code == 0, again.output
    assert "1            3" in again.output  # made, there before
    assert {path.name: path.read_bytes() for path in out.glob("0*.png")} == before
    assert (out / "000000.png").stat().st_mtime_ns == stamp
    other = call(*words, "--seed", 9)
    refused(other, "another request")
    assert call(*words, "--seed", 9, "--overwrite").exit_code == 0
    assert rows(out)[0]["seed"] == "9"
    assert (out / "000000.png").read_bytes() != before["000000.png"]
    fewer = call("generate", PROMPTS[0], "--model", shop / "run", "-o", out, "--overwrite")
    assert fewer.exit_code == 0, fewer.output
    assert [path.name for path in sorted(out.glob("0*.png"))] == ["000000.png"]  # none of the old request stays


def test_what_was_made_stays_when_a_person_stops_it(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, done = Generator._sample, []

    def stopped_at_the_third(self, *given):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return real(self, *given)

    words = ["generate", *PROMPTS, "One disc.", "--model", shop / "run", "--batch-size", 1, "-o", tmp_path / "out"]
    monkeypatch.setattr(Generator, "_sample", stopped_at_the_third)
    assert call(*words).exit_code == 130
    assert len(rows(tmp_path / "out")) == 2
    monkeypatch.setattr(Generator, "_sample", real)
    assert call(*words).exit_code == 0
    assert len(rows(tmp_path / "out")) == 3


def test_memory_that_does_not_suffice_is_told(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medtextdiff.synthesis.models.msdm import MSDM

    real, done = MSDM.sample, []

    def full(self, *given):
        if done:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"
            )
        done.append(1)
        return real(self, *given)

    monkeypatch.setattr(MSDM, "sample", full)
    words = ["generate", *PROMPTS, "--model", shop / "run", "--batch-size", 1, "-o", tmp_path / "out"]
    result = call(*words)
    assert result.exit_code == 2
    assert "--batch-size 1" in result.stderr
    assert len(rows(tmp_path / "out")) == 1


def test_prompts_come_from_a_table(shop: Path, tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_text("id,prompt\n1,One disc on the left.\n2,One disc.\n")
    assert call("generate", "--prompts", table, "--model", shop / "run", "-o", tmp_path / "out").exit_code == 0
    assert [line["prompt"] for line in rows(tmp_path / "out")] == ["One disc on the left.", "One disc."]
    notes = shop / "data" / "notes.csv"
    words = ["generate", "--prompts", notes, "--column", "note", "--model", shop / "run", "-o", tmp_path / "notes"]
    assert call(*words).exit_code == 0
    assert len(rows(tmp_path / "notes")) == 6
    nameless = call("generate", "--prompts", notes, "--model", shop / "run", "-o", tmp_path / "none")
    refused(nameless, "name the column with --column")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("",), "prompt 1 is empty"),
        ((SECRET + " word" * 5000,), "prompt 1 has 5001 words"),
        ((SECRET, "-n", 0), "-n 0 asks for no image"),
        ((SECRET, "--sampler", "dpm"), "did you mean 'dpm++'"),
        ((SECRET, "--guidance", "1e9"), "guidance must be from 0 to 30, got 1e+09"),
        ((), "there is no prompt"),
        ((SECRET, "--prompts", "TABLE"), "not both"),
        (("--prompts", "TABLE", "--column", "prompts"), "no column 'prompts'"),
        (("--prompts", "nowhere.csv"), "nowhere.csv does not exist"),
        (("--prompts", "HOLE"), "HOLE.csv line 3 is empty"),
    ],
)
def test_bad_requests_are_refused_in_one_line(shop: Path, tmp_path: Path, words: tuple[object, ...], says: str) -> None:
    (tmp_path / "TABLE.csv").write_text(f"prompt\n{SECRET}\n")
    (tmp_path / "HOLE.csv").write_text(f'prompt,id\n{SECRET},1\n"",2\n')
    given = [tmp_path / f"{word}.csv" if word in ("TABLE", "HOLE") else word for word in words]
    refused(call("generate", *given, "--model", shop / "run", "-o", tmp_path / "out"), says)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def loaded(shop: Path) -> Generator:
    return medtextdiff.load(shop / "run")


@pytest.mark.parametrize(
    ("prompts", "options", "says"),
    [
        ([], {}, "there is no prompt"),
        (["a disc", "  "], {}, "prompt 2 is empty"),
        (SECRET, {"steps": 0}, "steps must be from 1 to 1000, got 0"),
        (SECRET, {"steps": 5000}, "steps must be from 1 to 1000, got 5000"),
        (SECRET, {"guidance": float("nan")}, "guidance must be from 0 to 30, got nan"),
        (SECRET, {"guidance": -1.0}, "guidance must be from 0 to 30, got -1"),
        (SECRET, {"sampler": "heun"}, "no sampler 'heun'"),
        (SECRET, {"seed": -1}, "seed must be from 0"),
        (SECRET, {"seed": 2**62}, "seed must be from 0"),
        (SECRET, {"batch_size": 0}, "batch_size 0 is too small"),
    ],
)
def test_bad_calls_are_refused(loaded: Generator, prompts: str | list[str], options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        loaded.generate(prompts, **options)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("part", ["autoencoder", "denoiser", "conditioning"])
def test_a_run_with_a_missing_component_is_refused(shop: Path, tmp_path: Path, part: str) -> None:
    copy = Path(shutil.copytree(shop / "run", tmp_path / "copy"))
    shutil.rmtree(copy / part)
    refused(call("generate", "a disc", "--model", copy, "-o", tmp_path / "out"), part)
    assert not (tmp_path / "out").exists()


def test_models_that_cannot_generate_are_refused(shop: Path, tmp_path: Path) -> None:
    refused(call("generate", "a disc", "--model", "nuclei-small", "-o", tmp_path / "out"), "makes no images")
    refused(call("generate", "a disc", "--model", shop / "ae", "-o", tmp_path / "out"), "makes no images from prompts")
    refused(call("generate", "a disc", "--model", tmp_path / "x", "-o", tmp_path / "out"), "no model or run folder")
    image = shop / "data" / "images" / "case0.png"
    refused(call("segment", image, "--model", shop / "run", "-o", tmp_path / "out"), "cannot segment")


def test_an_autoencoder_nobody_looked_at_is_refused(shop: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shop / "ae" / "autoencoder", tmp_path / "autoencoder"))
    (copy / "reconstruction.json").unlink()
    words = ["train", "synthesis.msdm_tiny", "--set", f"data.root={shop / 'data'}"]
    refused(call(*words, "--set", f"model.autoencoder.path={copy}", "-o", tmp_path / "r"), "reconstruction.json")
    refused(call(*words, "-o", tmp_path / "r"), "synthesis.autoencoder_gi")
    words += ["--set", f"model.autoencoder.path={shop / 'ae'}"]
    refused(call(*words, "--set", "data.size=36", "-o", tmp_path / "r"), "no multiple of 8")
    assert not (tmp_path / "r").exists()


def test_images_that_prompts_name_must_be_there(shop: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(shop / "data", tmp_path / "data"))
    (data / "images" / "case1.png").unlink()
    words = ["train", "synthesis.autoencoder_tiny", "--set", f"data.root={data}", "-o", tmp_path / "r"]
    refused(call(*words), "notes.csv line 3")


def test_a_packed_run_generates_alike(shop: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    result = call("pack", shop / "run", "-o", packed)
    assert result.exit_code == 0, result.output
    ours, theirs = (medtextdiff.load(run, precision="float32").generate(PROMPTS[0]) for run in (shop / "run", packed))
    torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=0)
    hours = training_hours(shop / "run")
    assert hours is not None
    assert training_hours(packed) == pytest.approx(hours, abs=0.005)  # though its metrics stay behind


def test_how_a_run_is_used_may_be_settled_when_it_is_packed(shop: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    words = ["pack", shop / "run", "--set", "use.steps=3", "--set", "use.guidance=4"]
    assert call(*words, "-o", packed).exit_code == 0
    used = medtextdiff.load(packed).settings()
    assert (used.steps, used.guidance) == (3, 4)
    assert medtextdiff.load(shop / "run").settings().steps != 3
    refused(call("pack", shop / "run", "--set", "training.seed=1", "-o", tmp_path / "a"), "only use....")
    refused(call("pack", shop / "run", "--set", "use.stepz=1", "-o", tmp_path / "b"), "did you mean 'steps'")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packed"]


def test_training_goes_on_where_it_stopped(shop: Path, tmp_path: Path) -> None:
    words = ["train", "synthesis.msdm_tiny", "--set", f"data.root={shop / 'data'}"]
    words += ["--set", f"model.autoencoder.path={shop / 'ae'}", "-o", tmp_path / "run"]
    assert call(*words, "--set", "training.max_steps=10").exit_code == 0
    (tmp_path / "run" / "manifest.json").unlink()
    assert call(*words).exit_code == 0
    ours, theirs = (medtextdiff.load(run).generate(PROMPTS[0]) for run in (tmp_path / "run", shop / "run"))
    assert ours.shape == theirs.shape


def test_a_run_goes_on_with_what_it_was_begun_with_alone(shop: Path, tmp_path: Path) -> None:
    data, ae = (Path(shutil.copytree(shop / name, tmp_path / name)) for name in ("data", "ae"))
    run, table, shown = tmp_path / "run", data / "notes.csv", data / "images" / "case4.png"
    words = ["train", "synthesis.msdm_tiny", "--set", f"data.root={data}", "--set", f"model.autoencoder.path={ae}"]
    assert call(*words, "--set", "training.max_steps=10", "-o", run).exit_code == 0
    (run / "manifest.json").unlink()
    before = table.read_text()
    table.write_text(before.replace("case1.png,train,One", "case1.png,train,No"))
    assert table.read_text() != before
    stopped(call(*words, "-o", run), "the first is 'prompts of case1")
    table.write_text(before)
    Image.new("RGB", (48, 40)).save(shown)
    stopped(call(*words, "-o", run), "the first is 'held out: case4")
    shutil.copy(shop / "data" / "images" / shown.name, shown)
    shutil.rmtree(ae)
    again = ["train", "synthesis.autoencoder_tiny", "--set", f"data.root={data}", "--set", "training.seed=7"]
    assert call(*again, "-o", ae).exit_code == 0
    stopped(call(*words, "-o", run), "the first is 'how latents are made'")


def test_what_would_fail_at_the_end_is_refused_at_the_beginning(shop: Path, tmp_path: Path) -> None:
    words = ["train", "synthesis.msdm_tiny", "--set", f"data.root={shop / 'data'}"]
    words += ["--set", f"model.autoencoder.path={shop / 'ae'}", "-o", tmp_path / "run", "--set"]
    refused(call(*words, "use.steps=2000"), "steps must be from 1 to 1000, got 2000")
    refused(call(*words, "training.monitor=val_loss"), "this run's validation has: heldout_loss, heldout_loss_shuffled")
    first = ["train", "synthesis.autoencoder_tiny", "--set", f"data.root={shop / 'data'}", "-o", tmp_path / "run"]
    refused(call(*first, "--set", "training.monitor=dice"), "this run's validation has: psnr, ssim, l1")
    assert not (tmp_path / "run").exists()


def test_held_out_images_need_no_prompts(shop: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(shop / "data", tmp_path / "data"))
    lines = (data / "notes.csv").read_text().splitlines()
    lines = [line.rpartition(",")[0] + "," if ",val," in line else line for line in lines]
    (data / "notes.csv").write_text("\n".join(lines) + "\n")
    words = ["train", "synthesis.msdm_tiny", "--set", f"data.root={data}", "--set", "training.max_steps=2"]
    done = call(*words, "--set", f"model.autoencoder.path={shop / 'ae'}", "-o", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "samples.png").is_file()


def test_a_run_whose_own_settings_cannot_be_is_refused_before_anything_is_written(shop: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    assert call("pack", shop / "run", "--set", "use.steps=5000", "-o", packed).exit_code == 0
    refused(call("generate", PROMPTS[0], "--model", packed, "-o", tmp_path / "out"), "steps must be from 1 to 1000")
    assert not (tmp_path / "out").exists()
    made = call("generate", PROMPTS[0], "--model", packed, "--steps", 2, "-o", tmp_path / "out")
    assert made.exit_code == 0, made.output


def test_a_sheet_of_somebody_else_is_kept(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "contact_sheet.png").write_text("mine")
    refused(call("generate", PROMPTS[0], "--model", shop / "run", "-o", tmp_path), "of no request known")
    assert (tmp_path / "contact_sheet.png").read_text() == "mine"


def test_the_held_out_loss_is_also_told_for_prompts_of_other_images(shop: Path, tmp_path: Path) -> None:
    """So that it shows whether the prompts are heeded, on the same noise and times."""
    paths = (f"data.root={shop / 'data'}", f"model.autoencoder.path={shop / 'ae'}")
    run = config.override(synthesis.msdm_tiny(), paths)
    job = run.job()
    assert job.settle is not None
    job.settle(tmp_path)
    notes = {record.id: record.notes for record in run.data.heldout()}
    draws: list[float] = []

    class Reader(torch.nn.Module):
        """Its loss is the share of images that were given another image's prompt."""

        denoiser = torch.nn.Linear(1, 1)

        def loss(self, batch: LatentBatch, rng: torch.Generator) -> dict[str, torch.Tensor]:
            draws.append(float(torch.rand((), generator=rng)))
            wrong = [note not in notes[one] for one, note in zip(batch.ids, batch.notes, strict=True)]
            return {"loss": torch.tensor(wrong).float().mean()}

    assert job.validate is not None
    found = job.validate(Reader())
    assert found["heldout_loss"] == 0
    assert found["heldout_loss_shuffled"] > 0
    assert draws[::2] == draws[1::2]
    assert len(set(draws)) == len(draws) // 2


def test_an_autoencoder_of_another_project_can_be_measured(shop: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    from medtextdiff import api
    from medtextdiff.diffusion import autoencoder

    AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(tmp_path / "theirs")
    report = api.measure_autoencoder(tmp_path / "theirs", data=shop / "data", out=tmp_path / "ours", size=16)
    again = autoencoder.Config(path=str(tmp_path / "ours")).build()
    assert again.report == report
    assert len(again.vae.config.latents_mean) == 4
    assert (tmp_path / "ours" / "reconstructions.png").is_file()
    with pytest.raises(ConfigError, match="exists"):
        api.measure_autoencoder(tmp_path / "theirs", data=shop / "data", out=tmp_path / "ours", size=16)


def test_its_denoiser_is_the_backbone_of_a_segmenter_by_path(shop: Path, tmp_path: Path) -> None:
    small = (
        "data.subset=[]",
        "data.augmentation.crop=32",
        "training.max_steps=2",
        "training.batch_size=2",
        "use.size=32",
    )
    words = [word for setting in (f"data.root={shop / 'data'}", *small) for word in ("--set", setting)]
    words += ["--set", f"model.denoiser.path={shop / 'run'}", "--set", "model.features.taps=1,3"]
    result = call("train", "segmentation.fasttextdiff_kvasir_10_latent", *words, "-o", tmp_path / "seg")
    assert result.exit_code == 0, result.output
    image = next((shop / "data" / "images").glob("*.png"))
    result = call("segment", image, "--note", "One disc.", "--model", tmp_path / "seg", "-o", tmp_path / "masks")
    assert result.exit_code == 0, result.output
    assert pixels(tmp_path / "masks" / f"{image.stem}_mask.png").shape == pixels(image).shape[:2]
