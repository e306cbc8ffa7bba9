"""An encoder's shape and tokenizer with new weights: what of its worth was learned, and what the shape gives alone."""

from typing import Any

import torch
from pydantic import Field

from medtextdiff import config
from medtextdiff.text import loading
from medtextdiff.text.note_encoder import NoteEncoder, Pooling


class Config(config.Config):
    """Whose shape, and the seed of the new weights; the rest as `huggingface`."""

    path: str = "builtin:modernbert-small/text"
    seed: int = 0
    max_tokens: int | None = Field(default=None, ge=3)
    pooling: Pooling = "mean"
    exact: bool = True
    cache_size: int = Field(default=4096, ge=0)

    def build(self) -> NoteEncoder:
        """The encoder, frozen; the same seed gives the same weights.

        Raises:
            TextError: the model is not there, is damaged, or does not fit its tokenizer.
        """
        trained, tokenizer = loading.load_pretrained(self.path)
        with torch.random.fork_rng(devices=[]), loading.quiet():  # transformers draws from the global generator
            torch.manual_seed(self.seed)
            model = self._new(trained)
        return NoteEncoder(
            model,
            tokenizer,
            max_tokens=self.max_tokens,
            pooling=self.pooling,
            exact=self.exact,
            cache_size=self.cache_size,
        )

    def _new(self, trained: Any) -> Any:
        from transformers import AutoModel

        options = {"add_pooling_layer": False} if trained.config.model_type == "bert" else {}
        return AutoModel.from_config(trained.config, trust_remote_code=False, **options).float().eval()
