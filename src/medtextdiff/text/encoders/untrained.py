"""An encoder's shape and tokenizer with new weights: what of its worth was learned, and what the shape gives alone."""

from typing import Any

import torch

from medtextdiff.text import loading
from medtextdiff.text.encoders import huggingface
from medtextdiff.text.note_encoder import NoteEncoder, Use


class Config(Use):
    """Whose shape, and the seed of the new weights."""

    path: str = "builtin:modernbert-small/text"
    seed: int = 0

    def build(self) -> NoteEncoder:
        """The encoder; the same seed gives the same weights.

        Raises:
            TextError: the model is not there, is damaged, or does not fit its tokenizer.
        """
        trained, tokenizer = loading.load_pretrained(self.path)
        with torch.random.fork_rng(devices=[]), loading.quiet():  # transformers draws from the global generator
            torch.manual_seed(self.seed)
            model = self._new(trained)
        return self.encoder(model, tokenizer)

    def saved(self, path: str) -> huggingface.Config:
        """The config of this encoder once it was trained and written to `path`."""
        return huggingface.saved(self, path)

    def _new(self, trained: Any) -> Any:
        from transformers import AutoModel

        options = {"add_pooling_layer": False} if trained.config.model_type == "bert" else {}
        return AutoModel.from_config(trained.config, trust_remote_code=False, **options).float().eval()
