import pytest

from medtextdiff.text.corpora import plain, table
from medtextdiff.text.errors import TextError


@pytest.fixture
def folder(tmp_path):
    documents = [f"Document {number}.\nSecond line, ö." for number in range(400)]
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("\n\n".join(documents[:300]) + "\n", encoding="utf-8")
    (tmp_path / "sub" / "b.txt").write_text("\ufeff\n\n\n" + "\n \n".join(documents[200:]), encoding="utf-8")
    (tmp_path / "other.csv").write_text("not text")
    return tmp_path


def test_documents_are_parted_by_blank_lines_and_doubles_dropped(folder):
    read = list(plain.Config(paths=(str(folder),), heldout=0).build().documents())
    assert read == [f"Document {number}.\nSecond line, ö." for number in range(400)]


def test_the_split_is_whole_fixed_and_of_the_right_size(folder):
    corpus = plain.Config(paths=(str(folder),), heldout=0.1).build()
    train, heldout = list(corpus.documents("train")), list(corpus.documents("heldout"))
    assert len(train) + len(heldout) == 400
    assert not set(train) & set(heldout)
    assert 20 <= len(heldout) <= 62
    alone = plain.Config(paths=(str(folder / "sub" / "b.txt"),), heldout=0.1).build()
    assert set(alone.documents("heldout")) <= set(heldout)


def test_repeat_weighs_training_only(folder):
    corpus = plain.Config(paths=(str(folder),), heldout=0.1, repeat=3).build()
    once = plain.Config(paths=(str(folder),), heldout=0.1).build()
    assert list(corpus.documents()) == list(once.documents()) * 3
    assert list(corpus.documents("heldout")) == list(once.documents("heldout"))


def test_reading_is_lazy(folder):
    corpus = plain.Config(paths=(str(folder),), heldout=0).build()
    assert next(iter(corpus.documents())).startswith("Document 0")
    (folder / "a.txt").write_text("changed")
    assert next(iter(corpus.documents())) == "changed"


def test_a_path_may_begin_at_home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    (folder / "notes.csv").write_text("note,split\nLeft.,train\n")
    assert plain.Config(paths=("~/a.txt",)).build().files == [folder / "a.txt"]
    assert list(table.Config(paths=("~/notes.csv",), heldout=0).build().documents()) == ["Left."]


def test_bad_corpora_are_refused(tmp_path):
    with pytest.raises(TextError, match="needs files"):
        plain.Config().build()
    with pytest.raises(TextError, match="check the path"):
        plain.Config(paths=(str(tmp_path / "nowhere"),)).build()
    with pytest.raises(TextError, match=r"no \*.txt"):
        plain.Config(paths=(str(tmp_path),)).build()
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(TextError, match="not UTF-8"):
        list(plain.Config(paths=(str(tmp_path),)).build().documents())


@pytest.fixture
def notes_csv(tmp_path):
    rows = 'image,split,note,more\na,train,"Left, upper",x\nb,val,secret,y\nc,train,,z\nd,train,"Left, upper",\n'
    (tmp_path / "notes.csv").write_text(rows, encoding="utf-8")
    return str(tmp_path / "notes.csv")


def test_a_table_gives_the_distinct_notes_of_its_training_rows(notes_csv):
    assert list(table.Config(paths=(notes_csv,), heldout=0).build().documents()) == ["Left, upper"]
    both = table.Config(paths=(notes_csv,), columns=("note", "more"), heldout=0, split=None).build()
    assert set(both.documents()) == {"Left, upper", "x", "secret", "y", "z"}


def test_bad_tables_are_refused(tmp_path, notes_csv):
    with pytest.raises(TextError, match="needs files"):
        table.Config().build()
    with pytest.raises(TextError, match="no table"):
        table.Config(paths=(str(tmp_path / "nowhere.csv"),)).build()
    with pytest.raises(TextError, match="none of the columns text"):
        list(table.Config(paths=(notes_csv,), columns=("text",)).build().documents())
    (tmp_path / "b.csv").write_text("note\nleft\n")
    with pytest.raises(TextError, match="no column 'split'"):
        list(table.Config(paths=(str(tmp_path / "b.csv"),)).build().documents())
    (tmp_path / "b.csv").write_bytes(b"note,split\ncaf\xe9,train\n")
    with pytest.raises(TextError, match="not UTF-8"):
        list(table.Config(paths=(str(tmp_path / "b.csv"),)).build().documents())


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ('train,"secret left\ntrain,right\n', "check its quotes"),
        ("train,secret nodule, left lung\n", "line 3: more or fewer cells"),
        ("train\n", "line 3: more or fewer cells"),
    ],
)
def test_a_broken_row_of_a_table_is_told_not_read_otherwise(tmp_path, rows, says):
    (tmp_path / "b.csv").write_text(f"split,note\ntrain,fine\n{rows}", encoding="utf-8")
    with pytest.raises(TextError, match=says) as error:
        list(table.Config(paths=(str(tmp_path / "b.csv"),), heldout=0).build().documents())
    assert "secret" not in str(error.value)


def test_a_table_may_hold_a_long_note(tmp_path):
    (tmp_path / "b.csv").write_text(f"split,note\ntrain,{'x ' * 250_000}\n", encoding="utf-8")
    (note,) = table.Config(paths=(str(tmp_path / "b.csv"),), heldout=0).build().documents()
    assert len(note) == 499_999
