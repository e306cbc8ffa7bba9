"""Every note as exactly N tokens, padding included and attended: the quirk of the published FastTextDiff and TextDiff.

Their data set asks the tokenizer for `padding="max_length", truncation=True, max_length=10` and hands all ten hidden
states on without a mask, so what a padded position holds takes part (reference section 1.4). Use it to reproduce their
logits; for anything else use `huggingface`.
"""

from collections.abc import Sequence

import torch
from pydantic import PositiveInt
from torch import nn

from medtextdiff import config
from medtextdiff.text.errors import TextError
from medtextdiff.text.loading import load_pretrained
from medtextdiff.text.note_encoder import position_limit
from medtextdiff.types import TextFeatures


class Config(config.Config):
    """A frozen BERT or ModernBERT from a folder or the hub, and the number of tokens every note is cut or padded to."""

    path: str
    num_tokens: PositiveInt = 10

    def build(self) -> "FixedLength":
        """The encoder with its weights.

        Raises:
            TextError: the model is not there, is damaged, does not fit its tokenizer or takes fewer tokens.
        """
        model, tokenizer = load_pretrained(self.path)
        limit = position_limit(model)
        if self.num_tokens > limit:
            raise TextError(f"num_tokens={self.num_tokens}, but this encoder takes at most {limit}; choose fewer")
        return FixedLength(model, tokenizer, self.num_tokens)


class FixedLength(nn.Module):
    """See the module. An empty note is [CLS] [SEP] and padding, like any other: there is no absent note."""

    def __init__(self, model: nn.Module, tokenizer: object, num_tokens: int) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.num_tokens = num_tokens
        self.width: int = model.config.hidden_size  # type: ignore[union-attr, assignment]

    def train(self, mode: bool = True) -> "FixedLength":
        """Stays in evaluation mode: it is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, notes: Sequence[str]) -> TextFeatures:
        """Features of [B, num_tokens, D]; the mask is True everywhere."""
        tokens = self.tokenizer(  # type: ignore[operator]
            list(notes), padding="max_length", truncation=True, max_length=self.num_tokens, return_tensors="pt"
        )
        device = next(self.model.parameters()).device
        inputs = {name: tokens[name].to(device) for name in ("input_ids", "attention_mask")}
        hidden = self.model(**inputs).last_hidden_state
        mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=device)
        return TextFeatures(tokens=hidden, mask=mask, pooled=hidden.mean(dim=1))
