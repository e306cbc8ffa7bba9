"""A ModernBERT from fresh weights (arXiv 2412.13663)."""

from typing import Any

from pydantic import PositiveInt
from torch import nn

from medtextdiff import config


class Config(config.Config):
    """Its size. The defaults are the small one that ships with the package (6.1 M parameters at 8,192 words)."""

    width: PositiveInt = 256
    layers: PositiveInt = 6
    heads: PositiveInt = 4
    mlp_width: PositiveInt = 512  # of each of the gated layer's two halves
    local_attention: PositiveInt = 128  # window of the local layers, both sides together
    global_every: PositiveInt = 3
    max_tokens: PositiveInt = 8192

    def tokenizer_path(self) -> None:
        """It has no tokenizer of its own."""
        return

    def build(self, tokenizer: Any) -> nn.Module:
        """A `ModernBertForMaskedLM` with fresh weights (torch's global random state) and tied embeddings."""
        from transformers import ModernBertConfig, ModernBertForMaskedLM

        return ModernBertForMaskedLM(
            ModernBertConfig(
                vocab_size=-(-len(tokenizer) // 64) * 64,  # a multiple of 64 multiplies faster
                hidden_size=self.width,
                intermediate_size=self.mlp_width,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                max_position_embeddings=self.max_tokens,
                local_attention=self.local_attention,
                global_attn_every_n_layers=self.global_every,
                sparse_prediction=True,  # logits of the masked words only
                pad_token_id=tokenizer.pad_token_id,
                cls_token_id=tokenizer.cls_token_id,
                sep_token_id=tokenizer.sep_token_id,
                bos_token_id=tokenizer.cls_token_id,
                eos_token_id=tokenizer.sep_token_id,
            )
        )
