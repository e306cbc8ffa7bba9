"""Rows, marks, sections, duplicates: each by itself."""

import csv
import io
import random
import re

import pytest

from medtextdiff.text.reading import duplicates, files, marks, rows, sections
from medtextdiff.text.reading.faults import Faults
from medtextdiff.text.reading.notes import tidy


def test_fields_are_those_of_the_csv_module():
    rng = random.Random(0)
    for _ in range(300):
        fields = ["".join(rng.choices('ab,"\n é', k=rng.randrange(6))) for _ in range(rng.randrange(1, 5))]
        out = io.StringIO()
        csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(fields)
        assert [field.decode() for field in rows.split_fields(out.getvalue().encode())] == fields


@pytest.mark.parametrize("record", [b'a,"b', b'a,"b"c', b'a,b"c', b'"a" ,b', b'"a"\n"b"'])
def test_what_is_no_record_is_none(record):
    assert rows.split_fields(record) is None


def test_linked_folders_are_read_once_and_no_file_of_macos(tmp_path):
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for path in (corpus / "b.txt", tmp_path / "elsewhere" / "deep" / "a.txt", corpus / "._b.txt", corpus / "c.csv"):
        path.write_text("Some words.")
    for name in ("ward", "ward2"):
        (corpus / name).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "round").symlink_to(corpus, target_is_directory=True)
    found = [path.relative_to(corpus).as_posix() for path in files.below(corpus, (".txt",))]
    assert found == ["b.txt", "ward/deep/a.txt"]


def test_whatever_byte_is_lost_the_other_rows_are_read(tmp_path):
    """Take out each quote, comma and line end in turn: at most the rows it touches are lost."""
    lines = ["id,who,text", *(f'{n},{n},"note {n},\nof ""two"" lines"' for n in range(1, 7))]
    whole = "\n".join(lines) + "\n"
    begin = re.compile(rb"\d+,\d+,")
    for place in [match.start() for match in re.finditer('[",\n]', whole) if match.start() > len(lines[0])]:
        (tmp_path / "t.csv").write_text(whole[:place] + whole[place + 1 :])
        found = list(rows.read_rows(tmp_path / "t.csv", ("id", "text"), begin, Faults()))
        good = {row["id"] for _, row in found if row["text"] == f'note {row["id"]},\nof "two" lines'}
        assert len(good) >= 4, place


@pytest.mark.parametrize(
    ("mark", "word"),
    [
        ("2151-7-16", "date"),
        ("7-11", "date"),
        ("Month (only) ", "date"),
        ("Hospital1 18", "hospital"),
        ("Hospital Ward Name\n 12", "hospital"),
        ("Known lastname 123", "name"),
        ("Doctor First Name ", "name"),
        ("Name (NI) ", "name"),
        ("Location (un) ", "place"),
        ("Age over 90 ", "age"),
        ("Telephone/Fax (1) 123", "phone"),
        ("Numeric Identifier 7", "number"),
        ("Clip Number (Radiology) 5", "number"),
        ("Company 2", "company"),
        ("Something new", "redacted"),
    ],
)
def test_marks_become_words(mark, word):
    assert marks.replace(f"seen [**{mark}**] at") == f"seen {word} at"


def test_an_open_mark_stays_and_blanks_are_told():
    assert marks.replace("[** and so on, __ two, ___ three, ______ six") == (
        "[** and so on, __ two, redacted three, redacted six"
    )


def test_sections_of_a_report_and_of_a_summary():
    text = "CHEST XR\nINDICATION: cough\nand fever\n  FINDINGS:\nClear. Ratio 1:2\nWet Read: none\nIMPRESSION: normal"
    assert [(part.name, part.text) for part in sections.find(text)] == [
        ("preamble", "CHEST XR"),
        ("indication", "cough\nand fever"),
        ("findings", "Clear. Ratio 1:2\nWet Read: none"),
        ("impression", "normal"),
    ]
    summary = (
        "Chief Complaint:\nPain\n\nHistory of  Present Illness:\nLong.\nSOMETHING ELSE:\nx\nBrief Hospital Course:\ny"
    )
    assert [part.name for part in sections.find(summary)] == [
        *("chief_complaint", "present_illness", "other", "hospital_course")
    ]
    assert sections.keep(summary, ("hospital_course", "chief_complaint")) == "Pain\n\ny"
    assert sections.find("") == []


def test_seen_is_a_set():
    rng = random.Random(0)
    seen, model = duplicates.Seen(), set()
    for _ in range(5000):
        value = rng.choice([rng.randrange(50), rng.getrandbits(64)])
        assert seen.add(value) == ((value or 1) not in model)
        model.add(value or 1)
    assert len(seen) == len(model)


def test_near_is_alike_but_for_case_blanks_numbers_and_marks():
    def alike(a, b):
        return duplicates.text_hash(a, "near") == duplicates.text_hash(b, "near")

    assert alike("Nodule of 5 mm,\n seen by name", "nodule of 12 mm, seen by redacted")
    assert not alike("Nodule of 5 mm", "Node of 5 mm")
    assert duplicates.text_hash("a") != duplicates.text_hash("A")


def test_tidying_takes_linear_time():
    assert tidy("a \r\n\r\n\n\t\n b\rc\x00\x1b\x85d ") == "a\n\n b\ncd"
    assert tidy("end of page\x0cnext page\x0bnext line") == "end of page\nnext page\nnext line"
    for text in (" " * 300_000, "\n" * 300_000, "a:" * 150_000, "[**" * 100_000, "_ " * 150_000):
        marks.replace(tidy(text))
        sections.find(text)
