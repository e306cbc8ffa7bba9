"""`medtextdiff evaluate-synthesis`, end to end on made-up images, and what it says to bad input."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medtextdiff.api import image_sets
from medtextdiff.data.generated import Generated
from medtextdiff.synthesis.extractors import denoiser
from tests.jobs.conftest import SECRET, call, refused
from tests.jobs.made_up_endoscopy import write_generated, write_real


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """`data`, generated images `gen`, and a tiny denoiser `features`."""
    root = tmp_path_factory.mktemp("world")
    write_real(root / "data")
    write_generated(root / "gen")
    denoiser.Config.tiny(root / "features")
    return root


def evaluate(world, *words, source="gen", out="report", data="data"):
    return call(
        "evaluate-synthesis", world / source, "--data", world / data, "--extractor", world / "features",
        "--set", "taps=0,1", "--set", "size=32", "-o", out, *words,
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(world):
    """Of the generated images, two of which are copies of training images, one of them mirrored."""
    folder = Path(shutil.copytree(world / "gen", world / "copied"))
    again = Path(shutil.copytree(world / "data" / "images", world / "again"))
    for path in again.iterdir():
        noisy = np.asarray(Image.open(path)).astype(int) + np.random.default_rng(0).integers(-8, 8, 1)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
    for name, source, step in (("g000", "r003", 1), ("g001", "r004", -1)):
        pixels = np.asarray(Image.open(world / "data" / "images" / f"{source}.png").resize((32, 32)))
        Image.fromarray(np.ascontiguousarray(pixels[:, ::step])).save(folder / f"{name}.png")
    result = evaluate(
        world, "--reconstructions", again, "--protocol", "medvqa2024", source="copied", out=world / "refused"
    )
    refused(result, "needs an extractor that classifies")
    assert not (world / "refused").exists()
    result = evaluate(world, "--reconstructions", again, source="copied", out=world / "report")
    assert result.exit_code == 0, result.output
    return world / "report"


def test_the_report_is_complete_and_names_its_extractor(report):
    names = {path.name for path in report.iterdir()}
    assert names == {
        "report.json", "report.html", "quality.csv", "adherence.csv", "per_image.csv", "samples.png",
        "closest_pairs.png",
    }  # fmt: skip
    found = json.loads((report / "report.json").read_text())
    assert found["meta"]["extractor"].startswith("denoiser")
    assert len(found["meta"]["extractor sha256"]) == 64
    page = (report / "report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "")
    for heading in ("Quality", "Adherence to the prompt", "Memorisation", "How this was obtained"):
        assert heading in page


def test_rows_have_one_number_of_images_and_the_floor_is_there(report):
    rows = json.loads((report / "report.json").read_text())["quality"]
    assert [row["name"] for row in rows] == [
        "real, trained on (the floor)", "real, held out, reconstructed", "generated", "generated, prompts shuffled",
    ]  # fmt: skip
    assert {row["images"] for row in rows} == {24}
    floor, again, made, shuffled = (row["figures"] for row in rows)
    assert again["fid"]["mean"] < floor["fid"]["mean"]
    assert made["fid"] == shuffled["fid"]
    assert made["joint_fid"]["mean"] != shuffled["joint_fid"]["mean"]
    assert made["fid"]["low"] <= made["fid"]["mean"] <= made["fid"]["high"]


def test_images_that_obey_adhere(report):
    groups = {line["name"]: line for line in json.loads((report / "report.json").read_text())["adherence"]["groups"]}
    assert set(groups) == {"procedure", "polyp presence", "black box"}
    for name in ("procedure", "black box"):
        assert groups[name]["right"]["mean"] > groups[name]["shuffled"] + 0.2
        assert groups[name]["real"]["mean"] > 0.8


def test_copies_are_found_even_mirrored(report):
    with (report / "per_image.csv").open() as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert (rows["g000.png"]["pixels_nearest_train"], rows["g000.png"]["pixels_copied"]) == ("r003", "1")
    assert (rows["g001.png"]["pixels_nearest_train"], rows["g001.png"]["pixels_copied"]) == ("r004", "1")
    assert rows["g000.png"]["features_copied"] == "1"
    found = json.loads((report / "report.json").read_text())["memorisation"]
    assert found["pixels"]["copies"]["mean"] >= 2 / 24


class Toy:
    """A generator: the same noise for a seed, brighter for a colonoscopy."""

    device = torch.device("cpu")
    size = (32, 32)

    def reads(self, prompts):
        return ["gastroscopy" not in prompt for prompt in prompts]

    def generate(self, prompts, *, seed=0, steps=None):
        images = []
        for k, prompt in enumerate(prompts):
            noise = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(seed + k))
            images.append((noise + 0.4 * ("colonoscopy" in prompt)).clamp(0, 1))
        return torch.stack(images)


def test_a_run_generates_first_and_has_seeds_and_cost(world, tmp_path, monkeypatch):
    monkeypatch.setattr("medtextdiff.api.evaluating_synthesis._load", lambda source, device: Toy())
    result = evaluate(world, "--seeds", "0,1,2", "-n", "20", "--steps", "3", source="nowhere", out=tmp_path / "report")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    made = next(row for row in found["quality"] if row["name"] == "generated")
    assert (made["images"], made["spread"]) == (20, "3 seeds")
    assert found["cost"]["batch"] == 4
    assert found["cost"]["seconds"] > 0
    with open(tmp_path / "report" / "quality.csv", encoding="utf-8", newline="") as file:
        told = {line["row"]: line["seconds"] for line in csv.DictReader(file)}
    assert float(told["generated"]) == pytest.approx(found["cost"]["seconds"], rel=1e-6)
    assert told["real, trained on (the floor)"] == told["generated, prompts shuffled"] == ""
    assert "--steps 3" in found["meta"]["command"]


def test_the_2025_protocol_takes_pairs_of_wordings(world, tmp_path):
    folder = Path(shutil.copytree(world / "gen", tmp_path / "pairs"))
    wordings = ["Generate an image with no polyps.", "An image without any polyp."]
    rows = [f"g{k:03d}.png,{wordings[k % 2]},polyp" for k in range(24)]
    (folder / "prompts.csv").write_text("\n".join(["file,prompt,pair", *rows]) + "\n")
    result = evaluate(world, "--protocol", "medvqa2025", source=folder, out=tmp_path / "report")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "report" / "report.json").read_text())["challenge"]
    assert 0 < found["fidelity"] < 1000
    assert {"agreement", "diversity", "fbd", "fidelity, all pairs"} <= found.keys()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--extractor", "inceptoin"), "no extractor 'inceptoin'"),
        (("--protocol", "medvqa2023"), "did you mean 'medvqa202"),
        (("--protocol", "medvqa2025"), "add the column 'pair'"),
        (("--seeds", "a"), "seeds are whole numbers"),
        (("--seeds", "1,1"), "each seed once"),
        (("-n", "0"), "-n 0 is too few"),
        (("-n", "30"), "leave out -n"),
        (("--steps", "5"), "leave out -n and the sampling options"),
        (("--fit", "stretch"), "no fit 'stretch'"),
        (("--size", "4"), "cannot be compared at 4 pixels"),
        (("--split", "test"), "no split 'test'"),
        (("--split", "train"), "split and train_split are both 'train'"),
        (("--reconstructions", "nowhere"), "nowhere is not a folder"),
        (("--set", "taps=99"), "taps go from -1"),
        (("--set", "timestep=5000"), "cannot read images of 32 px"),
        (("--set", "tips=1"), "'tips' is unknown"),
        (("--device", "gpuu"), "no device 'gpuu'"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(words, says, world, tmp_path):
    refused(evaluate(world, *words, out=tmp_path / "report"), says)
    assert list(tmp_path.iterdir()) == []


def test_bad_tables_and_sources(world, tmp_path):
    folder = Path(shutil.copytree(world / "gen", tmp_path / "gen"))
    table = folder / "prompts.csv"
    good = table.read_text()
    (folder / "g003.png").unlink()
    refused(evaluate(world, source=folder, out=tmp_path / "report"), "1 images are not there (line 5)")
    table.write_text(good.replace("file,prompt", "file,promt"))
    refused(evaluate(world, source=folder, out=tmp_path / "report"), "rename 'promt' to 'prompt'?")
    table.write_text("file,prompt\n" + f"g001.png,{SECRET}\ng002.png,{SECRET}\n")
    refused(evaluate(world, source=folder, out=tmp_path / "report"), "fewer than 20 cannot be compared")
    table.unlink()
    refused(evaluate(world, source=folder, out=tmp_path / "report"), "has no prompts.csv")
    refused(evaluate(world, source="nowhere", out=tmp_path / "report"), "no model or run folder")
    refused(evaluate(world, "--size", "48", source="msdm-gi-small", out=tmp_path / "report"), "generate them first")
    refused(evaluate(world, data="nowhere", out=tmp_path / "report"), "does not exist")
    assert not (tmp_path / "report").exists()


def test_real_images_are_counted_before_any_is_generated(tmp_path):
    write_real(tmp_path / "data", train=39, val=20)
    result = call("evaluate-synthesis", "msdm-gi-small", "--data", tmp_path / "data", "-o", tmp_path / "report")
    refused(result, "split 'train' has 39 images; fewer than 40 cannot be compared")
    assert "generated" not in result.output


def test_a_real_image_that_cannot_be_read_is_told_before_any_is_generated(world, tmp_path, monkeypatch):
    monkeypatch.setattr("medtextdiff.api.evaluating_synthesis._load", lambda source, device: Toy())
    data = Path(shutil.copytree(world / "data", tmp_path / "data"))
    broken = sorted((data / "images").iterdir())[-1]
    broken.write_bytes(broken.read_bytes()[:40])
    result = evaluate(world, "-n", "20", source="nowhere", data=data, out=tmp_path / "report")
    assert result.exit_code == 2
    *before, last = result.output.strip().splitlines()
    assert last.startswith("error: ")
    assert broken.name in last
    assert not any("generated" in line for line in before)
    assert not (tmp_path / "report").exists()


def test_held_out_images_without_prompts_leave_out_what_needs_them(world, tmp_path):
    data = Path(shutil.copytree(world / "data", tmp_path / "data"))
    lines = (data / "notes.csv").read_text().splitlines()
    bare = [line if ",val," not in line else f"{line.split(',')[0]},val," for line in lines]
    (data / "notes.csv").write_text("\n".join(dict.fromkeys(bare)) + "\n")
    result = evaluate(world, data=data, out=tmp_path / "report")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    assert found["adherence"] == {"groups": [], "attributes": []}
    assert "No held-out image has a prompt" in " ".join(found["remarks"])


def test_a_segmenter_makes_no_images(world, tmp_path):
    result = call("evaluate-synthesis", "nuclei-small", "--data", world / "data", "-o", tmp_path / "report")
    refused(result, "makes no images from prompts")
    assert not (tmp_path / "report").exists()


def test_a_report_is_not_overwritten_unasked(report, world):
    before = (report / "report.html").read_bytes()
    refused(evaluate(world, out=report), "overwrite it with --overwrite")
    assert (report / "report.html").read_bytes() == before


def test_repetitions_of_a_folder_are_those_of_its_prompts(tmp_path: Path) -> None:
    """Three requests of two images, one prompt twice: two repetitions, not as many as seeds."""
    items = [Generated(tmp_path / f"{k}.png", "aabbaa"[k], k, "m") for k in range(6)]
    assert image_sets._rounds(items) == [0, 1, 0, 1, 0, 1]
    assert image_sets._rounds(items[:5]) == [0] * 5  # one is missing
