"""What a student learns from a teacher with another vocabulary: one text in the tokens of both, aligned by words."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medtextdiff.text import packing
from medtextdiff.text.alignment import tokenize, word_spans
from medtextdiff.text.errors import TextError
from medtextdiff.text.mlm import IGNORED, Masker

_MARGIN = 4  # tokens by which a piece may grow when it is tokenized without the text before it
_AT_ONCE = 200


class Lessons:
    """Rows of packed documents for student and teacher; what the training loop calls `data`.

    A document is cut, between words, into pieces that both can read whole. Texts lie in a nameless temporary file and
    are tokenized when they are drawn.
    """

    def __init__(
        self,
        documents: Iterable[str],
        student: Any,
        teacher: Any,
        *,
        length: int = 1024,
        longest: int = 512,
        teacher_longest: int = 512,
        masker: Masker | None = None,
        seed: int = 0,
    ) -> None:
        """Read, cut and pack.

        Args:
            documents: texts.
            student: its tokenizer, a fast one.
            teacher: likewise.
            length: tokens of the student in a row, about.
            longest: most tokens of the student in a piece, special tokens included.
            teacher_longest: likewise of the teacher.
            masker: hides words from the student (the teacher reads all); None: none.
            seed: of the order in which pieces are packed.

        Raises:
            TextError: no document, or a tokenizer that cannot be used.
        """
        for tokenizer in (student, teacher):
            if None in (tokenizer.cls_token_id, tokenizer.sep_token_id):
                raise TextError("a tokenizer has no cls_token or no sep_token; use that of a BERT or ModernBERT")
        self._student, self._teacher, self._masker = student, teacher, masker
        self._limits = longest - 2, teacher_longest - 2
        if min(self._limits) <= _MARGIN:
            raise TextError(f"pieces of {min(self._limits) + 2} tokens are too short to learn from; allow more")
        sizes, tokens = self._write(documents)
        if not sizes:
            raise TextError("the corpus holds no document; check its paths, and what is left out or held out")
        self._starts = np.cumsum([0, *sizes])
        self._rows = packing.pack(np.array(tokens, dtype=np.int64) + 2, max(length, longest + _MARGIN), seed)

    def __len__(self) -> int:
        """Rows."""
        return len(self._rows)

    def text(self, piece: int) -> str:
        """A piece of a document."""
        return self._bytes[self._starts[piece] : self._starts[piece + 1]].tobytes().decode()

    def sample(self, index: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Row `index`.

        `ids`, `labels`, `words`: Int[N] of the student, `lengths` Int[M] of its documents; `teacher_ids` Int[O],
        `teacher_words` Int[O], `teacher_lengths` Int[M]; `num_words` Int[1]. Words that both have are numbered over
        the row; -1 is none of these. Labels are `mlm.IGNORED` but where a word is masked.
        """
        texts = [self.text(piece) for piece in self._rows[index].tolist()]
        rows = zip(tokenize(self._student, texts), tokenize(self._teacher, texts), strict=True)
        student, teacher, done = _Stream(self._student), _Stream(self._teacher), 0
        for (ids, words), (teacher_ids, teacher_words) in rows:
            words = words[: self._limits[0]]
            teacher_words = teacher_words[: self._limits[1]]
            shared = np.intersect1d(words[words >= 0], teacher_words[teacher_words >= 0])
            student.add(ids[: self._limits[0]], _renumber(words, shared, done))
            teacher.add(teacher_ids[: self._limits[1]], _renumber(teacher_words, shared, done))
            done += len(shared)
        seen, student_words, lengths = student.tensors()
        labels = torch.full_like(seen, IGNORED)
        if self._masker is not None:
            seen, labels = self._masker(seen, rng)
        others = dict(zip(("teacher_ids", "teacher_words", "teacher_lengths"), teacher.tensors(), strict=True))
        ours = {"ids": seen, "labels": labels, "words": student_words, "lengths": lengths}
        return ours | others | {"num_words": torch.tensor([done])}

    @staticmethod
    def collate(samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Rows end to end, words numbered over all of them."""
        before = [0, *np.cumsum([int(sample["num_words"]) for sample in samples]).tolist()]
        batch = {name: torch.cat([sample[name] for sample in samples]) for name in samples[0]}
        for name in ("words", "teacher_words"):
            parts = [
                torch.where(sample[name] < 0, -1, sample[name] + more)
                for sample, more in zip(samples, before, strict=False)
            ]
            batch[name] = torch.cat(parts)
        return batch

    def _write(self, documents: Iterable[str]) -> tuple[list[int], list[int]]:
        """Cut all documents; the bytes and the student's tokens of each piece."""
        sizes, tokens = [], []
        with tempfile.TemporaryFile() as file:
            stream = iter(documents)
            while texts := list(islice(stream, _AT_ONCE)):
                for piece, num in self._cut(texts):
                    content = piece.encode()
                    file.write(content)
                    sizes.append(len(content))
                    tokens.append(num)
            file.flush()
            if sizes:
                self._bytes = np.memmap(file, dtype=np.uint8, mode="r", shape=(sum(sizes),))
        return sizes, tokens

    def _cut(self, texts: list[str]) -> Iterator[tuple[str, int]]:
        """Pieces with the number of the student's tokens."""
        pairs = zip(tokenize(self._student, texts), tokenize(self._teacher, texts), strict=True)
        for text, ((_, words), (_, teacher_words)) in zip(texts, pairs, strict=True):
            spans = word_spans(text)
            counts = np.stack([_per_word(words, len(spans)), _per_word(teacher_words, len(spans))])
            edges = _edges(counts, [limit - _MARGIN for limit in self._limits])
            for first, stop in pairwise(edges):
                num = int(counts[0, first:stop].sum())
                if 0 < num <= self._limits[0] and counts[1, first:stop].sum() <= self._limits[1]:
                    yield text[spans[first, 0] : spans[stop - 1, 1]], num  # else one endless word


class _Stream:
    """Documents of one tokenizer, laid end to end."""

    def __init__(self, tokenizer: Any) -> None:
        self._ends = np.array([tokenizer.cls_token_id]), np.array([tokenizer.sep_token_id])
        self._none = np.array([-1])
        self._ids: list[np.ndarray] = []
        self._words: list[np.ndarray] = []
        self._lengths: list[int] = []

    def add(self, ids: np.ndarray, words: np.ndarray) -> None:
        """A document, between its special tokens."""
        self._ids += [self._ends[0], ids, self._ends[1]]
        self._words += [self._none, words, self._none]
        self._lengths.append(len(ids) + 2)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, words, lengths."""
        rows = torch.from_numpy(np.concatenate(self._ids)), torch.from_numpy(np.concatenate(self._words))
        return *rows, torch.tensor(self._lengths)


def _per_word(words: np.ndarray, num: int) -> np.ndarray:
    """Tokens of each word, the blanks between words with the word before them."""
    known = np.maximum.accumulate(np.maximum(words, 0)) if len(words) else words
    return np.bincount(known, minlength=num)[:num]


def _edges(counts: np.ndarray, limits: Sequence[int]) -> list[int]:
    """Word numbers at which pieces begin, and the end: as many words as fit both limits, at least one."""
    num = counts.shape[1]
    sums = np.concatenate([np.zeros((2, 1), dtype=np.int64), counts.cumsum(axis=1)], axis=1)
    edges = [0]
    while edges[-1] < num:
        begin = edges[-1]
        stops = [
            int(np.searchsorted(row, row[begin] + most, side="right")) - 1
            for row, most in zip(sums, limits, strict=True)
        ]
        edges.append(max(begin + 1, min(*stops, num)))
    return edges


def _renumber(words: np.ndarray, shared: np.ndarray, first: int) -> np.ndarray:
    """Words that are shared as first, first + 1, ...; others as -1."""
    if not len(shared):
        return np.full_like(words, -1)
    place = np.minimum(np.searchsorted(shared, words), len(shared) - 1)
    return np.where(shared[place] == words, first + place, -1)
