"""A BERT from fresh weights (arXiv 1810.04805), to be trained beside a ModernBERT of the same size.

Departs from the paper where the comparison needs it: the masked-word task alone, and no dropout by default.
"""

from typing import Any

from pydantic import Field, PositiveInt
from torch import nn

from medtextdiff import config


class Config(config.Config):
    """Its size. The defaults have the parameters of the small ModernBERT to 3 %: 1.5 times its `mlp_width`."""

    width: PositiveInt = 256
    layers: PositiveInt = 6
    heads: PositiveInt = 4
    mlp_width: PositiveInt = 768
    max_tokens: PositiveInt = 512  # each position is a learned row of `width` numbers
    dropout: float = Field(default=0.0, ge=0, lt=1)

    def tokenizer_path(self) -> None:
        """It has no tokenizer of its own."""
        return

    def build(self, tokenizer: Any) -> nn.Module:
        """A `BertForMaskedLM` with fresh weights (torch's global random state) and tied embeddings."""
        from transformers import BertConfig, BertForMaskedLM

        return BertForMaskedLM(
            BertConfig(
                vocab_size=-(-len(tokenizer) // 64) * 64,
                hidden_size=self.width,
                intermediate_size=self.mlp_width,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                max_position_embeddings=self.max_tokens,
                hidden_dropout_prob=self.dropout,
                attention_probs_dropout_prob=self.dropout,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
