"""Any BERT or ModernBERT of the transformers library, from the package, a folder or the hub."""

from medtextdiff.text.loading import load_pretrained
from medtextdiff.text.note_encoder import NoteEncoder, Use


class Config(Use):
    """Which model, and how it is used."""

    path: str = "builtin:modernbert-small/text"  # ships with the package; or a folder, or a hub id

    def build(self) -> NoteEncoder:
        """The encoder with its weights.

        Raises:
            TextError: the model is not there, is damaged, does not fit its tokenizer, or takes fewer tokens.
        """
        model, tokenizer = load_pretrained(self.path)
        return self.encoder(model, tokenizer)

    def saved(self, path: str) -> "Config":
        """The config of this encoder once it was trained and written to `path`."""
        return self.replace(path=path)


def saved(use: Use, path: str) -> Config:
    """The config that finds an encoder again that was trained and written to `path`, used as before."""
    return Config(path=path, **{name: getattr(use, name) for name in Use.model_fields})
