import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import medtextdiff
from medtextdiff.text import tokenizer
from medtextdiff.text.errors import TextError

TEXTS = [
    "the nuclei density in the upper right is high.",
    "  two  spaces, a tab\tand a\nnew line ",
    "ödème à gauche — 左肺の浸潤影 🫁 πνεύμονας",
    "12.5 mm, t2n0m0, x10^9/l",
    "\x00\x01\x7f",
]


@pytest.fixture(scope="module")
def trained():
    return tokenizer.train(["The nuclei density in the upper right is high."] * 3 + ["A polyp of 12 mm."] * 3, size=300)


@pytest.mark.parametrize("text", TEXTS)
def test_every_byte_comes_back(trained, text):
    for words in (trained, tokenizer.bytes_only()):
        ids = words(text)["input_ids"]
        assert words.unk_token_id not in ids
        assert words.decode(ids, skip_special_tokens=True) == text


def test_case_is_folded_unless_asked(trained):
    assert trained("LEFT Lung")["input_ids"] == trained("left lung")["input_ids"]
    kept = tokenizer.train(["Left left"] * 3, size=280, lowercase=False)
    assert kept("Left")["input_ids"] != kept("left")["input_ids"]


def test_composed_and_decomposed_letters_are_one(trained):
    assert trained("\u00f6d\u00e8me")["input_ids"] == trained("o\u0308de\u0300me")["input_ids"]


def test_the_first_word_is_the_word_elsewhere(trained):
    first, second = (trained.tokenize(text) for text in ("nuclei", "the nuclei"))
    assert first == second[1:]


def test_digits_stand_alone(trained):
    words = tokenizer.train(["in 2024 and 2024 and 2024"] * 5, size=290)
    assert sum(any(letter.isdigit() for letter in word) for word in words.tokenize("in 2024")) == 4


def test_special_tokens_are_those_of_modernbert(trained):
    assert {"[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"} == set(trained.all_special_tokens)
    ids = trained("left")["input_ids"]
    assert (ids[0], ids[-1]) == (trained.cls_token_id, trained.sep_token_id)


def test_it_saves_and_loads_as_any_tokenizer(trained, tmp_path):
    from transformers import AutoTokenizer

    trained.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(TEXTS)["input_ids"] == trained(TEXTS)["input_ids"]
    assert again.model_max_length == 8192


def test_a_cut_that_one_call_asked_for_is_not_saved(trained, tmp_path):
    trained(["a long note"] * 2, truncation=True, max_length=4, padding="max_length")
    tokenizer.save(trained, tmp_path)
    assert len(Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("a polyp " * 50).ids) > 50
    assert "max_length" not in json.loads((tmp_path / "tokenizer_config.json").read_text())


@pytest.mark.parametrize("name", ["modernbert-clinical", "modernbert-small"])
def test_what_ships_cuts_nothing_by_itself(name):
    file = Path(medtextdiff.__file__).parent / "pretrained" / name / "text" / "tokenizer.json"
    assert len(Tokenizer.from_file(str(file)).encode("left lung " * 400).ids) > 800


def test_no_room_for_the_bytes_is_refused():
    with pytest.raises(TextError, match="at least 261"):
        tokenizer.train(["a"], size=200)
