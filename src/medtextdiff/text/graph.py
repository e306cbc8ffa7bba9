"""A note encoder's network as one traceable graph, and a note encoder around such a graph run by someone else.

The graph takes token ids and which of them are real, in any batch and length, and gives the last hidden states.
Tokenizing, cutting, pooling and remembering notes stay here, so that an exported encoder does exactly what it did.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.text.encoders.fixed_length import FixedLength
from medtextdiff.text.errors import TextError
from medtextdiff.text.loading import load_tokenizer, quiet
from medtextdiff.text.note_encoder import NoteEncoder, Pooling

States = Callable[[Tensor, Tensor], Tensor]  # (ids Int[B L], real Bool[B L]) -> Float[B L D]


class Config(config.Config):
    """What of a note encoder the graph does not hold. `num_tokens` is that of `fixed_length`, else None."""

    width: PositiveInt
    limit: PositiveInt
    pooling: Pooling = "mean"
    exact: bool = True
    num_tokens: PositiveInt | None = None

    @classmethod
    def of(cls, encoder: nn.Module) -> "Config":
        """The settings of an encoder.

        Raises:
            TextError: an encoder that is no network over token ids.
        """
        if isinstance(encoder, FixedLength):
            return cls(width=encoder.width, limit=encoder.num_tokens, num_tokens=encoder.num_tokens)
        if isinstance(encoder, NoteEncoder):
            return cls(
                width=encoder.width, limit=encoder.limit, pooling=encoder.pooling, exact=encoder.reads_notes_alone
            )
        raise TextError(
            f"a text encoder of type {type(encoder).__name__} cannot be exported; huggingface and fixed_length can"
        )

    def build(self, states: States, tokenizer: Path) -> NoteEncoder | FixedLength:
        """The encoder whose network is `states` and whose tokenizer lies in the folder `tokenizer`.

        Raises:
            TextError: the tokenizer cannot be read.
        """
        try:
            with quiet():
                words = load_tokenizer(tokenizer)
        except Exception as error:  # transformers raises almost anything at a damaged file
            raise TextError(
                f"cannot read the tokenizer in {tokenizer} ({type(error).__name__}); export again"
            ) from None
        network = _Network(states, self.width, self.limit)
        if self.num_tokens is not None:
            return FixedLength(network, words, self.num_tokens)
        return NoteEncoder(network, words, pooling=self.pooling, exact=self.exact)


class Traced(nn.Module):
    """The network of an encoder with masks that no branch depends on, as a tracer needs them."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.model: Any = encoder.model

    def forward(self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The last hidden states; every word, padding too, looks at the real words alone."""
        return self.model(input_ids=ids, attention_mask=self._masks(mask)).last_hidden_state

    def _masks(self, mask: Tensor) -> Any:
        kind = self.model.config.model_type
        if kind not in ("bert", "modernbert"):
            return mask.long()
        length = mask.shape[1]
        real = mask | ~mask.any(dim=1, keepdim=True)  # a softmax over no word would be no number
        inside = real[:, None, None, :].expand(-1, 1, length, -1)  # (B, 1, L, L)
        if kind == "bert":
            return inside
        place = torch.arange(length, device=mask.device)
        near = (place[:, None] - place[None, :]).abs() <= self.model.config.sliding_window
        return {"full_attention": inside, "sliding_attention": inside & near}


class _Network(nn.Module):
    """Stands where an encoder has its transformers model."""

    def __init__(self, states: States, width: int, limit: int) -> None:
        super().__init__()
        self._states = states
        self.config = SimpleNamespace(model_type="exported", hidden_size=width, max_position_embeddings=limit)
        self.like = nn.Parameter(torch.zeros(1), requires_grad=False)  # says on which device features shall be

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        states = self._states(input_ids.cpu(), attention_mask.bool().cpu())
        return SimpleNamespace(last_hidden_state=states.to(self.like.device))
