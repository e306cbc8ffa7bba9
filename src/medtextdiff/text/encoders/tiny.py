"""A tiny random ModernBERT or BERT over bytes, made in code: for tests and trials without any file."""

from typing import Any

import torch
from pydantic import Field

from medtextdiff.text.encoders import huggingface
from medtextdiff.text.note_encoder import NoteEncoder, Use
from medtextdiff.text.tokenizer import bytes_only


class Config(Use):
    """The real classes at tiny size; weights are random and say nothing."""

    width: int = Field(default=32, ge=4)
    layers: int = Field(default=4, ge=1)  # 4: two global and two local layers
    heads: int = Field(default=2, ge=1)
    local_attention: int = Field(default=16, ge=2)
    as_bert: bool = False
    positions: int = Field(default=8192, ge=3)
    seed: int = 0

    def build(self) -> NoteEncoder:
        """The encoder; the same seed gives the same weights."""
        tokenizer = bytes_only(self.positions)
        with torch.random.fork_rng(devices=[]):  # transformers draws weights from the global generator
            torch.manual_seed(self.seed)
            model = self._model(tokenizer)
        return self.encoder(model, tokenizer)

    def saved(self, path: str) -> huggingface.Config:
        """The config that finds the trained encoder again, once it is saved at `path`."""
        return huggingface.saved(self, path)

    def _model(self, tokenizer: Any) -> Any:
        from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel

        shared = {
            "vocab_size": len(tokenizer),
            "hidden_size": self.width,
            "intermediate_size": 2 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "max_position_embeddings": self.positions,
            "initializer_range": 0.1,  # larger than usual, so that random weights tell words apart
            "pad_token_id": tokenizer.pad_token_id,
        }
        if self.as_bert:
            return BertModel(BertConfig(**shared), add_pooling_layer=False)
        return ModernBertModel(
            ModernBertConfig(
                **shared,
                local_attention=self.local_attention,
                cls_token_id=tokenizer.cls_token_id,
                sep_token_id=tokenizer.sep_token_id,
                bos_token_id=tokenizer.cls_token_id,
                eos_token_id=tokenizer.sep_token_id,
            )
        )
