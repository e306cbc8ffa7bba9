import gzip
import json
import math

import pytest

from medtextdiff.text.corpora import jsonl, plain
from medtextdiff.text.errors import TextError

from .conftest import SECRET


@pytest.fixture
def folder(tmp_path):
    def line(n):
        return json.dumps({"text": f"A made-up note with the number {n}.", "subject_id": n % 20, "category": "CT"})

    (tmp_path / "a.jsonl").write_text("\n".join(line(n) for n in range(60)) + "\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(line(n) for n in range(50, 100)).encode()))
    return tmp_path


def test_a_folder_is_read_split_by_patient_and_without_doubles(folder):
    read = jsonl.Config(paths=(str(folder),), heldout=0.3).build()
    train, heldout = list(read.documents()), list(read.documents("heldout"))
    assert len(train) + len(heldout) == 100
    numbers = [{int(document.split()[-1][:-1]) % 20 for document in part} for part in (train, heldout)]
    assert not numbers[0] & numbers[1]
    assert read.report()["left_out"] == {"a duplicate": 10}


def test_a_byte_order_mark_costs_no_note(folder):
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + (folder / "a.jsonl").read_bytes())
    read = jsonl.Config(paths=(str(folder / "a.jsonl"),), heldout=0).build()
    assert len(list(read.documents())) == 60
    assert read.faults() == []


def test_names_and_categories_are_fields(folder):
    (folder / "a.jsonl").write_text(json.dumps({"note": "x" * 50, "kind": "CT"}) + "\n")
    read = jsonl.Config(paths=(str(folder / "a.jsonl"),), text="note", category="kind", categories=("ct",), heldout=0)
    assert list(read.build().documents()) == ["x" * 50]
    assert list(read.replace(categories=("MR",)).build().documents()) == []


def test_bad_lines_are_counted_and_the_rest_goes_on(folder):
    good = json.dumps({"text": "A made-up note, long enough.\ud800", "subject_id": None})
    bad = [f'{{"text": "{SECRET}', f'{{"note": "{SECRET}"}}', "[1]", "", "[" * 100_000]
    content = "\n".join([good, *bad]).encode() + b'\n{"text": "caf\xe9"}\n'
    (folder / "a.jsonl").write_bytes(content)
    read = jsonl.Config(paths=(str(folder / "a.jsonl"),), heldout=0).build()
    assert list(read.documents()) == ["A made-up note, long enough."]
    assert read.faults() == [
        "a.jsonl, row 2: no JSON (and 1 more such rows); left out",
        "a.jsonl, row 3: no object with a string 'text' (and 1 more such rows); left out",
        "a.jsonl, row 7: not UTF-8; left out",
        "no note names its patient, so one patient may be trained on and held out; check the name of that column",
    ]


def test_notes_with_an_empty_patient_are_no_notes_of_one_patient(folder):
    rows = [{"text": f"A made-up note with the number {n}.", "subject_id": " " if n % 2 else n} for n in range(200)]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    read = jsonl.Config(paths=(str(folder / "a.jsonl"),), heldout=0.3).build()
    heldout = [int(document.split()[-1][:-1]) % 2 for document in read.documents("heldout")]
    assert 0.1 < sum(heldout) / 100 < 0.5
    assert read.faults() == []


def test_a_column_of_patients_with_gaps_names_the_same_patients(folder):
    rows = [{"text": f"A made-up note with the number {n}.", "subject_id": float(n % 20)} for n in range(100, 200)]
    rows += [{"text": f"A made-up note of nobody with the number {n}.", "subject_id": math.nan} for n in range(100)]
    (folder / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    read = jsonl.Config(paths=(str(folder),), heldout=0.3).build()
    heldout = list(read.documents("heldout"))
    assert sum(read.report()["patients"].values()) == 20
    assert 0 < sum("nobody" in document for document in heldout) < 100


def test_files_of_one_name_have_a_hash_each(folder):
    (folder / "sub" / "a.jsonl").write_bytes((folder / "a.jsonl").read_bytes() + b"\n")
    told = jsonl.Config(paths=(str(folder),)).build().report()["sha256"]
    assert len(set(told.values())) == 3


def test_what_cannot_be_found_is_refused(tmp_path):
    with pytest.raises(TextError, match=r"no \*.jsonl"):
        jsonl.Config(paths=(str(tmp_path),)).build()
    with pytest.raises(TextError, match="check the path"):
        jsonl.Config(paths=(str(tmp_path / "a.jsonl"),)).build()


def test_a_document_without_a_patient_is_in_the_split_of_the_plain_text(tmp_path):
    documents = [f"A made-up note with the number {n}, long enough to be read." for n in range(300)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": document}) for document in documents) + "\n")
    (tmp_path / "a.txt").write_text("\n\n".join(documents) + "\n")
    lines = jsonl.Config(paths=(str(tmp_path / "a.jsonl"),), heldout=0.2).build()
    texts = plain.Config(paths=(str(tmp_path / "a.txt"),), heldout=0.2).build()
    heldout = list(texts.documents("heldout"))
    assert 30 < len(heldout) < 90
    assert list(lines.documents("heldout")) == heldout
