"""Tables of notes."""

import openpyxl
import pytest

from medtextdiff.data.errors import DataError
from medtextdiff.data.tables import read_table

SECRET = "Mr Example has a left lesion"


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_three_kinds_give_the_same_cells(tmp_path):
    write(tmp_path / "t.csv", '\ufeffimage,note\r\na.png,"one, two"\r\n\r\nb.png,\r\n')
    write(tmp_path / "t.tsv", "image\tnote\na.png\tone, two\nb.png\t\n")
    write(tmp_path / "t.jsonl", '{"image": "a.png", "note": "one, two"}\n{"image": "b.png", "note": null}\n')
    book = openpyxl.Workbook()
    for line in (("image", "note", None), ("a.png", "one, two"), (None, None), ("b.png", None)):
        book.worksheets[0].append(line)
    book.save(tmp_path / "t.xlsx")
    expected = [{"image": "a.png", "note": "one, two"}, {"image": "b.png", "note": ""}]
    for name in ("t.csv", "t.tsv", "t.jsonl", "t.xlsx"):
        assert [dict(row.cells) for row in read_table(tmp_path / name)] == expected
    assert [row.number for row in read_table(tmp_path / "t.csv")] == [2, 4]
    assert [row.number for row in read_table(tmp_path / "t.xlsx")] == [2, 4]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_the_header_says_what_separates_a_csv(tmp_path, mark):
    path = write(tmp_path / "t.csv", f"\nimage{mark}note\na.png{mark}one, two\n")
    assert [dict(row.cells) for row in read_table(path)] == [{"image": "a.png", "note": "one, two"}]


def test_row_numbers_are_lines_even_after_a_note_of_two_lines(tmp_path):
    path = write(tmp_path / "t.csv", 'image,note\na.png,"one\ntwo"\nb.png,x\u2028y\n')
    rows = read_table(path)
    assert [row.number for row in rows] == [2, 4]
    assert rows[0].cells["note"] == "one\ntwo"
    assert rows[1].cells["note"] == "x\u2028y"


def test_a_quoted_nothing_is_an_empty_cell_where_there_is_one_column(tmp_path):
    rows = read_table(write(tmp_path / "t.csv", 'prompt\n"one"\n""\n\n"two"\n'))
    assert [(row.number, row.cells["prompt"]) for row in rows] == [(2, "one"), (3, ""), (5, "two")]
    assert len(read_table(write(tmp_path / "u.csv", 'image,note\na,b\n""\n'))) == 1


def test_a_gap_in_a_jsonl_is_no_note(tmp_path):
    (tmp_path / "notes.jsonl").write_text('{"image": "a.png", "note": NaN, "patient": NaN}\n{"image": "b.png"}\n')
    first, second = read_table(tmp_path / "notes.jsonl", ("image", "note"))
    assert (first.cells["note"], first.cells["patient"], second.cells["note"]) == ("", "", "")


def test_merged_cells_all_have_the_value_that_they_show(tmp_path):
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for line in (("image", "split", "note"), ("a.png", "train", "x"), ("b.png", None, None), ("c.png", "val", "y")):
        sheet.append(line)
    sheet.merge_cells("B2:B3")
    sheet.merge_cells("C2:C3")
    book.save(tmp_path / "t.xlsx")
    rows = [tuple(row.cells.values()) for row in read_table(tmp_path / "t.xlsx")]
    assert rows == [("a.png", "train", "x"), ("b.png", "train", "x"), ("c.png", "val", "y")]


def test_what_excel_could_not_compute_is_no_note(tmp_path):
    book = openpyxl.Workbook()
    for line in (("image", "note"), ("a.png", "#N/A")):
        book.worksheets[0].append(line)
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(DataError, match=r"cell B2: Excel could not compute it \(#N/A\)"):
        read_table(tmp_path / "t.xlsx")


def test_excel_may_say_what_separates(tmp_path):
    path = write(tmp_path / "t.csv", "sep=;\r\nimage;note\r\na.png;one, two\r\n")
    [row] = read_table(path)
    assert (row.number, dict(row.cells)) == (3, {"image": "a.png", "note": "one, two"})


def test_numbers_in_a_spreadsheet_stay_whole(tmp_path):
    book = openpyxl.Workbook()
    for line in (("image", "patient"), ("a.png", 12), ("b.png", 12.0), ("c.png", 1.5)):
        book.worksheets[0].append(line)
    book.save(tmp_path / "t.xlsx")
    assert [row.cells["patient"] for row in read_table(tmp_path / "t.xlsx")] == ["12", "12", "1.5"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"image,note\n", "no rows below"),
        ("t.csv", "image,note\na.png,38 \u00b0C\n".encode("cp1252"), r"not UTF-8 \(byte 0xb0 in line 2\)"),
        ("t.csv", f"image,note\na.png,{SECRET}, and more\n".encode(), "line 2: 3 cells, but the header has 2"),
        ("t.csv", b"image,note\na.png\n", "line 2: 1 cells"),
        ("t.csv", b"image;note\na.png;x; y\n", "line 2: 3 cells, but the header has 2; a note with a semicolon"),
        ("t.csv", b"image,note,note\na,b,c\n", "column 'note' twice"),
        ("t.csv", b"image,text\na,b\n", r"no column 'note'; its columns are: image, text"),
        ("t.csv", b"Image,note\na,b\n", "rename 'Image' to 'image'"),
        ("t.csv", b'image,note\na.png,"open\n', "check its quotes"),
        ("t.csv", b"image,note,pateint\na,b,c\n", "unknown column 'pateint'; did you mean 'patient'"),
        ("t.jsonl", b'{"image": "a"}\n{oops}\n', "line 2: not JSON"),
        ("t.jsonl", b"[1]\n", "line 1: not an object"),
        ("t.jsonl", b'{"image": "a", "note": ["x"]}\n', "'note' is a list"),
        (
            "t.jsonl",
            b'{"image": "a", "note": "\\ud83d\\ude00"}\n{"image": "b", "note": "\\ud800"}\n',
            "line 2: half of a surr",
        ),
        ("t.xlsx", b"not a zip", "not an .xlsx"),
        ("t.doc", b"x", "must end in"),
    ],
)
def test_bad_tables_are_named_and_never_quoted(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_table(tmp_path / name, ["image", "note"], ["patient", "split"])
    assert name in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_column_about_an_absent_one_is_no_misspelling_of_it(tmp_path):
    (tmp_path / "t.csv").write_text("image,patient_age,patient sex\na.png,50,f\n")
    assert read_table(tmp_path / "t.csv", ["image"], ["patient"])[0].cells["patient_age"] == "50"
    (tmp_path / "t.csv").write_text("image,patient_id\na.png,p1\n")
    with pytest.raises(DataError, match="'patient_id'; did you mean 'patient'"):
        read_table(tmp_path / "t.csv", ["image"], ["patient"])


def test_missing_table(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_table(tmp_path / "t.csv")


def test_only_known_columns(tmp_path):
    path = write(tmp_path / "t.csv", "image,age\na,4\n")
    assert read_table(path, ["image"])[0].cells["age"] == "4"
    with pytest.raises(DataError, match="unknown column 'age'"):
        read_table(path, ["image"], only_known=True)


def test_a_formula_without_a_value_is_no_empty_cell(tmp_path):
    book = openpyxl.Workbook()
    for row in (["image", "note"], ["a.png", '=CONCATENATE("left", " lung")']):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(DataError, match="cell B2 holds a formula without a computed value"):
        read_table(tmp_path / "t.xlsx")
