"""The text that a text encoder learns from, as fields that its recipes share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.recipes.job import Job, Loss
from medtextdiff.text import tokenizer as tokenizers
from medtextdiff.text.corpora import jsonl as json_lines
from medtextdiff.text.corpora import mimic3 as mimic_iii
from medtextdiff.text.corpora import mimic4 as mimic_iv
from medtextdiff.text.corpora import plain, table
from medtextdiff.text.errors import TextError
from medtextdiff.text.loading import read_tokenizer
from medtextdiff.text.reading.notes import NoteCorpus
from medtextdiff.training import weights
from medtextdiff.training.disk import sha256, write_json
from medtextdiff.training.progress import say

REPORT = "corpora.json"
_Split = Literal["train", "heldout"]
_USE = {"train": "train on", "heldout": "hold out"}


class Corpora(config.Config):
    """Where the text lies.

    texts: text files or folders -> how often each is read in an epoch. tables: csv tables of notes, likewise; of these
    only rows with `split` = train. Held out is a share of the documents, by a hash of the text.
    jsonl, mimic3, mimic4: notes of these layouts (`paths`), held out by patient; what was read is in `corpora.json`.
    """

    texts: dict[str, PositiveInt] = Field(default_factory=dict)
    tables: dict[str, PositiveInt] = Field(default_factory=dict)
    columns: tuple[str, ...] = ("note", "note_short", "note_long", "clinical_note")
    jsonl: json_lines.Config = json_lines.Config()
    mimic3: mimic_iii.Config = mimic_iii.Config()
    mimic4: mimic_iv.Config = mimic_iv.Config()

    def corpora(self) -> "Reader":
        """What reads it; files are looked up now.

        Raises:
            ConfigError: no text was named; TextError: a file that is not there.
        """
        texts = [plain.Config(paths=(path,), repeat=repeat).build() for path, repeat in self.texts.items()]
        tables = [
            table.Config(paths=(path,), columns=self.columns, repeat=repeat).build()
            for path, repeat in self.tables.items()
        ]
        parts: dict[str, Any] = {"jsonl": self.jsonl, "mimic3": self.mimic3, "mimic4": self.mimic4}
        notes = {name: part.build() for name, part in parts.items() if part.paths}
        if not texts and not tables and not notes:
            raise ConfigError(
                "no text: name files and how often each is read, --set 'texts={\"FILE.txt\": 1}', or notes, "
                "--set mimic3.paths=NOTEEVENTS.csv.gz"
            )
        files = [file for text in texts for file in text.files] + [file for one in tables for file in one.files]
        return Reader([*texts, *tables, *notes.values()], notes, files)


class Reader:
    """All corpora of a run, one after the other."""

    def __init__(self, corpora: list[Any], notes: dict[str, NoteCorpus], files: list[Path]) -> None:
        """`notes` are those of `corpora` that give a report; `files` those of the others."""
        self._corpora, self._notes, self._files = corpora, notes, files

    def documents(self, split: _Split, once: bool = False) -> Iterator[str]:
        """The documents of a split. `once`: not as often as each corpus is to be read.

        Raises:
            TextError: there is none, what was left out is said; or a file that cannot be read.
        """
        empty = True
        for corpus in self._corpora:
            for document in corpus.documents(split, once=once):
                empty = False
                yield document
        if empty:
            left_out = "; ".join(filter(None, (corpus.left_out() for corpus in self._notes.values())))
            why = f" ({left_out})" if left_out else ""
            remedy = (
                "check paths and filters"
                if split == "train"
                else "give more text: about one document in fifty is held out"
            )
            raise TextError(f"the corpus has no document to {_USE[split]}{why}; {remedy}")

    def tokenizer(self, path: str | None, size: int, max_tokens: int) -> Any:
        """The tokenizer in the folder `path`, or, where there is none, one of `size` words trained on the documents.

        Raises:
            TextError: no tokenizer there, or no document.
        """
        if path is not None:
            return read_tokenizer(path)
        return tokenizers.train(self.documents("train", once=True), size, max_tokens=max_tokens)

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of each file."""
        found = {file: sha256(file) for file in self._files}
        for corpus in self._notes.values():
            found |= corpus.hashes()
        return {str(file): value for file, value in found.items()}

    def job(
        self,
        words: Any,
        model: Any,
        loss: Loss,
        data: Any,
        validate: Callable[[Any], dict[str, float]],
        scores: tuple[str, ...],
    ) -> Job:
        """The job of a run that reads this text with the tokenizer `words`; `scores` are those of `validate`."""
        return Job(
            model,
            loss,
            data,
            validate,
            data_hashes=self.hashes(),
            describe=self.describe,
            also_read={"tokenizer": tokenizers.digest(words)},
            scores=scores,
            frozen=weights.digests_of_frozen(model),
        )

    def describe(self, run_dir: Path) -> None:
        """Tell what could not be read, and write what was to `corpora.json`."""
        for corpus in self._notes.values():
            for line in corpus.faults():
                say(line)
        if self._notes:
            write_json(run_dir / REPORT, {name: corpus.report() for name, corpus in self._notes.items()})
