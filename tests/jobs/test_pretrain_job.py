"""Pre-training a text encoder through the commands: from MIMIC notes, from a folder, with LoRA, and what is refused."""

import gzip
import itertools
import json
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from medtextdiff.text import tokenizer
from medtextdiff.text.encoders import huggingface

from .conftest import SECRET, call, refused, told_nowhere

HEADER = "ROW_ID,SUBJECT_ID,HADM_ID,CHARTDATE,CHARTTIME,STORETIME,CATEGORY,DESCRIPTION,CGID,ISERROR,TEXT"
SMALL = (
    *("vocabulary=290", "length=256", "model.width=16", "model.layers=2", "model.heads=2", "model.mlp_width=16"),
    *("training.max_steps=3", "training.validate_every=2", "training.precision=float32"),
)
BRIEF = ("length=256", "training.max_steps=2", "training.batch_size=2", "training.accumulation=1")


def settings(*words: str) -> list[str]:
    return [part for word in words for part in ("--set", word)]


def write_notes(path: Path) -> Path:
    rows = [
        f'{n},{n % 40},,2151-07-16,,,"Radiology","CHEST",,,"FINDINGS: {SECRET}\nin line {n}, [**Hospital1 18**].\n"'
        for n in range(120)
    ]
    path.write_bytes(gzip.compress("\n".join([HEADER, *rows]).encode()))
    return path


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return write_notes(tmp_path / "NOTEEVENTS.csv.gz")


@pytest.fixture
def trained(tmp_path: Path, notes: Path) -> Path:
    chosen = settings(*SMALL, f"mimic3.paths={notes}", "mimic3.heldout=0.2")
    done = call("train", "text.modernbert_small", *chosen, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert SECRET not in done.output
    return tmp_path / "run"


def test_notes_become_an_encoder_and_a_report(trained: Path) -> None:
    told_nowhere(trained)
    encoder = huggingface.Config(path=str(trained / "text")).build()
    assert encoder(["Findings: a nodule."]).tokens.shape[-1] == 16
    report = json.loads((trained / "corpora.json").read_text())["mimic3"]
    assert report["rows"] == 120
    assert sum(report["documents"].values()) == 120
    assert sum(report["patients"].values()) == 40
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    scores = [line for line in lines if line["event"] == "validation"]
    assert {"heldout_loss", "heldout_masked_accuracy", "heldout_perplexity_per_word"} <= set(scores[-1])
    assert all(line["tokens_per_second"] > 0 for line in lines if line["event"] == "train")
    locked = json.loads((trained / "lock.json").read_text())
    assert [Path(name).name for name in locked["data"]] == ["NOTEEVENTS.csv.gz"]


def test_a_bert_is_trained_with_the_same_tokenizer(trained: Path, notes: Path, tmp_path: Path) -> None:
    same = settings(*SMALL, f"mimic3.paths={notes}", "mimic3.heldout=0.2", f"tokenizer={trained / 'text'}")
    done = call("train", "text.bert_small", *same, "--set", "model.max_tokens=64", "-o", tmp_path / "bert")
    assert done.exit_code == 0, done.output
    vocabularies = [(run / "text" / "tokenizer.json").read_bytes() for run in (trained, tmp_path / "bert")]
    assert vocabularies[0] == vocabularies[1]
    assert huggingface.Config(path=str(tmp_path / "bert" / "text")).build().limit == 64


@pytest.mark.parametrize("rank", [0, 2])
def test_a_folder_is_trained_on_whole_or_by_lora(trained: Path, notes: Path, tmp_path: Path, rank: int) -> None:
    path = ("--set", f"model.path={trained / 'text'}", "--set", f"mimic3.paths={notes}", "--set", "mimic3.heldout=0.2")
    more = settings(*BRIEF, f"lora.rank={rank}", "training.learning_rate=0.05", "training.warmup_steps=0")
    done = call("train", "text.modernbert_mlm", *path, *more, "-o", tmp_path / "more")
    assert done.exit_code == 0, done.output
    before = huggingface.Config(path=str(trained / "text")).build()
    after = huggingface.Config(path=str(tmp_path / "more" / "text")).build()
    assert not torch.allclose(before(["a nodule"]).pooled, after(["a nodule"]).pooled, atol=1e-3)
    frozen = torch.equal(before.model.embeddings.tok_embeddings.weight, after.model.embeddings.tok_embeddings.weight)
    assert frozen == (rank > 0)
    names = {name for name, _ in after.model.named_parameters()}
    assert names == {name for name, _ in before.model.named_parameters()}


def test_what_cannot_be_read_is_told_in_a_line_and_the_rest_is_trained_on(notes: Path, tmp_path: Path) -> None:
    notes.write_bytes(notes.read_bytes()[:-20])
    chosen = settings(*SMALL, f"mimic3.paths={notes}", "mimic3.heldout=0.2")
    done = call("train", "text.modernbert_small", *chosen, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "cut short" in done.stderr
    assert SECRET not in done.output


def test_what_cannot_be_trained_is_refused(trained: Path, notes: Path, tmp_path: Path) -> None:
    def train(recipe: str, *words: str) -> Result:
        return call("train", recipe, *settings(*words), "-o", tmp_path / "no")

    corpus = f"mimic3.paths={notes}"
    refused(train("text.modernbert_small"), "no text")
    refused(train("text.modernbert_mlm", corpus), "name its folder")
    refused(train("text.modernbert_mlm", corpus, f"model.path={tmp_path}"), "no tokenizer")
    refused(train("text.modernbert_small", corpus, "mimic3.categories=Echo"), "120 of another category")
    refused(train("text.modernbert_small", corpus, "mimic3.min_characters=1000"), "no document to train on")
    (tmp_path / "other.csv").write_text(f"ROW_ID,TEXT\n1,{SECRET}\n")
    refused(train("text.modernbert_small", f"mimic3.paths={tmp_path / 'other.csv'}"), "no column 'subject_id'")
    large = tokenizer.train(["".join(pair) * 2 for pair in itertools.product("abcdefghijklmnop", repeat=2)], size=400)
    assert len(large) == 400
    large.save_pretrained(tmp_path / "large")
    fitting = (corpus, f"model.path={trained / 'text'}", f"tokenizer={tmp_path / 'large'}", *BRIEF)
    refused(train("text.modernbert_mlm", *fitting), "does not fit its model")
    no_mask = json.loads((trained / "text" / "tokenizer_config.json").read_text())
    del no_mask["mask_token"]
    (trained / "text" / "tokenizer_config.json").write_text(json.dumps(no_mask))
    refused(train("text.modernbert_mlm", corpus, f"model.path={trained / 'text'}", *BRIEF), "no mask_token")
    assert not (tmp_path / "no").exists()
