"""Any BERT or ModernBERT of the transformers library, from the package, a folder or the hub."""

from pydantic import Field

from medtextdiff import config
from medtextdiff.text.loading import load_pretrained
from medtextdiff.text.note_encoder import NoteEncoder, Pooling


class Config(config.Config):
    """Which model, and how it is used."""

    path: str = "builtin:modernbert-small/text"  # ships with the package; or a folder, or a hub id
    max_tokens: int | None = Field(default=None, ge=3)  # None: as many as the model takes
    trainable: bool = False
    pooling: Pooling = "mean"  # the note as one vector: the mean over its words, or the first word's state
    exact: bool = True  # frozen only: features to the last bit the same in any batch
    cache_size: int = Field(default=4096, ge=0)  # frozen only: notes remembered

    def build(self) -> NoteEncoder:
        """The encoder with its weights.

        Raises:
            TextError: the model is not there, is damaged, does not fit its tokenizer, or takes fewer tokens.
        """
        model, tokenizer = load_pretrained(self.path)
        return NoteEncoder(
            model,
            tokenizer,
            max_tokens=self.max_tokens,
            trainable=self.trainable,
            pooling=self.pooling,
            exact=self.exact,
            cache_size=self.cache_size,
        )

    def saved(self, path: str) -> "Config":
        """The config of this encoder once it was trained and written to `path`."""
        return self.replace(path=path)
