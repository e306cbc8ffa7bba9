"""Train an adapter on a made-up data set from a tiny base folder, generate, merge: through the CLI."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import medtextdiff
from medtextdiff import api, recipes
from medtextdiff.config import ConfigError
from medtextdiff.synthesis import lora, memory
from tests.jobs.conftest import SECRET, call, refused, stopped, told_nowhere, write_data
from tests.synthesis import tiny_bases

PROMPT = "one disc on the left"
ADAPTER = "transformer/pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, whose notes hold the secret, `base`, and `run`, trained on both."""
    root = tmp_path_factory.mktemp("shop")
    table = write_data(root / "data") / "notes.csv"
    table.write_text(table.read_text().replace("One disc", f"One {SECRET} disc"))
    tiny_bases.write_flux(root / "base")
    done = call(*train(root), "-o", root / "run")
    assert done.exit_code == 0, done.output
    return root


def train(root: Path, *more: str, base: str = "base") -> list[object]:
    settings = ["model.dtype=float32", "model.max_tokens=16", "data.size=32", "training.max_steps=4"]
    settings += ["training.precision=float32", "training.learning_rate=0.01", *more]
    words = [word for setting in settings for word in ("--set", setting)]
    places = ["--set", f"data.root={root / 'data'}", "--set", f"model.base={root / base}"]
    return ["train", "synthesis.flux_lora", *places, *words]


def test_a_run_holds_the_adapter_and_no_base(shop: Path) -> None:
    names = {path.name for path in (shop / "run").iterdir()}
    assert {"config.json", "manifest.json", "transformer"} <= names
    assert {path.name for path in (shop / "run" / "transformer").iterdir()} == {
        "adapter.json",
        "pytorch_lora_weights.safetensors",
    }
    assert all(".lora_" in name for name in load_file(shop / "run" / ADAPTER))
    assert json.loads((shop / "run" / "config.json").read_text())["model"]["transformer"]["path"] == "./transformer"
    told_nowhere(shop / "run")


def test_generate_makes_images_that_the_adapter_changed(shop: Path, tmp_path: Path) -> None:
    done = call("generate", PROMPT, "--model", shop / "run", "-n", 2, "--steps", 2, "--seed", 5, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    with open(tmp_path / "out" / "prompts.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["sampler"], row["guidance"]) for row in rows] == [
        ("5", "euler", "3.5"),
        ("6", "euler", "3.5"),
    ]
    with Image.open(tmp_path / "out" / "000000.png") as image:
        assert image.size == (32, 32)
        assert "Synthetic" in image.text
    model = medtextdiff.load(shop / "run", precision="float32")
    ours = model.generate([PROMPT, "a polyp"], seed=5, steps=2)
    torch.testing.assert_close(model.generate("a polyp", seed=6, steps=2), ours[1:], atol=1e-4, rtol=0)
    for tensor in model.system.transformer.tensors().values():
        tensor.zero_()
    assert not torch.equal(model.generate([PROMPT, "a polyp"], seed=5, steps=2), ours)


def test_merged_networks_make_the_same_images(shop: Path, tmp_path: Path) -> None:
    from diffusers import FluxTransformer2DModel

    done = call("merge", shop / "run", "-o", tmp_path / "merged")
    assert done.exit_code == 0, done.output
    model = medtextdiff.load(shop / "run", precision="float32")
    ours = model.generate(PROMPT, steps=2)
    model.system.transformer.network = FluxTransformer2DModel.from_pretrained(tmp_path / "merged" / "transformer")
    torch.testing.assert_close(model.generate(PROMPT, steps=2), ours, atol=1e-4, rtol=0)
    refused(call("merge", shop / "run", "-o", tmp_path / "merged"), "exists")


def test_training_goes_on_to_the_same_bits(shop: Path, tmp_path: Path) -> None:
    assert call(*train(shop, "training.max_steps=2"), "-o", tmp_path / "run").exit_code == 0
    (tmp_path / "run" / "manifest.json").unlink()
    done = call(*train(shop), "-o", tmp_path / "run")
    assert done.exit_code == 0, done.output
    ours, theirs = (load_file(run / ADAPTER) for run in (tmp_path / "run", shop / "run"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_training_goes_on_on_its_own_base_alone(shop: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(shop / "base", tmp_path / "base"))
    words = train(shop, f"model.base={base}")
    assert call(*words, "--set", "training.max_steps=2", "-o", tmp_path / "run").exit_code == 0
    (tmp_path / "run" / "manifest.json").unlink()
    shutil.rmtree(base)
    tiny_bases.write_flux(base, seed=1)
    stopped(call(*words, "-o", tmp_path / "run"), "the first is 'base of the transformer'")


def test_arrays_of_another_tokenizer_are_not_taken_for_these(shop: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(shop / "base", tmp_path / "base"))
    words = train(shop, f"model.base={base}", f"cache={tmp_path / 'cache'}", "training.max_steps=1")
    assert call(*words, "-o", tmp_path / "a").exit_code == 0
    before = len(list((tmp_path / "cache").iterdir()))
    settings = base / "tokenizer" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"padding_side": "left"}))
    assert call(*words, "-o", tmp_path / "b").exit_code == 0
    assert len(list((tmp_path / "cache").iterdir())) > before


def test_a_base_may_have_moved_but_not_changed(shop: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(shop / "base", tmp_path / "moved"))
    words = ["generate", PROMPT, "--model", shop / "run", "--steps", 1, "-o", tmp_path / "out"]
    assert call(*words, "--base", moved).exit_code == 0
    other = tiny_bases.write_flux(tmp_path / "other", seed=1)
    words[-1] = tmp_path / "out2"
    refused(call(*words, "--base", other), "trained for another base")
    refused(call(*words, "--prior-base", other), "leave out --prior-base")
    shutil.rmtree(moved / "vae")
    refused(call(*words, "--base", moved), "lacks its 'vae'")
    assert not (tmp_path / "out2").exists()


def test_what_cannot_be_trained_is_refused_before_it_begins(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    refused(call(*train(shop, base="nowhere"), "-o", out), "neither a folder nor a model id")
    refused(call(*train(shop, "data.size=40"), "-o", out), "no multiple of 16")
    refused(call(*train(shop, "model.transformer.targets=to_x"), "-o", out), "ends in 'to_x'")
    refused(call("generate", PROMPT, "--model", shop / "run", "--sampler", "ddim", "-o", out), "Known: euler")
    refused(
        call("generate", f"{SECRET} " * 20, "--model", shop / "run", "-o", out), "prompt 1 has 20 words (21 tokens)"
    )
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    refused(call(*train(shop), "-o", out), "GB are free")
    assert not out.exists()


@pytest.mark.slow
def test_a_decoder_goes_with_a_prior_trained_before(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    base, prior_base = tiny_bases.write_kandinsky22(tmp_path / "bases")
    settings = [f"data.root={tmp_path / 'data'}", f"model.base={base}", f"model.prior_base={prior_base}"]
    settings += ["model.dtype=float32", "data.size=64", "training.max_steps=2", "training.batch_size=4"]
    settings += ["training.accumulation=2", "use.steps=2", "use.prior_steps=2"]
    both = [word for setting in settings for word in ("--set", setting)]
    first = call("train", "synthesis.kandinsky22_prior_lora", *both, "-o", tmp_path / "first")
    assert first.exit_code == 0, first.output
    run = recipes.find("synthesis.kandinsky22_decoder_lora")
    trained = lora.Config(path=str(tmp_path / "first" / "prior"))
    api.train(run.replace(model=run.model.replace(prior=trained)), settings=settings, out=tmp_path / "second")
    assert {"prior", "decoder"} <= {path.name for path in (tmp_path / "second").iterdir()}
    (tmp_path / "first").rename(tmp_path / "gone")
    model = medtextdiff.load(tmp_path / "second")
    for sampler in ("ddpm", "ddim"):
        assert model.generate(PROMPT, seed=1, sampler=sampler).shape == (1, 3, 64, 64)
    assert model.precision == "float32"
    with pytest.raises(ConfigError, match=r"model\.dtype=float32; leave out --precision"):
        medtextdiff.load(tmp_path / "second", precision="bf16")
    assert model.reads([PROMPT, "a very long prompt " * 90]) == [True, False]
    ours, theirs = (load_file(tmp_path / name / "prior" / lora.WEIGHTS) for name in ("second", "gone"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
