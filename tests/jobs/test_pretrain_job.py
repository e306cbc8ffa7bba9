"""Pre-training a text encoder through the commands: from MIMIC notes, from a folder, with LoRA, and what is refused."""

import gzip
import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import Result

from medtextdiff import api
from medtextdiff.config import override
from medtextdiff.recipes import text
from medtextdiff.recipes.job import Job
from medtextdiff.text import tokenizer
from medtextdiff.text.encoders import huggingface
from medtextdiff.training.errors import Interrupted

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


def test_a_student_is_taught_by_a_teacher_with_other_words(trained: Path, notes: Path, tmp_path: Path) -> None:
    shared = ("length=128", "longest=64", "training.max_steps=2", "training.validate_every=2", f"mimic3.paths={notes}")
    student = ("vocabulary=270", "model.width=8", "model.layers=1", "model.heads=2", "model.mlp_width=8")
    words = settings(*shared, *student, "mimic3.heldout=0.2", f"teacher={trained / 'text'}")
    done = call(
        "train", "text.modernbert_distilled", *words, "--set", "distillation.mlm_weight=0.1", "-o", tmp_path / "d"
    )
    assert done.exit_code == 0, done.output
    told_nowhere(tmp_path / "d")
    assert huggingface.Config(path=str(tmp_path / "d" / "text")).build().width == 8
    assert not (tmp_path / "d" / "teacher").exists()
    assert "heldout_words" in (tmp_path / "d" / "metrics.jsonl").read_text()
    refused(call("train", "text.modernbert_distilled", *settings(*shared), "-o", tmp_path / "no"), "no teacher")


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_stopped_run_ends_with_the_same_bits(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    chosen = [*SMALL, f"mimic3.paths={notes}", "mimic3.heldout=0.2", f"training.precision={precision}"]
    run = override(text.modernbert_small(), [*chosen, "training.max_steps=4", "training.max_minutes=null"])
    api.train(run, out=tmp_path / "whole", device="cpu")
    real = text.Run.job

    def stopping(self: text.Run) -> Job:
        job = real(self)

        def after_step(model: object, step: int) -> None:
            if step == 2 and not (tmp_path / "stopped").exists():
                (tmp_path / "stopped").touch()
                signal.raise_signal(signal.SIGTERM)

        job.after_step = after_step
        return job

    monkeypatch.setattr(text.Run, "job", stopping)
    with pytest.raises(Interrupted):
        api.train(run, out=tmp_path / "parts", device="cpu")
    api.train(run, out=tmp_path / "parts", device="cpu")
    whole, parts = (load_file(tmp_path / name / "text" / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_batch(notes: Path, tmp_path: Path) -> None:
    """Each loss is a mean over its own questions, so the two agree in direction, not in the last digit."""
    chosen = settings(*SMALL, f"mimic3.paths={notes}", "mimic3.heldout=0.2", "training.batch_size=2", "length=128")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    words = [
        "-m",
        "medtextdiff",
        "train",
        "text.modernbert_small",
        *chosen,
        "--device",
        "cpu",
        "-o",
        str(tmp_path / "two"),
    ]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    one = call("train", "text.modernbert_small", *chosen, "--device", "cpu", "-o", tmp_path / "one")
    assert one.exit_code == 0, one.output

    def losses(name: str) -> list[float]:
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if line["event"] == "train"]

    assert losses("two") == pytest.approx(losses("one"), rel=0.02)
    assert huggingface.Config(path=str(tmp_path / "two" / "text")).build().width == 16


def test_an_encoder_goes_on_with_contrast_and_a_teacher(trained: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    lines = [f"A small mass {n} cm above the {side} hilum.\n" for n in range(40) for side in ("left", "right")]
    corpus.write_text("\n".join(lines), encoding="utf-8")
    about = (f"model.path={trained / 'text'}", f'texts={{"{corpus}": 1}}', "training.max_steps=2", "contrast.num=4")
    small = ("length=64", "training.precision=float32", "training.max_minutes=null")
    done = call("train", "text.modernbert_contrast", *settings(*about, *small), "-o", tmp_path / "more")
    assert done.exit_code == 0, done.output
    scores = [json.loads(line) for line in (tmp_path / "more" / "metrics.jsonl").read_text().splitlines()]
    assert 0 <= scores[0]["told_apart"] <= 1
    assert "heldout_told_apart" not in scores[-1]  # two sentences held out are no contest
    named = ", ".join(name for name in scores[-1] if name.startswith("heldout_"))
    wrong = settings(*about, *small, "training.monitor=heldout_told_apart")
    refused(call("train", "text.modernbert_contrast", *wrong, "-o", tmp_path / "none"), f"validation has: {named}")
    assert not (tmp_path / "none").exists()
    assert (tmp_path / "more" / "text" / "tokenizer.json").is_file()
    taught = (*about[1:], *small, f"teacher={trained / 'text'}", "longest=24", "vocabulary=270", "model.width=8")
    shape = ("model.layers=1", "model.heads=2", "model.mlp_width=8", "contrast.asserted=0.25")
    done = call("train", "text.modernbert_taught", *settings(*taught, *shape), "-o", tmp_path / "taught")
    assert done.exit_code == 0, done.output
    scores = [json.loads(line) for line in (tmp_path / "taught" / "metrics.jsonl").read_text().splitlines()]
    assert {"words", "pooled", "mlm", "told_apart", "rest_loss"} <= set(scores[0])
    parts = 2 * scores[0]["words"] + 4 * scores[0]["pooled"] + 0.3 * scores[0]["mlm"]
    assert scores[0]["rest_loss"] == pytest.approx(parts, rel=1e-4)
    told = 0.5 * scores[0]["contrast"] + 0.25 * scores[0]["asserted"]
    assert scores[0]["loss"] == pytest.approx(parts + told, rel=1e-4)
    named = ", ".join(name for name in scores[-1] if name.startswith("heldout_"))
    assert named == "heldout_loss, heldout_words, heldout_pooled, heldout_mlm"
    wrong = settings(*taught, *shape, "training.monitor=dice")
    refused(call("train", "text.modernbert_taught", *wrong, "-o", tmp_path / "none"), f"validation has: {named}")
    old = ("model=pretrained", *about[:1], *taught[: len(taught) - 1])
    refused(call("train", "text.modernbert_taught", *settings(*old), "-o", tmp_path / "none"), "trained already")
    pairs = itertools.product("abcdefghijklmnopqrst", repeat=2)
    corpus.write_text("\n\n".join(f"The heart is seen, {a}{b}." for a, b in pairs), encoding="utf-8")
    refused(
        call("train", "text.modernbert_contrast", *settings(*about, *small), "-o", tmp_path / "none"), "contrast=null"
    )
