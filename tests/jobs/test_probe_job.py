"""`probe` end to end, with tiny encoders."""

import csv
import json
from pathlib import Path

import pytest

from medtextdiff.api import probing
from medtextdiff.text.encoders import tiny
from tests.jobs.conftest import call, refused


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(probing, "NUM_TRAIN", 36)
    monkeypatch.setattr(probing, "NUM_TEST", 24)
    monkeypatch.setattr(probing, "NUM_PARAPHRASES", 12)
    tiny.Config(layers=1).build().save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_rows_of_all_encoders_with_intervals(encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    command = ("probe", encoder, "--untrained", "--against", "bag-of-words", "--draws", 2)
    result = call(*command, "-o", out)
    assert result.exit_code == 0, result.output
    assert "chance" in result.output
    assert "is ahead" in result.output
    report = json.loads((out / "report.json").read_text())
    assert {line["encoder"] for line in report["lines"]} == {str(encoder), f"untrained:{encoder}", "bag-of-words"}
    assert len(report["lines"]) == 3 * 2 * (6 + 2)
    for line in report["lines"]:
        assert 0 <= line["low"] <= line["mean"] <= line["high"] <= 1
    bag = [line for line in report["lines"] if line["encoder"] == "bag-of-words"]
    pooled, words = ([line["mean"] for line in bag if line["features"] == name] for name in ("pooled", "words"))
    assert pooled == pytest.approx(words)
    rows = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    assert len(rows) == len(report["lines"])
    page = (out / "report.html").read_text()
    assert "Made-up sentences" in page
    assert page.count("<svg") == 8
    again = call(*command, "-o", tmp_path / "again")
    assert again.exit_code == 0
    assert (tmp_path / "again" / "table.csv").read_bytes() == (out / "table.csv").read_bytes()


def test_draws_are_averaged_and_compared_sentence_by_sentence(encoder: Path, tmp_path: Path) -> None:
    def lines(*options: object) -> dict[tuple[str, ...], dict[str, str]]:
        out = tmp_path / "_".join(map(str, options))
        assert call("probe", "bag-of-words", "--against", encoder, *options, "-o", out).exit_code == 0
        rows = csv.DictReader((out / "table.csv").read_text().splitlines())
        return {(row["encoder"], row["features"], row["probe"], row["metric"]): row for row in rows}

    one, next_, both = lines("--draws", 1), lines("--draws", 1, "--seed", 1), lines("--draws", 2)
    for asked, row in both.items():
        single = [float(draw[asked]["mean"]) for draw in (one, next_)]
        nums = [int(draw[asked]["num"]) for draw in (one, next_)]
        assert float(row["mean"]) == pytest.approx(sum(map(float.__mul__, single, map(float, nums))) / sum(nums))
        assert int(row["num"]) == sum(nums)
        first = both["bag-of-words", *asked[1:]]
        assert float(row["first_ahead"]) == pytest.approx(float(first["mean"]) - float(row["mean"]))
        assert float(row["first_ahead_low"]) <= float(row["first_ahead"]) <= float(row["first_ahead_high"])
        if asked[0] == "bag-of-words":
            assert float(row["first_ahead_low"]) == float(row["first_ahead_high"]) == 0


def test_a_further_encoder_that_fails_is_listed(encoder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    result = call("probe", encoder, "--against", broken, "--draws", 1, "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "failed" in result.stderr
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [one["encoder"] for one in report["failures"]] == [str(broken)]


def test_bad_input_gets_one_line(encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    refused(call("probe", "modernbert-smal", "-o", out), "did you mean 'modernbert-small'")
    refused(call("probe", encoder, "--against", encoder, "-o", out), "named twice")
    refused(call("probe", encoder, "--draws", 0, "-o", out), "at least one draw")
    (encoder / "config.json").unlink()
    refused(call("probe", encoder, "-o", out), "lacks config.json")
    out.mkdir()
    refused(call("probe", "bag-of-words", "-o", out), "exists; choose another folder")
    assert list(out.iterdir()) == []
