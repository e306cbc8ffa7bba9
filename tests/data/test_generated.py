"""Folders of generated images: what `prompts.csv` says, and what is wrong with it."""

import pytest

from medtextdiff.data.errors import DataError
from medtextdiff.data.generated import read_generated


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "b.png").write_bytes(b"2")
    return tmp_path


def write(folder, text):
    (folder / "prompts.csv").write_text(text, encoding="utf-8")
    return folder


def test_rows_in_their_order(folder):
    found = read_generated(write(folder, "file,prompt,seed,model\nb.png,two,3,m\na.png,one,,\n"))
    assert [(item.image.name, item.prompt, item.seed, item.model) for item in found] == [
        ("b.png", "two", 3, "m"),
        ("a.png", "one", 0, folder.name),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,seed\na.png,1\n", "no column 'prompt'"),
        ("file,prompt\na.png,x\nc.png,secret words\n", "1 images are not there .line 3."),
        ("file,prompt\na.png,x\na.png,y\n", "line 3: this file is listed in line 2"),
        (f"file,prompt\n{'secret words ' * 30},a.png\n", "1 images are not there .line 2."),
        ("file,prompt,seed\na.png,x,one\n", "line 2: a seed is a whole number"),
        ("file,prompt,seed\na.png,x,--1\n", "line 2: a seed is a whole number"),
        ("file,prompt,seed\na.png,x,2\u00b2\n", "line 2: a seed is a whole number"),
        ("file,prompt\n", "no rows"),
    ],
)
def test_a_bad_table_is_told_with_its_line(folder, text, says):
    with pytest.raises(DataError, match=says) as told:
        read_generated(write(folder, text))
    assert "secret" not in str(told.value)


def test_a_folder_without_a_table(tmp_path):
    with pytest.raises(DataError, match=r"no prompts\.csv"):
        read_generated(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        read_generated(tmp_path / "nowhere")
