import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from medtextdiff.evaluation.report import read_curves, write_report
from medtextdiff.evaluation.report_folder import write_folder
from medtextdiff.evaluation.result import ResultItem, result_page
from medtextdiff.evaluation.segmentation import Row, summarise

VOID = {"meta", "img", "br", "link", "hr", "input"}
NASTY = "<script>alert(\"1\")</script> & '5'"


class Reader(HTMLParser):
    """Checks nesting, and collects tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read_page(path):
    page = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    for name, value in reader.attributes:
        assert name not in ("href", "srcset", "action")
        assert not name.startswith("on")
        assert name != "src" or value.startswith("data:image/png;base64,")
    assert not re.search(r"https?://|url\(|@import", page)
    assert all(dict_has_alt for dict_has_alt in ["alt=" in tag for tag in re.findall(r"<img[^>]*>", page)])
    return page, " ".join(reader.text), reader


@pytest.fixture
def write(tmp_path, rows, example):
    def write(out="report", rows=rows, **options):
        given = {
            "title": "Run a on made_up/val",
            "summary": summarise(rows, num_resamples=200),
            "meta": {"command": "medtextdiff evaluate a", "seed": 0, "versions": {"torch": "2.13"}},
            "pictures": example,
        }
        return write_report(tmp_path / out, rows=rows, **(given | options))

    return write


def test_the_report_has_its_three_files(write, tmp_path, rows):
    assert write() == tmp_path / "report" / "report.html"
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "per_image.csv",
        "report.html",
        "report.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]  # no traces beside it
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["summary"] == summarise(rows, num_resamples=200)
    assert report["meta"]["versions"] == {"torch": "2.13"}
    assert report["examples"] == {"best": "image_0", "median": "image_4", "worst": "image_8"}


def test_the_table_of_images_is_complete_and_in_order(write, tmp_path, rows):
    write()
    with (tmp_path / "report" / "per_image.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["id"] for line in lines] == [row.id for row in rows]
    assert [line["has_note"] for line in lines] == ["1", "1", "1", "0"] + ["1"] * 5
    for line, row in zip(lines, rows, strict=True):
        assert float(line["foreground_hd95"]) == pytest.approx(row.scores["foreground"]["hd95"])


def test_the_page_stands_alone_and_says_what_counts(write):
    page, text, reader = read_page(write())
    for words in ("Run a on made_up/val", "Foreground", "HD95 (px)", "medtextdiff evaluate a", "torch 2.13", "seed 0"):
        assert words in text
    for what, name in (("Best", "image_0"), ("Median", "image_4"), ("Worst", "image_8")):
        assert f"{what}: {name}" in text
    assert page.count("data:image/png") == 6
    assert "prefers-color-scheme: dark" in page
    assert ("scope", "col") in reader.attributes
    assert ("scope", "row") in reader.attributes


def test_pictures_are_asked_for_only_three_images(write, example):
    asked = []
    write(pictures=lambda name: asked.append(name) or example(name))
    assert asked == ["image_0", "image_4", "image_8"]


def test_text_from_outside_is_escaped(write, rows, example):
    named = [Row(f"{NASTY}{k}", row.scores, group=f"<{k // 2}>") for k, row in enumerate(rows)]
    page, text, _ = read_page(
        write(
            rows=named,
            title=NASTY,
            meta={NASTY: NASTY},
            pictures=lambda name: example(name[-1]),
            curves=[{"step": k, NASTY: k} for k in range(4)],
            against={NASTY: named},
            notes={row.id: NASTY for row in named},
            unit=NASTY,
        )
    )
    assert "<script" not in page
    assert text.count(NASTY) > 8


def test_notes_are_written_only_when_given(write, tmp_path, rows):
    secret = "Patient Smith, 54, two nodules"
    write()
    write("shown", notes={row.id: secret for row in rows})
    assert not any(secret in path.read_text() for path in (tmp_path / "report").iterdir())
    assert secret in (tmp_path / "shown" / "report.html").read_text()
    assert secret not in (tmp_path / "shown" / "report.json").read_text()


def test_a_winner_is_bold_only_when_it_is_one(write, rows):
    worse = [Row(row.id, {"foreground": row.scores["foreground"] | {"dice": 0.0}}) for row in rows]
    page, text, _ = read_page(write(against={"other": worse}))
    assert page.count("<strong>") == 1
    assert "this run is better" in text
    page, text, _ = read_page(write("same", against={"itself": rows}))
    assert "<strong>" not in page
    assert "no difference shown" in text


def test_curves_are_drawn_from_the_log(write):
    curves = [{"step": k, "loss": 1 / (k + 1), "time": k} for k in range(2000)] + [
        {"step": 2000, "val_dice": 0.8},
        {"step": 3000, "val_dice": 0.9, "loss": float("nan"), "lr": None, "best": True},
    ]
    page, text, _ = read_page(write(curves=curves))
    assert page.count("<polyline") == 2
    assert "not finite, and are not drawn: 2." in text
    assert len(re.findall(r'points="([^"]*)"', page)[0].split()) <= 400
    assert "nan" not in "".join(re.findall(r'points="([^"]*)"', page))
    assert "Training" not in read_page(write("none"))[1]


def test_events_of_the_log_are_curves_of_their_own(write):
    curves = [{"event": event, "step": k, "loss": 1.0 * k} for k in range(3) for event in ("train", "val")]
    page, text, _ = read_page(write(curves=curves))
    assert page.count("<polyline") == 2
    assert "train loss" in text
    assert "val loss" in text


@pytest.mark.parametrize("number", [1, 2, 3])
def test_few_images(write, rows, number):
    _, text, reader = read_page(write(rows=rows[:number]))
    assert reader.tags.count("img") == 2 * number
    assert f"{number} image" in text


def test_many_images_become_a_histogram(write, rows):
    rng = np.random.default_rng(0)
    many = [
        Row(f"{k}", {"foreground": {"dice": float(d), "iou": 0.5}}) for k, d in enumerate(rng.beta(8, 2, size=2000))
    ]
    page, _, _ = read_page(write(rows=many, pictures=None, against={"itself": many}))
    assert 'class="bar"' in page
    assert 'class="dot"' not in page
    assert len(page) < 100_000


def test_scores_all_one_and_all_zero(write, rows):
    for name, value in (("ones", 1.0), ("zeros", 0.0)):
        flat = [Row(row.id, {"foreground": {"dice": value}}) for row in rows]
        assert "nan" not in read_page(write(name, rows=flat))[0].split("</style>")[1].lower()


def test_regions_of_several_classes_and_as_published(write, rows):
    full = rows[0].scores["foreground"]
    several = [
        Row(row.id, {"foreground": full, "class_1": full, "as_published": {"dice": 0.5, "iou": 0.3}}) for row in rows
    ]
    _, text, _ = read_page(write(rows=several))
    assert "Class 1" in text
    assert "As published" in text
    assert "–" in text


def test_an_existing_report_is_kept_unless_overwritten(write, tmp_path):
    write(title="first")
    with pytest.raises(FileExistsError, match="--overwrite"):
        write(title="second")
    assert "first" in (tmp_path / "report" / "report.html").read_text()
    write(title="second", overwrite=True)
    assert "second" in (tmp_path / "report" / "report.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_overwrite_spares_what_is_no_report(write, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "thesis.txt").write_text("ten years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.txt"):
        write(overwrite=True)
    assert (tmp_path / "report" / "thesis.txt").exists()


def test_what_a_person_put_into_an_old_report_meanwhile_stays(tmp_path, monkeypatch):
    (tmp_path / "report").mkdir()
    for name in ("report.json", "per_image.csv", "thesis.txt"):
        (tmp_path / "report" / name).write_text(f"old {name}")
    (tmp_path / "link").symlink_to(tmp_path / "report", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "report")
    assert write_folder(Path("."), {"report.json": "new"}) == Path("report.html")
    written = {path.name: path.read_text() for path in (tmp_path / "report").iterdir()}
    assert written == {"report.json": "new", "thesis.txt": "old thesis.txt"}
    write_folder(tmp_path / "link", {"report.json": "newer"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "report"]
    assert (tmp_path / "report" / "report.json").read_text() == "newer"


def test_nothing_is_left_half_written(write, tmp_path, monkeypatch):
    write(title="first")

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full_disk)
        for out in ("report", "new"):
            with pytest.raises(OSError, match="No space left"):
                write(out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert "first" in (tmp_path / "report" / "report.html").read_text()


def test_bad_reports_are_refused(write, rows, tmp_path):
    with pytest.raises(ValueError, match="not of these rows"):
        write(summary=summarise(rows[:3], num_resamples=10))
    with pytest.raises(ValueError, match="plain JSON"):
        write(meta={"model": object()})
    with pytest.raises(ValueError, match="plain JSON"):
        write(meta={"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_curves_are_read_up_to_a_torn_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_curves(path) == [{"step": 1, "loss": 2.0}]
    path.write_bytes(b'{"step": 1, "loss": 2.0}\n{"a": "\xc3')
    assert read_curves(path) == [{"step": 1, "loss": 2.0}]
    path.write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        read_curves(path)


@pytest.fixture
def item(make_square):
    def make(name="image_1", **options):
        mask = make_square(10, 10)
        image = np.full((64, 48, 3), 90, dtype=np.uint8)
        given = {"confidence": 0.913, "seconds": 0.456, "model": "nuclei", "probability": mask * 0.9}
        return ResultItem(name, image, mask, **(given | options))

    return make


def test_the_result_page_shows_pictures_and_figures(tmp_path, item):
    result_page(tmp_path / "page.html", title="Nuclei", items=(item(name) for name in ("a", "b")))
    page, text, _ = read_page(tmp_path / "page.html")
    for words in ("nuclei", "3.3", "91.3", "0.46", "48 x 64 pixels", "2 images"):
        assert words in text
    assert page.count("data:image/png") == 6
    assert "Note" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_result_page_escapes_and_shows_a_note_when_given(tmp_path, item):
    items = [item(NASTY, note=NASTY, model=NASTY, probability=None)]
    result_page(tmp_path / "page.html", title=NASTY, items=items)
    page, text, _ = read_page(tmp_path / "page.html")
    assert "<script" not in page
    assert f"Note: {NASTY}" in text
    assert page.count("data:image/png") == 2


def test_the_result_page_is_kept_unless_overwritten(tmp_path, item):
    path = tmp_path / "page.html"
    with pytest.raises(ValueError, match="at least one"):
        result_page(path, title="t", items=[])
    result_page(path, title="first", items=[item()])
    with pytest.raises(FileExistsError, match="--overwrite"):
        result_page(path, title="second", items=[item()])
    result_page(path, title="second", items=[item()], overwrite=True)
    assert "second" in path.read_text()
