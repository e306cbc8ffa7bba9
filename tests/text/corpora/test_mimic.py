"""MIMIC-III and MIMIC-IV in their official schemas: filtered, cleaned, split by patient, accounted for."""

import gzip
import json
import re

import pytest

from medtextdiff.text.corpora import mimic3, mimic4
from medtextdiff.text.errors import TextError

from .conftest import HEADER3, SECRET, report, row3


def corpus(path, **changes):
    return mimic3.Config(paths=(str(path),), **changes).build()


def plain(path, rows):
    path.write_text("\n".join([HEADER3, *rows]) + "\n", encoding="utf-8")
    return path


def text(number, size=40):
    return f"A made-up report with the number {number}. " + "x" * size


def test_reports_come_cleaned_and_once(noteevents):
    read = corpus(noteevents, heldout=0)
    documents = list(read.documents())
    assert len(documents) == 301
    assert documents[5].startswith("date 9:01 AM\n CHEST (PORTABLE AP)   Clip # number\n\nFINAL REPORT")
    assert (
        f'INDICATION:  "{SECRET}", cough.\n\nFINDINGS: Patient 5, line 5:\na nodule, 5 mm, redacted seen by Dr. name.'
        in documents[5]
    )
    assert not any("**" in document or "\x07" in document or "\r" in document for document in documents)
    told = read.report()
    assert told["left_out"] == {"a duplicate": 1, "marked as an error (ISERROR)": 1}
    assert told["rows"] == 303
    assert told["documents"] == {"train": 301}
    assert told["patients"] == {"train": 60, "heldout": 0}
    assert told["categories"] == {"Nursing/other": 1, "Radiology": 300}
    assert told["documents_with_section"]["impression"] == 300
    assert re.fullmatch("[0-9a-f]{64}", told["sha256"]["NOTEEVENTS.csv.gz"])
    assert SECRET not in json.dumps(told)
    assert read.faults() == []


def test_the_split_is_by_patient_whole_and_drawn_by_the_seed(noteevents):
    def patients(split, **changes):
        documents = corpus(noteevents, categories=("radiology",), heldout=0.3, **changes).documents(split)
        return [int(re.search(r"Patient (\d+)", document).group(1)) for document in documents]

    train, heldout = patients("train"), patients("heldout")
    assert not set(train) & set(heldout)
    assert len(train) + len(heldout) == 300
    assert 5 <= len(set(heldout)) <= 32
    assert set(patients("heldout", seed=1)) != set(heldout)
    assert train * 2 == patients("train", repeat=2)


def test_marks_sections_and_near_duplicates_are_fields(noteevents):
    kept = next(corpus(noteevents, heldout=0, marks="keep").documents())
    assert "[**2151-7-16**]" in kept
    assert "___" in kept
    dropped = next(corpus(noteevents, heldout=0, marks="drop").documents())
    assert "**" not in dropped
    assert "___" not in dropped
    short = list(corpus(noteevents, heldout=0, sections=("impression",)).documents())
    assert short[4] == f"{SECRET} number 4."
    near = list(corpus(noteevents, heldout=0, duplicates="near").documents())
    assert len(near) == 2  # the reports differ in their numbers alone
    assert len(list(corpus(noteevents, heldout=0, duplicates="keep").documents())) == 302


def test_mimic4_has_two_files_and_its_own_ids(mimic4_files):
    paths = tuple(map(str, mimic4_files))
    read = mimic4.Config(paths=paths, heldout=0.2).build()
    train, heldout = list(read.documents()), list(read.documents("heldout"))
    assert len(train) + len(heldout) == 120
    told = read.report()
    assert told["categories"] == {"DS": 60, "RR": 60}
    assert sum(told["patients"].values()) == 30  # a patient of both files is in one split
    assert sorted(told["sha256"]) == ["discharge.csv.gz", "radiology.csv.gz"]
    only = mimic4.Config(paths=paths, categories=("DS",), heldout=0).build()
    assert all(document.startswith("DS") for document in only.documents())


def test_broken_quoting_costs_the_broken_row_alone(tmp_path):
    rows = [row3(n, n, report(n, n)) for n in range(20)]
    rows[4] = rows[4][:-1]  # the last quote is missing
    rows[9] = rows[9].replace('""', '"', 1)  # a quote that is not doubled
    rows[15] = rows[15].replace(",", ";", 3)  # fields missing
    read = corpus(plain(tmp_path / "NOTEEVENTS.csv", rows), heldout=0)
    found = {int(re.search(r"Patient (\d+)", document).group(1)) for document in read.documents()}
    assert found == set(range(20)) - {4, 9, 15}
    assert read.faults() == [
        "NOTEEVENTS.csv, row 5: broken quoting, or a wrong number of fields (and 2 more such rows); left out"
    ]


def test_a_quote_that_is_never_closed_at_the_end_of_the_file(tmp_path):
    rows = [row3(n, n, text(n)) for n in range(6)]
    rows[3] = row3(3, 3, text(3)).replace('"A', "A")
    read = corpus(plain(tmp_path / "NOTEEVENTS.csv", rows), heldout=0)
    assert len(list(read.documents())) == 5


def test_other_bad_rows_are_counted_and_the_rest_goes_on(tmp_path):
    rows = [row3(n, n, text(n)) for n in range(8)]
    rows[2] = row3(2, 2, "y" * 500_000)
    rows[6] = row3(6, 6, text(6)).replace(",6,", ",,", 1)
    path = plain(tmp_path / "NOTEEVENTS.csv", rows)
    path.write_bytes(path.read_bytes().replace(b"number 4", b"num\xe9ro 4"))
    read = corpus(path, heldout=0)
    assert len(list(read.documents())) == 5
    assert read.faults() == [
        "NOTEEVENTS.csv, row 3: longer than 200000 characters; left out",
        "NOTEEVENTS.csv, row 5: not UTF-8; left out",
        "NOTEEVENTS.csv, row 7: without a SUBJECT_ID; left out",
    ]
    assert len(list(corpus(path, heldout=0, max_characters=600_000).documents())) == 6


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    path = plain(tmp_path / "NOTEEVENTS.csv", [row3(1, 1, text(1))])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert list(corpus(path, heldout=0).documents()) == [text(1)]


def test_a_gz_that_is_cut_short_gives_what_came_before(noteevents):
    noteevents.write_bytes(noteevents.read_bytes()[:-300])
    read = corpus(noteevents, heldout=0)
    num = len(list(read.documents()))
    assert 100 < num < 301
    (line,) = read.faults()
    assert re.fullmatch(r"NOTEEVENTS.csv.gz, row \d+: the file is cut short or damaged .* left out", line)


def test_a_lost_quote_in_a_gz_that_is_cut_short_costs_its_row_alone(tmp_path):
    rows = [row3(n, n, text(n)) for n in range(400)]
    rows[7] = rows[7][:-1]  # the last quote is missing, so all that follows is read inside out
    path = tmp_path / "NOTEEVENTS.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEADER3, *rows]).encode())[:-300])
    read = corpus(path, heldout=0)
    num = len(list(read.documents()))
    assert num > 100
    broken, cut = read.faults()
    assert broken == "NOTEEVENTS.csv.gz, row 8: broken quoting, or a wrong number of fields; left out"
    assert cut.startswith(f"NOTEEVENTS.csv.gz, row {num + 2}: the file is cut short")


def test_a_damaged_gz_gives_what_came_before(noteevents):
    content = bytearray(noteevents.read_bytes())
    content[len(content) // 2] ^= 255
    noteevents.write_bytes(bytes(content))
    read = corpus(noteevents, heldout=0)
    list(read.documents())
    assert "cut short or damaged" in read.faults()[-1]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (HEADER3.replace("ISERROR", "ERROR").encode() + b"\n" + row3(1, 1, SECRET).encode(), "no column 'iserror'"),
        (row3(1, 1, SECRET).encode() + b"\n", "no column 'row_id'"),
        (HEADER3.encode("utf-16"), "UTF-8"),
        (HEADER3.replace('"', "").encode("utf-16-le"), "not UTF-8"),
    ],
)
def test_a_file_that_is_no_table_of_notes_is_refused(tmp_path, content, says):
    (tmp_path / "NOTEEVENTS.csv").write_bytes(content)
    with pytest.raises(TextError, match=says) as error:
        list(corpus(tmp_path / "NOTEEVENTS.csv").documents())
    assert SECRET not in str(error.value)
    assert "NOTEEVENTS.csv" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_bad_settings_are_refused(tmp_path, noteevents):
    (tmp_path / "plain.csv.gz").write_text(HEADER3)
    with pytest.raises(TextError, match="not a gzip"):
        list(corpus(tmp_path / "plain.csv.gz").documents())
    with pytest.raises(TextError, match="check the path"):
        corpus(tmp_path / "nowhere.csv")
    with pytest.raises(TextError, match="needs files"):
        mimic3.Config().build()
    with pytest.raises(TextError, match="did you mean 'impression'"):
        corpus(noteevents, sections=("impresion",))
    with pytest.raises(TextError, match="did you mean 'Discharge summary'"):
        corpus(noteevents, categories=("Discharge summaries",))


def test_reading_is_lazy(noteevents):
    with gzip.open(noteevents, "at") as file:
        file.write("never read")
    assert next(corpus(noteevents, heldout=0).documents())


def test_what_a_broken_row_costs_is_told_where_the_columns_are_in_another_order(tmp_path):
    head = "subject_id,hadm_id,note_id,note_type,note_seq,charttime,storetime,text"
    rows = [f'{k},{k},{k}-RR-1,RR,1,2150-01-01,2150-01-02,"{text(k)}"' for k in range(40)]
    rows[5] = rows[5].replace("report", 're"port')
    (tmp_path / "radiology.csv").write_text("\n".join([head, *rows]) + "\n")
    read = mimic4.Config(paths=(str(tmp_path / "radiology.csv"),), heldout=0).build()
    assert len(list(read.documents())) == 5
    assert "no row was found after it (are the columns in another order" in read.faults()[0]
