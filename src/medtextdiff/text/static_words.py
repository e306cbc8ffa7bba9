"""The words of a fresh encoder begin as what a teacher makes of each alone (as github.com/MinishLab/model2vec).

A corpus of some megabytes cannot teach what words mean; a teacher of any other vocabulary has read more. Each piece of
the student's vocabulary is read by the teacher as a text of its own, and the main directions of what it gives are kept.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medtextdiff.text import packed_attention
from medtextdiff.text.alignment import means
from medtextdiff.text.errors import TextError

_AT_ONCE = 512  # pieces that the teacher reads together


@torch.no_grad()
def begin(student: Any, words: Any, teacher: Any, teacher_words: Any) -> Float[Tensor, "E W"]:
    """Set the student's embeddings; they keep their spread.

    Special tokens, pieces of blanks and pieces that are no whole characters stay as they are.

    Args:
        student: a BERT or ModernBERT of width W.
        words: its tokenizer.
        teacher: a BERT or ModernBERT of width E.
        teacher_words: its tokenizer.

    Returns:
        The linear map that takes what was set to the teacher's states, but for their mean and size.

    Raises:
        TextError: a tokenizer of special tokens alone.
    """
    table = student.get_input_embeddings().weight
    pieces = {
        number: text
        for number in range(len(words))
        if number not in words.all_special_ids and (text := _text(words, number))
    }
    if len(pieces) < 2:
        raise TextError("the student's tokenizer has no words to begin with; train one on more text")
    known = torch.tensor(list(pieces))
    states = torch.cat(list(_alone(list(pieces.values()), teacher, teacher_words)))
    centred = states - states.mean(dim=0)
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    num = min(table.shape[1], int((sizes > 1e-6 * sizes[0]).sum()))
    basis = directions[:num]  # (num, E)
    reduced = centred @ basis.T
    table[known, :num] = reduced * (table[known, :num].std() / reduced.std())
    there_and_back = torch.zeros(states.shape[1], table.shape[1])
    there_and_back[:, :num] = basis.T
    return there_and_back


def _text(words: Any, number: int) -> str:
    """A piece as it is written within a text; "" where alone it is no text."""
    text = words.decode([number]).strip().removeprefix("##")  # WordPiece's mark of a word's later pieces
    return "" if "\ufffd" in text else text


def _alone(texts: list[str], teacher: Any, teacher_words: Any) -> Iterator[Float[Tensor, "P E"]]:
    """The mean of the teacher's states of each text."""
    for first in range(0, len(texts), _AT_ONCE):
        some = texts[first : first + _AT_ONCE]
        ids = [torch.tensor(row) for row in teacher_words(some, split_special_tokens=True, verbose=False)["input_ids"]]
        lengths = torch.tensor([len(row) for row in ids])
        states = packed_attention.states(teacher, torch.cat(ids), lengths)
        yield means(states, torch.repeat_interleave(torch.arange(len(ids)), lengths), len(ids))
