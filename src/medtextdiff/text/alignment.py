"""Which word each token belongs to, for any tokenizer: so that two of them can be compared word by word.

A word is what stands between blanks. Offsets in characters are what tokenizers have in common, their pieces are not.
"""

import re
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from medtextdiff.text.errors import TextError

_WORD = re.compile(r"\S+")


def word_spans(text: str) -> np.ndarray:
    """Int64[words, 2]: where each word begins and ends, in characters."""
    return np.array([match.span() for match in _WORD.finditer(text)], dtype=np.int64).reshape(-1, 2)


def word_numbers(offsets: Any, spans: np.ndarray) -> np.ndarray:
    """The number of the word that each token lies in, -1 for a token of blanks or of nothing; Int64[tokens].

    A token's last character decides: byte-level tokens begin with the blank before the word.
    """
    places = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    if not len(spans):
        return np.full(len(places), -1, dtype=np.int64)
    last = places[:, 1] - 1
    number = np.minimum(np.searchsorted(spans[:, 1], last, side="right"), len(spans) - 1)
    inside = (spans[number, 0] <= last) & (last < spans[number, 1]) & (places[:, 0] < places[:, 1])
    return np.where(inside, number, -1)


def tokenize(tokenizer: Any, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each text the token numbers, without special tokens, and their words; each Int64[tokens].

    Raises:
        TextError: a tokenizer that does not tell offsets, or a text that is not valid Unicode.
    """
    if not tokenizer.is_fast:
        raise TextError("this tokenizer does not tell where its tokens lie in the text; save it as tokenizer.json")
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    try:
        found = tokenizer(texts, split_special_tokens=True, return_offsets_mapping=True, **options)
    except (TypeError, UnicodeEncodeError):
        raise TextError("a document holds characters that are not valid Unicode; save the text as UTF-8") from None
    parts = zip(texts, found["input_ids"], found["offset_mapping"], strict=True)
    return [(np.array(ids, dtype=np.int64), word_numbers(offsets, word_spans(text))) for text, ids, offsets in parts]


def means(states: Float[Tensor, "N D"], groups: Int[Tensor, " N"], num: int) -> Float[Tensor, "num D"]:
    """The mean of the states of each group 0 ... num-1, in float32; -1 belongs to none. A group must not be empty."""
    real = groups >= 0
    members = groups[real]
    sums = torch.zeros(num, states.shape[1], device=states.device).index_add(0, members, states[real].float())
    return sums / torch.bincount(members, minlength=num)[:, None]
