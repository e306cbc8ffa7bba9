import pytest

from medtextdiff.text.encoders import tiny

NOTES = [
    "The nuclei density in the upper right is high.",
    "",
    "Bilateral pulmonary infection, two infected areas, all left lung and middle right lung. " * 6,
    "small",
    "Ödème à gauche — 左肺の浸潤影\n2 mm, Πνεύμονας",
    " \n\t",
    "small",
]


@pytest.fixture
def notes():
    return list(NOTES)


@pytest.fixture(params=["modernbert", "bert"])
def make(request):
    """Builds a tiny encoder of either family: make(width=..., exact=...)."""
    return lambda **changes: tiny.Config(as_bert=request.param == "bert", **changes).build()


@pytest.fixture
def folder(tmp_path, make):
    """A tiny model as a plain Hugging Face folder."""
    make().save_pretrained(str(tmp_path / "model"))
    return tmp_path / "model"
