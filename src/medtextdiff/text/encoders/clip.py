"""The text tower of a CLIP, from a folder or the hub: what MSDM's published code reads prompts with."""

from pathlib import Path

import torch
from pydantic import Field

from medtextdiff.text.loading import load_pretrained
from medtextdiff.text.note_encoder import NoteEncoder, Use
from medtextdiff.text.tokenizer import bytes_only


class Config(Use):
    """A whole CLIP or its text tower alone; the default is MSDM's, with its 64 tokens."""

    path: str = "openai/clip-vit-large-patch14"
    max_tokens: int | None = Field(default=64, ge=3)  # None: as many as the model takes

    @classmethod
    def tiny(cls, folder: Path) -> "Config":
        """Write a tiny random text tower over bytes into `folder` and give its config."""
        from transformers import CLIPTextConfig, CLIPTextModel  # heavy

        words = bytes_only(max_tokens=512)
        with torch.random.fork_rng(devices=[]):  # transformers draws weights from the global generator
            torch.manual_seed(0)
            model = CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(words),
                    hidden_size=32,
                    intermediate_size=64,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    max_position_embeddings=512,
                    initializer_factor=10.0,  # larger than usual, so that random weights tell words apart
                    pad_token_id=words.pad_token_id,
                    bos_token_id=words.cls_token_id,
                    eos_token_id=words.sep_token_id,
                )
            )
        NoteEncoder(model, words).save_pretrained(folder)
        return cls(path=str(folder), max_tokens=None)

    def build(self) -> NoteEncoder:
        """The encoder with its weights.

        Raises:
            TextError: the model is not there, is damaged, does not fit its tokenizer, or takes fewer tokens.
        """
        from transformers import CLIPTextModel  # heavy

        model, tokenizer = load_pretrained(self.path, CLIPTextModel)
        return self.encoder(model, tokenizer)

    def saved(self, path: str) -> "Config":
        """The config of this encoder once it was trained and written to `path`."""
        return self.replace(path=path)
