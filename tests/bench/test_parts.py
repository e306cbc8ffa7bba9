"""The published way and ours compute the same; the tables are written whole."""

import json

import numpy as np
import pytest
import torch

from medtextdiff.bench import parts, published_path, run, synthesis_parts, text_parts
from medtextdiff.bench.models import Bed
from medtextdiff.config import ConfigError
from medtextdiff.segmentation import feature_bank


@pytest.fixture(scope="module")
def bed():
    return Bed(full=False, side=64, bf16=False)


@torch.no_grad()
@pytest.mark.parametrize("name", ["monuseg", "qata"])
def test_both_ways_give_the_same(bed, name):
    extract, module = bed.features(name), bed.head(name)
    levels = extract(bed.denoiser, bed.images)
    expected = published_path.levels(extract, bed.denoiser, bed.images)
    for level, other in zip(levels, expected, strict=True):
        torch.testing.assert_close(level, other, atol=1e-5 * float(other.abs().max()), rtol=0)
    logits = module(levels, bed.text, bed.box, bed.size)
    plain = published_path.head(module, expected, bed.text.tokens, bed.size)
    torch.testing.assert_close(logits, plain, atol=1e-4 * float(plain.abs().max()), rtol=0)


@pytest.mark.parametrize("part", ["head", "prediction", "epoch", "ours"])
def test_a_part_gives_rows_and_errors(bed, part):
    rows, errors = parts.PARTS[part](bed, 1)
    assert len(rows) >= 2
    assert all(row.seconds > 0 for row in rows)
    assert all(error < 1e-4 for error in errors.values())


def test_tables_are_written_as_json_and_markdown(tmp_path, monkeypatch, bed):
    monkeypatch.setitem(parts.PARTS, "ours", lambda _bed, runs: parts.ours(bed, runs))
    tables = run.bench(["ours"], out=tmp_path / "t.json", runs=1, small=True)
    assert tables["ours"][0][0] == "what"
    written = json.loads((tmp_path / "t.json").read_text())
    assert written["machine"]["peak_gflops_float32"] > 0
    assert [row["name"] for row in written["parts"]["ours"]] == [row[0] for row in tables["ours"][1:]]
    run.bench(["ours"], out=tmp_path / "t.md", runs=1, small=True)
    assert "| what |" in (tmp_path / "t.md").read_text()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"what": ["heads"]}, "did you mean 'head'"),
        ({"runs": 0}, "1 or more"),
        ({"out": "t.txt"}, "as .json or .md"),
    ],
)
def test_bad_input_is_told_before_anything_is_measured(tmp_path, given, said):
    if "out" in given:
        given = given | {"out": tmp_path / given["out"]}
    with pytest.raises(ConfigError, match=said):
        run.bench(**{"what": ["head"], **given})


def test_images_are_banked_once(monkeypatch):
    made = []
    levels = feature_bank.FeatureBank.levels
    monkeypatch.setattr(
        feature_bank.FeatureBank, "levels", lambda self, *given: (made.append(self), levels(self, *given))[1]
    )
    rows, _ = parts.bank(Bed(full=False, side=32, bf16=False), 1, num=10)
    assert [row.name for row in rows] == [
        "1 images banked",
        "an epoch on 1 of them",
        "10 images banked",
        "an epoch on 10 of them",
    ]
    assert (made[-1].made, made[-1].found) == (10, 10)


def test_encoders_are_compared_at_every_size(monkeypatch):
    monkeypatch.setattr(text_parts, "_GRID", ((1, 16), (2, 600)))
    monkeypatch.setattr(text_parts, "_MIXED", (3, 4, 20))
    rows, _ = text_parts.encoders(Bed(full=False, bf16=False), 1)
    names = [row.name for row in rows]
    assert len(names) == 2 * 4
    assert names[0] == "1 x 16: BERT-base, float32"
    assert "more positions than it has" in names[2]
    assert [row.faster for row in rows[::2]] == [1.0] * 4


def test_the_padded_and_the_single_notes_hold_the_same_words():
    """Else the two mixed tables would not measure the same work."""
    bed, lengths = Bed(full=False, bf16=False), np.array([3, 7, 5])
    [(_ids, real)] = text_parts._padded(bed, lengths)
    assert real.sum(1).tolist() == [3, 7, 5]
    assert [ids.shape[1] for ids, _ in text_parts._alone(bed, lengths)] == [3, 7, 5]


def test_notes_are_encoded_by_the_model_that_ships():
    rows, _ = text_parts.notes(Bed(full=False, bf16=False), 1, num=3)
    assert len(rows) == 3
    assert all(row.seconds > 0 for row in rows)


def test_the_generator_that_ships_is_measured_guided_and_not(monkeypatch):
    monkeypatch.setattr(synthesis_parts, "_BATCH", 1)
    rows, errors = synthesis_parts.generation(Bed(full=False, bf16=False), 1, steps=1)
    assert [row.name for row in rows] == [
        "1 images, 1 steps, guidance 2, float32",
        "1 images, 1 steps, guidance 1, float32",
        "latent U-Net, a pass of 2, float32",
    ]
    guided, unguided, a_pass = (row.gflop for row in rows)
    assert guided - unguided == pytest.approx(a_pass / 2, rel=0.01)  # the prompts' half and the empty ones'
    assert errors == {}
