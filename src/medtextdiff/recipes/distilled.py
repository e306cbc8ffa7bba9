"""The run that teaches a small text encoder by a larger one."""

from typing import Any, Literal

from pydantic import PositiveInt, SerializeAsAny

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.recipes import contrasted
from medtextdiff.recipes.job import Job, Wrapped
from medtextdiff.recipes.text_corpora import Corpora
from medtextdiff.text import contrast as contrasts
from medtextdiff.text import distillation as lesson
from medtextdiff.text import mlm, static_words
from medtextdiff.text.masked import modernbert
from medtextdiff.text.note_encoder import position_limit
from medtextdiff.training import engine


class Run(Corpora):
    """The distillation of a text encoder; for the text see `Corpora`.

    model: the student, fresh weights (modernbert, bert) or a folder (pretrained). teacher: the folder of a BERT or
    ModernBERT, of any vocabulary and width. tokenizer: the student's, a folder; "" is the pretrained student's own, or
    one trained here. length, longest: as in `text.Run`, in the student's tokens; a piece must fit the teacher too.
    masking counts with `distillation.mlm_weight` alone. contrast: as in `text.Run`. words: what a fresh student's words
    begin as, random or what the teacher makes of each alone.
    """

    model: SerializeAsAny[config.Config] = modernbert.Config()
    teacher: str = ""
    tokenizer: str = ""
    vocabulary: int = 8192
    length: PositiveInt = 2048
    longest: PositiveInt = 512
    distillation: lesson.Config = lesson.Config()
    contrast: contrasts.Config | None = None
    words: Literal["random", "teacher"] = "random"
    masking: mlm.Masking = mlm.Masking()
    training: engine.Config = engine.Config(monitor="heldout_loss", monitor_mode="min")

    def job(self) -> Job:
        """Load the teacher, cut and pack the corpus, and make the student.

        Raises:
            ConfigError: no text or no teacher; TextError: a file or folder that is missing or cannot be read.
        """
        import torch
        from torch import nn

        from medtextdiff.text.lessons import Lessons

        teacher, teacher_words = self._teacher()
        reader = self.corpora()
        path = self.tokenizer or self.model.tokenizer_path()  # type: ignore[attr-defined]
        words = reader.tokenizer(path, self.vocabulary, getattr(self.model, "max_tokens", 0))
        torch.manual_seed(self.training.seed)  # new weights
        network = self.model.build(words)  # type: ignore[attr-defined]
        projection = nn.Linear(network.config.hidden_size, teacher.config.hidden_size)
        if self.words == "teacher":
            if path := self.model.tokenizer_path():  # type: ignore[attr-defined]
                raise ConfigError(f"the words of {path} are trained already; leave out words=teacher")
            with torch.no_grad():
                projection.weight.copy_(static_words.begin(network, words, teacher, teacher_words))
        limit = position_limit(network)
        rows: dict[str, Any] = {
            "length": self.length,
            "longest": min(self.longest, limit),
            "teacher_longest": position_limit(teacher),
            "masker": mlm.Masker(words, self.masking) if self.distillation.mlm_weight else None,
        }
        data: Any = Lessons(reader.documents("train"), words, teacher_words, seed=self.training.seed, **rows)
        heldout = Lessons(reader.documents("heldout"), words, teacher_words, **rows)
        head = self.contrast.head(network) if self.contrast else {}
        model = Wrapped(text=mlm.WithTokenizer(network, words), teacher=teacher, projection=projection, **head)
        lessons = self.distillation.build()
        loss, scores, names = lessons, None, self.distillation.scores()
        if self.contrast is not None:
            data, scores, told = contrasted.add(self.contrast, reader, data, heldout, words, self.training.seed, limit)
            names += told
            loss = self.contrast.beside(lessons, text=lambda model: model.text)

        def validate(model: Any) -> dict[str, float]:
            found = lesson.evaluate(lessons, model, heldout)
            if scores is not None:
                found |= scores(model)
            return {f"heldout_{name}": value for name, value in found.items()}

        return reader.job(words, model, loss, data, validate, tuple(f"heldout_{name}" for name in names))

    def _teacher(self) -> tuple[Any, Any]:
        from medtextdiff.text.loading import load_pretrained

        if not self.teacher:
            raise ConfigError("no teacher: name the folder of a BERT or ModernBERT, --set teacher=DIR")
        teacher, words = load_pretrained(self.teacher)
        return teacher.requires_grad_(False).eval(), words
