"""`medtextdiff rate make` and `score`: blinding, and what comes back from raters."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.jobs.conftest import call, refused
from tests.jobs.made_up_endoscopy import write_generated, write_real


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    write_real(root / "data", train=10, val=20)
    write_generated(root / "alphanet")
    write_generated(root / "betanet", seed=2)
    done = call("rate", "make", root / "data", root / "alphanet", root / "betanet", "-o", root / "sheet", "-n", "20")
    assert done.exit_code == 0, done.output
    return root


def shown(sheet: Path) -> dict:
    page = (sheet / "study.html").read_text()
    return json.loads(re.search(r'id="sheet">(.*?)</script>', page, re.DOTALL)[1])


def key(sheet: Path) -> dict:
    return json.loads((sheet / "key.json").read_text())


def ratings(world, rater="A", knows=True, change=lambda row: row) -> str:
    told = key(world / "sheet")
    rows = ["sheet,rater,item,real,confidence,realism,adherence,usable,seconds"]
    for number, _, system, _ in told["items"]:
        real = int(system == "real") if knows else 1
        cells = [told["sheet"], rater, number, real, 4, 5 if real else 2, 3, real, 9]
        rows.append(",".join(str(cell) for cell in change(cells)))
    return "\n".join(rows) + "\n"


def test_the_page_tells_nothing_of_what_is_real(world):
    page = (world / "sheet" / "study.html").read_text()
    words = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
    for word in ("alphanet", "betanet", "g00", "r00", "toy", ".png", "http"):
        assert word not in words.replace("w3.org", "")
    items = shown(world / "sheet")["items"]
    assert len(items) == 22
    sizes, modes = set(), set()
    for item in items:
        assert item.keys() == {"number", "image", "prompt"}
        with Image.open(io.BytesIO(base64.b64decode(item["image"].partition(",")[2]))) as image:
            sizes.add(image.size)
            modes.add(image.mode)
            assert image.info == {}  # no text chunk says "Synthetic"
    assert (sizes, modes) == ({(32, 32)}, {"RGB"})


def test_real_images_are_framed_as_the_generated_are(world, tmp_path):
    """A border around the whole image stays when it is squeezed; cutting its middle out loses the left and right."""
    for name, shape in (("wide", (32, 64, 3)), ("made", (32, 32, 3))):
        (tmp_path / name).mkdir()
        pixels = np.zeros(shape, dtype=np.uint8)
        pixels[:, :8] = 255
        for k in range(8):
            Image.fromarray(pixels).save(tmp_path / name / f"{k}.png")
    for fit, bright in (("squeeze", True), ("crop", False)):
        words = ("rate", "make", tmp_path / "wide", tmp_path / "made", "-n", 12, "--fit", fit, "-o", tmp_path / fit)
        done = call(*words)
        assert done.exit_code == 0, done.output
        assert key(tmp_path / fit)["fit"] == fit
        systems = {number: system for number, _, system, _ in key(tmp_path / fit)["items"]}
        for item in shown(tmp_path / fit)["items"]:
            if systems[item["number"]] == "real":
                with Image.open(io.BytesIO(base64.b64decode(item["image"].partition(",")[2]))) as image:
                    assert (np.asarray(image)[0, :3, 0] > 200).all() == bright


def test_prompts_do_not_tell_either(world):
    """Real images show any of their prompts, not always the first."""
    prompts = {item["number"]: item["prompt"] for item in shown(world / "sheet")["items"]}
    real = {prompts[number].split()[4] for number, _, system, _ in key(world / "sheet")["items"] if system == "real"}
    assert len(real) > 1


def test_the_key_knows_half_are_real(world):
    items = key(world / "sheet")["items"]
    first = [system for _, _, system, repeats in items if repeats is None]
    assert {name: first.count(name) for name in set(first)} == {"real": 10, "alphanet": 5, "betanet": 5}
    pictures = {item["number"]: item["image"] for item in shown(world / "sheet")["items"]}
    for number, _, _, repeats in items:
        assert repeats is None or pictures[number] == pictures[repeats]


def test_the_same_seed_makes_the_same_sheet(world, tmp_path):
    again = call(
        "rate", "make", world / "data", world / "alphanet", world / "betanet", "-o", tmp_path / "x", "-n", "20"
    )
    assert again.exit_code == 0
    assert (tmp_path / "x" / "study.html").read_bytes() == (world / "sheet" / "study.html").read_bytes()


def test_answers_are_scored(world, tmp_path):
    (tmp_path / "a.csv").write_text(ratings(world))
    rows = [line.split(",") for line in ratings(world, "B", knows=False).splitlines()]
    json_rows = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    (tmp_path / "b.json").write_text(json.dumps(json_rows))
    done = call("rate", "score", world / "sheet", tmp_path / "a.csv", tmp_path / "b.json", "-o", tmp_path / "report")
    assert done.exit_code == 0, done.output
    assert "recognised (%)" in done.output
    found = json.loads((tmp_path / "report" / "report.json").read_text())["found"]
    assert found["recognised"]["share"]["mean"] == pytest.approx(0.75)
    assert found["systems"]["alphanet"]["realism"]["mean"] == pytest.approx(3.5)
    assert found["raters"]["B"]["recognised"]["real images"]["mean"] == 1
    assert "Krippendorff" in (tmp_path / "report" / "report.html").read_text()
    assert (tmp_path / "report" / "answers.csv").read_text().count("\n") == 45


def test_images_without_prompts_are_not_asked_for_adherence(world, tmp_path):
    done = call("rate", "make", world / "data" / "images", world / "alphanet", "-o", tmp_path / "sheet", "-n", "12")
    assert done.exit_code == 0, done.output
    assert "not asked" in done.output
    assert all("prompt" not in item for item in shown(tmp_path / "sheet")["items"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda row: ["other", *row[1:]], "line 2: these ratings are of another sheet"),
        (lambda row: [*row[:2], 99, *row[3:]], "line 2: the sheet has no such item; its items are 1 to 22"),
        (lambda row: [*row[:2], 1, *row[3:]], "line 3: item 1 was rated by this rater already"),
        (lambda row: [*row[:5], 7, *row[6:]], "line 2: 'realism' must be 1 to 5"),
        (lambda row: [*row[:3], "maybe", *row[4:]], "line 2: 'real' must be 0 to 1"),
        (lambda row: [row[0], "", *row[2:]], "line 2: no rater is named"),
    ],
)
def test_bad_ratings_are_told_with_their_line(change, says, world, tmp_path):
    (tmp_path / "a.csv").write_text(ratings(world, change=change))
    refused(call("rate", "score", world / "sheet", tmp_path / "a.csv", "-o", tmp_path / "report"), says)
    assert not (tmp_path / "report").exists()


def test_the_same_file_twice_and_files_that_are_none(world, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(ratings(world))
    score = ("rate", "score", world / "sheet")
    refused(call(*score, path, path, "-o", tmp_path / "x"), "already")
    refused(call(*score, tmp_path / "no.csv", "-o", tmp_path / "x"), "does not exist")
    (tmp_path / "b.json").write_text("{")
    refused(call(*score, tmp_path / "b.json", "-o", tmp_path / "x"), "are no JSON")
    (tmp_path / "c.json").write_text("[]")
    refused(call(*score, tmp_path / "c.json", "-o", tmp_path / "x"), "must be a list of answers")
    refused(call("rate", "score", tmp_path, path, "-o", tmp_path / "x"), "key.json does not exist")
    (tmp_path / "key.json").write_text('{"sheet": 3}')
    refused(call("rate", "score", tmp_path, path, "-o", tmp_path / "x"), "is no key of a study")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("data", "nowhere"), "nowhere is not a folder"),
        (("data", "alphanet", "-n", "0"), "-n 0 is too few"),
        (("data", "alphanet", "-n", "500"), "give a smaller -n"),
        (("data", "alphanet", "alphanet"), "two systems cannot both be called 'alphanet'"),
        (("data", "alphanet", "--size", "5"), "cannot be shown at 5 pixels"),
        (("data", "alphanet", "--split", "test"), "no split 'test'"),
        (("data", "alphanet", "--fit", "crp"), "no fit 'crp'"),
    ],
)
def test_a_sheet_that_cannot_be_made_is_one_line(words, says, world, tmp_path):
    folders = [world / word if word in ("data", "alphanet", "betanet") else word for word in words]
    refused(call("rate", "make", *folders, "-o", tmp_path / "sheet"), says)
    assert list(tmp_path.iterdir()) == []
