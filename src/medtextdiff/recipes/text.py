"""Recipes that pre-train a text encoder on clinical text."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, SerializeAsAny

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.recipes.job import Job, Wrapped, on_component
from medtextdiff.text import lora as adapters
from medtextdiff.text import mlm
from medtextdiff.text.corpora import jsonl as json_lines
from medtextdiff.text.corpora import mimic3 as mimic_iii
from medtextdiff.text.corpora import mimic4 as mimic_iv
from medtextdiff.text.corpora import plain, table
from medtextdiff.text.errors import TextError
from medtextdiff.text.masked import bert, modernbert, pretrained
from medtextdiff.text.reading.notes import NoteCorpus
from medtextdiff.training import engine
from medtextdiff.training.disk import sha256, write_json
from medtextdiff.training.progress import say

_Split = Literal["train", "heldout"]
_USE = {"train": "train on", "heldout": "hold out"}


class Run(config.Config):
    """The pre-training of a text encoder by masked words.

    model: fresh weights of some size (modernbert, bert), or a folder to go on from (pretrained).
    texts: text files or folders -> how often each is read in an epoch. tables: csv tables of notes, likewise; of these
    only rows with `split` = train. Held out is a share of the documents, by a hash of the text.
    jsonl, mimic3, mimic4: notes of these layouts (`paths`), held out by patient; what was read is in `corpora.json`.
    tokenizer: a folder to take it from; "" is the pretrained model's own, or else one trained here.
    length: most tokens in a packed row; a step sees `training.batch_size` rows. longest: most tokens of a document,
    longer ones are cut; never more than the model takes.
    """

    model: SerializeAsAny[config.Config] = modernbert.Config()
    texts: dict[str, PositiveInt] = Field(default_factory=dict)
    tables: dict[str, PositiveInt] = Field(default_factory=dict)
    columns: tuple[str, ...] = ("note", "note_short", "note_long", "clinical_note")
    jsonl: json_lines.Config = json_lines.Config()
    mimic3: mimic_iii.Config = mimic_iii.Config()
    mimic4: mimic_iv.Config = mimic_iv.Config()
    tokenizer: str = ""
    vocabulary: int = 8192
    length: PositiveInt = 4096
    longest: PositiveInt | None = None
    masking: mlm.Masking = mlm.Masking()
    lora: adapters.Config = adapters.Config()
    training: engine.Config = engine.Config(monitor="heldout_loss", monitor_mode="min")

    def job(self) -> Job:
        """Train or read the tokenizer, pack the corpus and make the model.

        Raises:
            ConfigError: no text; TextError: a file that is missing or cannot be read, a tokenizer that does not fit.
        """
        corpora = self._corpora()
        words = self._tokenizer(corpora)
        network = self._network(words)
        longest = min(self.longest or self.length, int(network.config.max_position_embeddings))
        rows: dict[str, Any] = {"length": self.length, "masking": self.masking, "longest": longest}
        data = mlm.MaskedWords(_documents(corpora, "train"), words, seed=self.training.seed, **rows)
        heldout = mlm.MaskedWords(_documents(corpora, "heldout"), words, **rows)

        def validate(model: Any) -> dict[str, float]:
            return {f"heldout_{name}": value for name, value in mlm.evaluate(model.text, heldout).items()}

        model = Wrapped(text=mlm.WithTokenizer(network, words))
        hashes, describe = self._hashes(corpora), partial(_write_report, self._notes(corpora))
        return Job(model, on_component("text", mlm.loss), data, validate, data_hashes=hashes, describe=describe)

    def _network(self, words: Any) -> Any:
        import torch

        torch.manual_seed(self.training.seed)  # new weights
        network = self.model.build(words)  # type: ignore[attr-defined]
        self.lora.apply(network)
        return network

    def _tokenizer(self, corpora: list[Any]) -> Any:
        from medtextdiff.text import tokenizer
        from medtextdiff.text.loading import read_tokenizer

        path = self.tokenizer or self.model.tokenizer_path()  # type: ignore[attr-defined]
        if path is not None:
            return read_tokenizer(path)
        documents = _documents(corpora, "train", once=True)
        return tokenizer.train(documents, self.vocabulary, max_tokens=self.model.max_tokens)  # type: ignore[attr-defined]

    def _corpora(self) -> list[Any]:
        texts = [plain.Config(paths=(path,), repeat=repeat).build() for path, repeat in self.texts.items()]
        tables = [
            table.Config(paths=(path,), columns=self.columns, repeat=repeat).build()
            for path, repeat in self.tables.items()
        ]
        notes = [part.build() for part in (self.jsonl, self.mimic3, self.mimic4) if part.paths]
        if not texts and not tables and not notes:
            raise ConfigError(
                "no text: name files and how often each is read, --set 'texts={\"FILE.txt\": 1}', or notes, "
                "--set mimic3.paths=NOTEEVENTS.csv.gz"
            )
        return [*texts, *tables, *notes]

    def _hashes(self, corpora: list[Any]) -> dict[str, str]:
        notes = self._notes(corpora).values()
        texts = [file for corpus in corpora if isinstance(corpus, plain.PlainCorpus) for file in corpus.files]
        files = {file: sha256(file) for file in [*texts, *map(Path, self.tables)]}
        return {
            str(file): found for part in (files, *(corpus.hashes() for corpus in notes)) for file, found in part.items()
        }

    def _notes(self, corpora: list[Any]) -> dict[str, NoteCorpus]:
        found = [corpus for corpus in corpora if isinstance(corpus, NoteCorpus)]
        names = [name for name in ("jsonl", "mimic3", "mimic4") if getattr(self, name).paths]
        return dict(zip(names, found, strict=True))


def _documents(corpora: list[Any], split: _Split, once: bool = False) -> Iterator[str]:
    """All documents of a split.

    Raises:
        TextError: there is none; says what was left out, and why.
    """
    empty = True
    for corpus in corpora:
        for document in corpus.documents(split, once=once):
            empty = False
            yield document
    if empty:
        left_out = [corpus.left_out() for corpus in corpora if isinstance(corpus, NoteCorpus)]
        why = f" ({'; '.join(left_out)})" if any(left_out) else ""
        remedy = "check paths and filters" if split == "train" else "give more text, or hold more of it out"
        raise TextError(f"the corpus has no document to {_USE[split]}{why}; {remedy}")


def _write_report(corpora: dict[str, NoteCorpus], run_dir: Path) -> None:
    """Tell what could not be read, and write `corpora.json`."""
    for corpus in corpora.values():
        for line in corpus.faults():
            say(line)
    if corpora:
        write_json(run_dir / "corpora.json", {name: corpus.report() for name, corpus in corpora.items()})


def modernbert_small() -> Run:
    """Pre-train the small ModernBERT that ships as `modernbert-small` on clinical text.

    Source: ModernBERT (arXiv 2412.13663) at 6.1 M parameters: width 256, 6 layers, every third one global, window
    128, own vocabulary of 8,192, up to 8,192 tokens; masked words at 30 %. Rows of 4,096 tokens of whole documents.
    Command: medtextdiff train text.modernbert_small --set 'texts={"FILE.txt": 3, ...}'
        --set 'tables={"notes.csv": 12, ...}' --set training.max_minutes=50 -o RUN
    Hardware, time: one CPU thread, 50 minutes (the rate's fall follows the clock).
    Shipped weights: see pretrained/modernbert-small/MODEL_CARD.md for data, steps and hours.
    """
    return Run(
        training=engine.Config(
            max_steps=100_000,
            max_minutes=50,
            batch_size=1,
            learning_rate=1.5e-3,
            weight_decay=0.05,
            betas=(0.9, 0.98),
            warmup_steps=100,
            schedule="linear",
            precision="bf16",
            checkpoint_every=200,
            validate_every=500,
            monitor="heldout_loss",
            monitor_mode="min",
        )
    )


def bert_small() -> Run:
    """Pre-train a BERT of the size of `text.modernbert_small` on the same text, for the same minutes, to compare.

    Source: BERT (arXiv 1810.04805) at 6.3 M parameters, the masked-word task alone, masking as its sibling's; it takes
    512 tokens, longer documents are cut.
    Command: medtextdiff train text.bert_small --set tokenizer=RUN_OF_MODERNBERT/text --set 'texts=...' -o RUN
    Hardware, time: as its sibling.
    """
    return modernbert_small().replace(model=bert.Config())


def modernbert_mlm() -> Run:
    """Go on pre-training a ModernBERT or BERT from a local folder on a hospital's own notes.

    Source: ModernBERT (arXiv 2412.13663); FastTextDiff pre-trains ModernBERT-base on MIMIC-III and MIMIC-IV notes this
    way (with `masking.rate=0.15`). Rows of 8,192 tokens. From fresh weights: --set model=modernbert.
    Command: medtextdiff train text.modernbert_mlm --set model.path=MODERNBERT_FOLDER
        --set 'texts={"NOTES_DIR": 1}' [--set lora.rank=16] -o RUN
    Hardware, time: one GPU with bf16 and 24 GB for the base size (not measured).
    """
    return Run(
        model=pretrained.Config(),
        length=8192,
        training=engine.Config(
            max_steps=20_000,
            batch_size=8,
            accumulation=4,
            learning_rate=1e-4,
            weight_decay=0.01,
            betas=(0.9, 0.98),
            warmup_steps=500,
            schedule="linear",
            precision="auto",
            checkpoint_every=500,
            validate_every=1000,
            monitor="heldout_loss",
            monitor_mode="min",
        ),
    )
