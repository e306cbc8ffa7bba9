"""Run a BERT or ModernBERT over notes: real words only, in any order and company, cuts counted."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from medtextdiff import config
from medtextdiff.text import tokenizer as tokenizers
from medtextdiff.text.attention import attention_masks
from medtextdiff.text.errors import TextError
from medtextdiff.text.loading import quiet
from medtextdiff.types import TextFeatures

Pooling = Literal["mean", "cls"]
BATCH_TOKENS = 16_384  # padded tokens that go through the model at once
_CACHED_WORDS = 1024  # a longer note is rare and would fill the cache


class Use(config.Config):
    """How a note encoder is used; the parts that have one inherit these fields."""

    max_tokens: int | None = Field(default=None, ge=3)  # None: as many as the model takes
    trainable: bool = False
    pooling: Pooling = "mean"  # the note as one vector: the mean over its words, or the first word's state
    exact: bool = True  # frozen only: features to the last bit the same in any batch
    cache_size: int = Field(default=4096, ge=0)  # frozen only: notes remembered

    def encoder(self, model: nn.Module, tokenizer: Any) -> "NoteEncoder":
        """`model` and its tokenizer, used so.

        Raises:
            TextError: the model takes fewer tokens.
        """
        return NoteEncoder(model, tokenizer, **{name: getattr(self, name) for name in Use.model_fields})


class Cuts(NamedTuple):
    """Distinct notes that were longer than the encoder takes, and the tokens they lost."""

    notes: int
    tokens: int


class _Encoded(NamedTuple):
    tokens: Tensor  # Float[words, D]
    pooled: Tensor  # Float[D]


class NoteEncoder(nn.Module):
    """Notes to features by a transformers model; a `TextEncoder`.

    Special tokens count as real words. An empty note never meets the model: its row is all zero and its mask all
    False. A frozen encoder is always in eval mode, computes in its own precision whatever the autocast, and
    remembers notes. With `exact`, it reads each note alone, so that its features are the same to the last bit
    whatever other notes stand beside it; without, notes of like length share a batch (faster, equal to 1e-5).
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        max_tokens: int | None = None,
        trainable: bool = False,
        pooling: Pooling = "mean",
        exact: bool = True,
        cache_size: int = 4096,
    ) -> None:
        """Put a model and its tokenizer together.

        Raises:
            TextError: `max_tokens` is more than the model takes, or it is no encoder of notes.
        """
        super().__init__()
        own_limit = position_limit(model)
        if max_tokens is not None and max_tokens > own_limit:
            raise TextError(f"max_tokens={max_tokens}, but this encoder takes at most {own_limit}; choose fewer")
        self.model, self.tokenizer = model, tokenizer
        self.width: int = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.limit = max_tokens or own_limit
        self.trainable, self.pooling = trainable, pooling
        self._exact, self._cache_size = exact and not trainable, 0 if trainable else cache_size
        self._cache: OrderedDict[str, _Encoded] = OrderedDict()
        self._lost: dict[bytes, int] = {}  # a cut note's digest: tokens lost
        model.requires_grad_(trainable)
        self.register_load_state_dict_post_hook(_forget)
        self.train(trainable)

    @property
    def cuts(self) -> Cuts:
        """What did not fit, over all calls so far; the same note counts once."""
        return Cuts(len(self._lost), sum(self._lost.values()))

    @property
    def reads_notes_alone(self) -> bool:
        """Whether notes share no batch; see `exact` above."""
        return self._exact

    def report(self) -> dict[str, int]:
        """The cuts, for a run's report: `max_tokens`, `notes_cut`, `tokens_lost`."""
        return {"max_tokens": self.limit, "notes_cut": self.cuts.notes, "tokens_lost": self.cuts.tokens}

    def lengths(self, notes: Sequence[str]) -> list[int]:
        """Tokens of each note before any cut, special tokens included; 0 for an empty note."""
        _check(notes)
        real = [note for note in notes if note.strip()]
        counts = iter(len(ids) for ids in self._tokenize(real))
        return [next(counts) if note.strip() else 0 for note in notes]

    def forward(self, notes: Sequence[str]) -> TextFeatures:
        """The features of `notes`, in their order; L is the longest note's words (1 when all are empty).

        Raises:
            TextError: not a list of strings, or a string that is not valid Unicode.
        """
        _check(notes)
        distinct = [note for note in dict.fromkeys(notes) if note.strip()]
        found = self._encode(distinct) if self.trainable else self._recall(distinct)
        like = next(self.model.parameters())
        absent = _Encoded(like.new_zeros(0, self.width), like.new_zeros(self.width))
        rows = [found.get(note, absent) for note in notes]
        if not rows:
            none = like.new_zeros(0, 1, self.width)
            return TextFeatures(none, none[..., 0].bool(), none[:, 0])
        counts = torch.tensor([len(row.tokens) for row in rows], device=like.device)
        length = max(1, int(counts.max()))
        spacer = like.new_zeros(length, self.width)  # sets the padded length, also where every note is empty
        tokens = pad_sequence([*(row.tokens for row in rows), spacer], batch_first=True)[:-1]  # (B, L, D)
        mask = torch.arange(length, device=like.device)[None, :] < counts[:, None]  # (B, L)
        return TextFeatures(tokens, mask, torch.stack([row.pooled for row in rows]))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model and tokenizer as a plain Hugging Face folder."""
        with quiet():
            self.model.save_pretrained(folder)  # type: ignore[operator]
            tokenizers.save(self.tokenizer, folder)

    def train(self, mode: bool = True) -> "NoteEncoder":
        """Training mode; a frozen encoder stays in eval mode."""
        return super().train(mode and self.trainable)

    def _apply(self, *args: Any, **kwargs: Any) -> "NoteEncoder":
        self._cache.clear()  # another device or precision: other features
        return super()._apply(*args, **kwargs)

    def _recall(self, notes: Sequence[str]) -> dict[str, _Encoded]:
        found = {note: self._cache[note] for note in notes if note in self._cache}
        device = next(self.model.parameters()).device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            found |= self._encode([note for note in notes if note not in found])
        for note, encoded in found.items():
            if self._cache_size and len(encoded.tokens) <= _CACHED_WORDS:
                self._cache[note] = encoded
                self._cache.move_to_end(note)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return found

    def _encode(self, notes: Sequence[str]) -> dict[str, _Encoded]:
        """Distinct, non-empty notes through the model."""
        ids = {note: self._cut(note, words) for note, words in zip(notes, self._tokenize(notes), strict=True)}
        ids = {note: words for note, words in ids.items() if words}  # no word at all: as good as absent
        found: dict[str, _Encoded] = {}
        for chunk in _chunks(ids, 1 if self._exact else BATCH_TOKENS):
            found |= dict(zip(chunk, self._run([ids[note] for note in chunk]), strict=True))
        return found

    def _run(self, ids: Sequence[Sequence[int]]) -> list[_Encoded]:
        device = next(self.model.parameters()).device
        words = [torch.tensor(row, device=device) for row in ids]
        batch = pad_sequence(words, batch_first=True, padding_value=self.tokenizer.pad_token_id or 0)  # (B, L)
        mask = pad_sequence([torch.ones_like(row) for row in words], batch_first=True)
        model_config: Any = self.model.config
        if model_config.model_type in ("bert", "modernbert"):
            mask = attention_masks(model_config, mask)  # transformers' own takes 2 GB for a long note
        states = self.model(input_ids=batch, attention_mask=mask).last_hidden_state  # (B, L, D)
        rows = [states[number, : len(row)] for number, row in enumerate(words)]
        return [_Encoded(row, row.mean(0) if self.pooling == "mean" else row[0]) for row in rows]

    def _tokenize(self, notes: Sequence[str]) -> list[list[int]]:
        if not notes:
            return []
        try:  # a note that says "[SEP]" means the letters, not the special token
            encoded = self.tokenizer(list(notes), split_special_tokens=True, return_attention_mask=False, verbose=False)
        except (TypeError, UnicodeEncodeError):
            raise TextError("a note holds characters that are not valid Unicode; save the notes as UTF-8") from None
        return encoded["input_ids"]

    def _cut(self, note: str, ids: list[int]) -> list[int]:
        lost = len(ids) - self.limit
        if lost <= 0:
            return ids
        self._lost[hashlib.blake2b(note.encode(), digest_size=16).digest()] = lost
        ends = (self.tokenizer.sep_token_id, self.tokenizer.eos_token_id)  # CLIP's has the latter alone
        tail = ids[-1:] if ids[-1] in ends else []  # a cut note still ends as the model expects
        return ids[: self.limit - len(tail)] + tail


def _check(notes: Sequence[str]) -> None:
    if isinstance(notes, str):
        raise TextError("notes must be a list of strings, got one string; write [note]")
    for number, note in enumerate(notes):
        if not isinstance(note, str):
            raise TextError(f"note {number} is a {type(note).__name__}, not a string; an absent note is ''")


def _chunks(ids: dict[str, list[int]], budget: int) -> Iterable[list[str]]:
    """Notes of like length together, at most `budget` padded tokens, but at least one note, at a time."""
    chunk: list[str] = []
    for note in sorted(ids, key=lambda note: len(ids[note])):
        if chunk and (len(chunk) + 1) * len(ids[note]) > budget:
            yield chunk
            chunk = []
        chunk.append(note)
    if chunk:
        yield chunk


def position_limit(model: nn.Module) -> int:
    """Most tokens of a note that a transformers encoder takes, special ones included.

    Raises:
        TextError: it does not say.
    """
    settings: Any = model.config
    if not hasattr(settings, "max_position_embeddings") or not hasattr(settings, "hidden_size"):
        raise TextError(
            f"a '{settings.model_type}' does not read notes here; give a BERT, a ModernBERT or one like them"
        )
    limit = int(settings.max_position_embeddings)
    for name, table in model.named_modules():
        # RoBERTa and its kin count their positions from the padding's number + 1.
        if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None:
            return limit - int(table.padding_idx) - 1
    return limit


def _forget(module: nn.Module, _keys: Any) -> None:
    module._cache.clear()  # type: ignore[operator, union-attr]
