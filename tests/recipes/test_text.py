import json

import pytest

from medtextdiff.config import ConfigError, from_json, override, to_json
from medtextdiff.recipes import text
from medtextdiff.text.encoders import huggingface


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


def test_a_run_without_text_says_what_to_give():
    with pytest.raises(ConfigError, match="name files"):
        text.modernbert_small().job()
