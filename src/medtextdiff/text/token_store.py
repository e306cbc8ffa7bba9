"""A corpus as token numbers, on disk: so many gigabytes of notes can be trained on in little memory."""

import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from medtextdiff.text.errors import TextError

_AT_ONCE = 1000  # documents, or
_CHARACTERS = 4_000_000  # so many characters, go through the tokenizer together


class TokenStore:
    """The documents of a corpus as token numbers, without special tokens, in a nameless temporary file.

    2 bytes a token (4 for a vocabulary beyond 65,536), and in memory 8 bytes a document.
    """

    def __init__(self, documents: Iterable[str], tokenizer: Any) -> None:
        """Read and tokenize.

        Raises:
            TextError: no document, or one that is not valid Unicode; it is named by its number.
        """
        kind = np.uint16 if max(tokenizer.get_vocab().values()) < 2**16 else np.uint32
        self.num_words = self.num_characters = 0
        with tempfile.TemporaryFile() as file:
            lengths = [self._add(chunk, tokenizer, kind, file) for chunk in _chunks(documents)]
            self.lengths = np.concatenate([np.zeros(0, dtype=np.int64), *lengths])
            if not len(self.lengths):
                raise TextError("the corpus holds no document; check its paths, and what is left out or held out")
            file.flush()
            self.num_tokens = int(self.lengths.sum())
            self._tokens = np.memmap(file, dtype=kind, mode="r", shape=(self.num_tokens,))  # outlives the open file

    def __len__(self) -> int:
        """Documents."""
        return len(self.lengths)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens start ... stop-1 of all documents end to end, Int64."""
        return self._tokens[start:stop].astype(np.int64)

    def _add(self, texts: list[str], tokenizer: Any, kind: Any, file: Any) -> np.ndarray:
        """Write the tokens of some documents; the lengths of those that have any."""
        rows = [np.asarray(ids, dtype=kind) for ids in _ids(texts, tokenizer) if ids]
        for row in rows:
            file.write(row.tobytes())
        self.num_words += sum(len(text.split()) for text in texts)
        self.num_characters += sum(map(len, texts))
        return np.array([len(row) for row in rows], dtype=np.int64)


def _chunks(documents: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document)
        if len(chunk) == _AT_ONCE or size >= _CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _ids(chunk: list[str], tokenizer: Any) -> list[list[int]]:
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    try:  # a note that says "[SEP]" means the letters, not the special token
        return tokenizer(chunk, split_special_tokens=True, **options)["input_ids"]
    except (TypeError, UnicodeEncodeError):
        raise TextError("a document holds characters that are not valid Unicode; save the text as UTF-8") from None
