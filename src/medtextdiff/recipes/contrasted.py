"""Sentences to tell apart beside the rows of a text run."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch import nn

from medtextdiff.recipes.text_corpora import Reader
from medtextdiff.text import contrast
from medtextdiff.text.errors import TextError


def add(
    settings: contrast.Config, reader: Reader, data: Any, heldout: Any, words: Any, seed: int, limit: int
) -> tuple[contrast.Contrasted, Callable[[nn.Module], dict[str, float]], tuple[str, ...]]:
    """`data` with sentences of the corpus beside each row, what scores the model on held-out ones, and these scores.

    Args:
        settings: how many sentences, and of what kind.
        reader: the corpus.
        data: the rows to train on.
        heldout: those held out.
        words: the tokenizer of the encoder.
        seed: of the sample of sentences.
        limit: most tokens that the encoder takes.

    Raises:
        TextError: too few telling sentences to train on.
    """

    def sentences(split: Any) -> contrast.Sentences:
        return contrast.Sentences(reader.documents(split, once=True), settings, seed)

    longest = min(contrast.MOST_TOKENS, limit)
    data = contrast.Contrasted(data, sentences("train"), words, longest)
    known = None
    with suppress(TextError):  # too little is held out to score it; that is no reason not to train
        known = contrast.Contrasted(heldout, sentences("heldout"), words, longest)

    def scores(model: Any) -> dict[str, float]:
        head = getattr(model, "asserted", None)
        return {} if known is None else contrast.evaluate(model.text, settings, known, head=head)

    return data, scores, () if known is None else settings.scores()
