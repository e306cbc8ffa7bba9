import json

import pytest
import torch

from medtextdiff.config import ConfigError, from_json, override, to_json
from medtextdiff.recipes import text
from medtextdiff.text.encoders import huggingface
from medtextdiff.training.errors import RunError


@pytest.fixture
def run(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"Report {n}: nuclei in the upper right." for n in range(300)))
    (tmp_path / "notes.csv").write_text("note,split\n" + "".join(f"polyp {n} mm,train\n" for n in range(100)))
    settings = [
        "texts=" + json.dumps({str(tmp_path / "a.txt"): 2}),
        "tables=" + json.dumps({str(tmp_path / "notes.csv"): 3}),
        "vocabulary=300",
        "length=32",
        "model.width=16",
        "model.layers=2",
        "model.heads=1",
        "model.mlp_width=16",
        "training.max_steps=3",
        "training.batch_size=4",
        "training.validate_every=2",
        "training.precision=float32",
    ]
    return override(text.modernbert_small(), settings)


def test_it_goes_to_json_and_back(run):
    assert from_json(to_json(run)) == run


def test_a_run_gives_a_plain_folder_that_encodes_notes(run, tmp_path):
    from medtextdiff import api

    out = tmp_path / "run"
    api.train(run, out=out, device="cpu")
    encoder = huggingface.Config(path=str(out / "text")).build()
    assert encoder.width == 16
    assert encoder(["Nuclei in the upper right.", ""]).mask.any(1).tolist() == [True, False]
    assert "heldout_loss" in (out / "metrics.jsonl").read_text()


def test_the_same_run_makes_the_same_tokenizer_and_rows(run):
    first, second = run.job(), run.job()
    assert first.model.text.tokenizer.get_vocab() == second.model.text.tokenizer.get_vocab()
    assert all((first.data.row(k)[0] == second.data.row(k)[0]).all() for k in range(len(first.data)))
    assert sorted(first.data_hashes) == sorted([*run.texts, *run.tables])


def test_told_sentences_are_no_longer_than_the_encoder_takes(run, tmp_path):
    sentence = (
        "The left upper lobe shows a consolidation and " + "very " * 20 + "many nodules of the right lung in case"
    )
    (tmp_path / "a.txt").write_text("\n\n".join(f"{sentence} {n}." for n in range(300)))
    settings = ['contrast={"num": 4}', "model.max_tokens=32", "tables={}"]
    job = override(run, settings).job()
    sample = job.data.sample(0, torch.Generator().manual_seed(0))
    assert 0 < sample["told_lengths"].max() <= 32


def test_lora_trains_a_head_that_is_new(run, tmp_path):
    """Left frozen it would stay random, and the adapters would learn to suit it."""
    made = run.job().model.text
    made.model.model.save_pretrained(tmp_path / "bare")  # without the head
    made.tokenizer.save_pretrained(tmp_path / "bare")
    going_on = {"kind": "medtextdiff.text.masked.pretrained", "path": str(tmp_path / "bare")}
    model = override(run, [f"model={json.dumps(going_on)}", "lora.rank=2"]).job().model
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    others = {name for name in trained if "lora_" not in name}
    assert others == {f"text.model.{name}" for name in ("head.dense.weight", "head.norm.weight", "decoder.bias")}


def test_a_run_goes_on_with_its_own_tokenizer_alone(run, tmp_path):
    from medtextdiff import api

    out, path = tmp_path / "run", tmp_path / "words"
    run.job().model.text.tokenizer.save_pretrained(path)
    own = override(run, [f"tokenizer={path}"])
    api.train(override(own, ["training.max_steps=2"]), out=out, device="cpu")
    (out / "manifest.json").unlink()
    words = json.loads((path / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (path / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(RunError, match="'tokenizer'"):
        api.train(own, out=out, device="cpu")


def test_a_run_without_text_says_what_to_give():
    with pytest.raises(ConfigError, match="name files"):
        text.modernbert_small().job()
