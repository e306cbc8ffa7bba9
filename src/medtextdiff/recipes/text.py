"""Recipes that pre-train a text encoder on clinical text."""

from typing import Any

from pydantic import PositiveInt, SerializeAsAny

from medtextdiff import config
from medtextdiff.recipes import contrasted, distilled
from medtextdiff.recipes.job import Job, Wrapped, on_component
from medtextdiff.recipes.text_corpora import Corpora
from medtextdiff.text import contrast as contrasts
from medtextdiff.text import distillation, mlm
from medtextdiff.text import lora as adapters
from medtextdiff.text.masked import bert, modernbert, pretrained
from medtextdiff.text.note_encoder import position_limit
from medtextdiff.training import engine


class Run(Corpora):
    """The pre-training of a text encoder by masked words; for the text see `Corpora`.

    model: fresh weights of some size (modernbert, bert), or a folder to go on from (pretrained).
    tokenizer: a folder to take it from; "" is the pretrained model's own, or else one trained here.
    length: most tokens in a packed row; a step sees `training.batch_size` rows. longest: most tokens of a document,
    longer ones are cut; never more than the model takes. contrast: sentences that have to be told from their
    contradictions, beside the masked words; None: none.
    """

    model: SerializeAsAny[config.Config] = modernbert.Config()
    tokenizer: str = ""
    vocabulary: int = 8192
    length: PositiveInt = 4096
    longest: PositiveInt | None = None
    masking: mlm.Masking = mlm.Masking()
    contrast: contrasts.Config | None = None
    lora: adapters.Config = adapters.Config()
    training: engine.Config = engine.Config(monitor="heldout_loss", monitor_mode="min")

    def job(self) -> Job:
        """Train or read the tokenizer, pack the corpus and make the model.

        Raises:
            ConfigError: no text; TextError: a file that is missing or cannot be read, a tokenizer that does not fit.
        """
        reader = self.corpora()
        path = self.tokenizer or self.model.tokenizer_path()  # type: ignore[attr-defined]
        words = reader.tokenizer(path, self.vocabulary, getattr(self.model, "max_tokens", 0))
        network = self._network(words)
        limit = position_limit(network)
        longest = min(self.longest or self.length, limit)
        rows: dict[str, Any] = {"length": self.length, "masking": self.masking, "longest": longest}
        data: Any = mlm.MaskedWords(reader.documents("train"), words, seed=self.training.seed, **rows)
        heldout: Any = mlm.MaskedWords(reader.documents("heldout"), words, **rows)
        loss: Any = on_component("text", mlm.loss)
        scores: Any = None
        names: tuple[str, ...] = mlm.SCORES
        if self.contrast is not None:
            data, scores, told = contrasted.add(self.contrast, reader, data, heldout, words, self.training.seed, limit)
            names += told
            loss = self.contrast.beside(loss, text=lambda model: model.text)

        def validate(model: Any) -> dict[str, float]:
            found = mlm.evaluate(model.text, heldout)
            if scores is not None:
                found |= scores(model)
            return {f"heldout_{name}": value for name, value in found.items()}

        head = self.contrast.head(network) if self.contrast else {}
        model = Wrapped(text=mlm.WithTokenizer(network, words), **head)
        return reader.job(words, model, loss, data, validate, tuple(f"heldout_{name}" for name in names))

    def _network(self, words: Any) -> Any:
        import torch

        torch.manual_seed(self.training.seed)  # new weights
        network = self.model.build(words)  # type: ignore[attr-defined]
        self.lora.apply(network)
        return network


def modernbert_small() -> Run:
    """Pre-train a small ModernBERT on clinical text.

    Source: ModernBERT (arXiv 2412.13663) at 6.1 M parameters: width 256, 6 layers, every third one global, window
    128, own vocabulary of 8,192, up to 8,192 tokens; masked words at 30 %. Rows of 4,096 tokens of whole documents.
    Command: medtextdiff train text.modernbert_small --set 'texts={"FILE.txt": 3, ...}'
        --set 'tables={"notes.csv": 12, ...}' --set training.max_minutes=50 -o RUN
    Hardware, time: one CPU thread, 50 minutes (the rate's fall follows the clock).
    The weights that ship are an earlier, smaller model of this name (3.8 M); its MODEL_CARD.md says how it was made.
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
    512 tokens, longer documents are cut. Its rate is lower: normalised after each sum, it learns later.
    Command: medtextdiff train text.bert_small --set tokenizer=RUN_OF_MODERNBERT/text --set 'texts=...' -o RUN
    Hardware, time: as its sibling.
    """
    run = modernbert_small()
    return run.replace(model=bert.Config(), training=run.training.replace(learning_rate=1e-3))


def modernbert_contrast() -> Run:
    """Go on with a pre-trained encoder: masked words, and sentences told from their contradictions.

    For an encoder of `text.modernbert_small` or `text.bert_small`, or any other that reads notes.
    Source: InfoNCE with hard negatives (arXiv 2104.08821), the negatives from the corpus's own sentences with one
    telling word exchanged (left, right; mild, severe; no, multiple).
    Command: medtextdiff train text.modernbert_contrast --set model.path=RUN/text --set 'texts={"FILE.txt": 1}' -o RUN2
    Hardware, time: one CPU thread, 30 minutes (the rate's fall follows the clock).
    """
    run = modernbert_small()
    return run.replace(
        model=pretrained.Config(),
        length=2048,
        contrast=contrasts.Config(),
        training=run.training.replace(max_minutes=30, learning_rate=5e-4, weight_decay=0.01, warmup_steps=30),
    )


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


def modernbert_distilled() -> distilled.Run:
    """Teach the small ModernBERT what a larger encoder from a local folder makes of each word.

    Source: distillation of states (arXiv 1910.01108), between tokenizers: words are aligned by their characters. The
    FastTextDiff authors' script feeds the teacher the student's token numbers; this does not.
    Command: medtextdiff train text.modernbert_distilled --set teacher=FOLDER --set tokenizer=RUN/text
        --set 'texts={"FILE.txt": 1}' [--set distillation.mlm_weight=0.1] -o RUN
    Hardware, time: not measured; a step costs what the teacher's forward costs and the student's own.
    """
    return distilled.Run(training=modernbert_small().training)


def modernbert_taught() -> distilled.Run:
    """Train the small ModernBERT by a teacher, by contrast and by masked words, all at once.

    The teacher is a sentence encoder such as MiniLM. A BERT of the size: --set model=bert.
    Source: `text.modernbert_distilled` on short pieces, with the mean of a piece's words beside each word; words begin
    as what the teacher makes of each alone (Model2Vec); `text.modernbert_contrast` for what such a teacher does not
    tell apart (left and right), and rules for what a sentence asserts (`assertions`).
    Command: medtextdiff train text.modernbert_taught --set teacher=FOLDER --set tokenizer=RUN/text
        --set 'texts={"FILE.txt": 1}' -o RUN
    Hardware, time: one CPU thread, 50 minutes (the rate's fall follows the clock).
    """
    run = modernbert_contrast()
    return distilled.Run(
        length=1536,
        longest=48,
        words="teacher",
        distillation=distillation.Config(word_weight=2.0, pooled_weight=4.0, mlm_weight=0.3),
        contrast=contrasts.Config(weight=0.5, asserted=1.0),
        training=run.training.replace(max_minutes=50, learning_rate=2e-3, warmup_steps=100),
    )
