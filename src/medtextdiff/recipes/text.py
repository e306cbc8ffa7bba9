"""Recipes that pre-train a text encoder on clinical text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.recipes.job import Job, Wrapped, on_component
from medtextdiff.text import mlm
from medtextdiff.text.corpora import plain, table
from medtextdiff.training import engine

_Split = Literal["train", "heldout"]


class Run(config.Config):
    """The pre-training of a small ModernBERT and its tokenizer by masked words.

    texts: text files or folders -> how often each is read in an epoch. tables: csv tables of notes, likewise; of these
    only rows with `split` = train. Held out is a share of the documents, by a hash of the text.
    """

    model: mlm.Config = mlm.Config()
    texts: dict[str, PositiveInt] = Field(default_factory=dict)
    tables: dict[str, PositiveInt] = Field(default_factory=dict)
    columns: tuple[str, ...] = ("note", "note_short", "note_long", "clinical_note")
    vocabulary: int = 8192
    length: PositiveInt = 128  # tokens in a packed row
    masking: mlm.Masking = mlm.Masking()
    training: engine.Config = engine.Config(monitor="heldout_loss", monitor_mode="min")

    def job(self) -> Job:
        """Train the tokenizer, pack the corpus and make a fresh model.

        Raises:
            ConfigError: no text; TextError: a file that is missing or cannot be read.
        """
        import torch

        from medtextdiff.text import tokenizer

        corpora = self._corpora()
        words = tokenizer.train(
            _documents(corpora, "train", once=True), self.vocabulary, max_tokens=self.model.max_tokens
        )
        data = mlm.MaskedWords(_documents(corpora, "train"), words, self.length, self.masking, self.training.seed)
        heldout = mlm.MaskedWords(_documents(corpora, "heldout"), words, self.length, self.masking)
        torch.manual_seed(self.training.seed)  # new weights
        model = Wrapped(text=mlm.WithTokenizer(self.model.build(words), words))

        def validate(model: Any) -> dict[str, float]:
            return {f"heldout_{name}": value for name, value in mlm.evaluate(model.text, heldout).items()}

        return Job(model, on_component("text", mlm.loss), data, validate, data_hashes=self._hashes())

    def _corpora(self) -> list[Any]:
        texts = [plain.Config(paths=(path,), repeat=repeat).build() for path, repeat in self.texts.items()]
        tables = [
            table.Config(paths=(path,), columns=self.columns, repeat=repeat).build()
            for path, repeat in self.tables.items()
        ]
        if not texts and not tables:
            raise ConfigError("no text: name files and how often each is read, --set 'texts={\"FILE.txt\": 1}'")
        return texts + tables

    def _hashes(self) -> dict[str, str]:
        from medtextdiff.training.disk import sha256

        files = [file for path in self.texts for file in plain.Config(paths=(path,)).build().files]
        return {str(file): sha256(file) for file in [*files, *map(Path, self.tables)]}


def _documents(corpora: list[Any], split: _Split, once: bool = False) -> Iterator[str]:
    for corpus in corpora:
        yield from corpus.documents(split, once=once)


def modernbert_small() -> Run:
    """Pre-train the small ModernBERT that ships as `modernbert-small` on clinical text.

    Source: ModernBERT (arXiv 2412.13663) at 3.8 M parameters: width 192, 6 layers, every third one global, window
    128, own vocabulary of 8,192; masked words at 30 %.
    Command: medtextdiff train text.modernbert_small --set 'texts={"FILE.txt": 3, ...}'
        --set 'tables={"notes.csv": 12, ...}' -o RUN
    Shipped weights: see pretrained/modernbert-small/MODEL_CARD.md for data, steps and hours.
    """
    return Run(
        training=engine.Config(
            max_steps=2400,
            batch_size=24,
            learning_rate=1.5e-3,
            weight_decay=0.05,
            betas=(0.9, 0.98),
            warmup_steps=100,
            schedule="linear",
            precision="bf16",
            checkpoint_every=100,
            validate_every=400,
            monitor="heldout_loss",
            monitor_mode="min",
        )
    )
