import numpy as np
import pytest

from medtextdiff.text import tokenizer
from medtextdiff.text.errors import TextError
from medtextdiff.text.token_store import TokenStore

WORDS = tokenizer.bytes_only()


def test_it_holds_the_tokens_of_all_documents():
    texts = [f"Report {number}, ö" for number in range(2500)] + [""]
    store = TokenStore(iter(texts), WORDS)
    assert len(store) == 2500
    expected = [WORDS(text, add_special_tokens=False)["input_ids"] for text in texts[:-1]]
    assert store.lengths.tolist() == [len(ids) for ids in expected]
    assert store.read(0, store.num_tokens).tolist() == [word for ids in expected for word in ids]
    assert store.num_words == 3 * 2500
    assert store.num_characters == sum(map(len, texts))
    assert store.read(0, 5).dtype == np.int64


def test_bad_documents_are_refused():
    with pytest.raises(TextError, match="no document"):
        TokenStore([], WORDS)
    with pytest.raises(TextError, match="not valid Unicode"):
        TokenStore(["\ud800"], WORDS)
