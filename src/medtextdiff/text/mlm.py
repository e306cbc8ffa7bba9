"""Masked-language-model pre-training: pack, mask, loss.

Whole documents lie end to end in rows, without padding; attention stays inside each document, so a short note is
learned as it is met later: alone. Masking: 30 % of the words (arXiv 2202.08005; ModernBERT), 15 % in BERT and in the
FastTextDiff paper; of these 80 % become [MASK], 10 % another word and 10 % stay (arXiv 1810.04805).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.text import packed_attention, packing
from medtextdiff.text import tokenizer as tokenizers
from medtextdiff.text.errors import TextError
from medtextdiff.text.loading import quiet
from medtextdiff.text.lora import merged
from medtextdiff.text.token_store import TokenStore

IGNORED = -100  # label of a word that is not asked for
SCORES = ("loss", "masked_accuracy", "perplexity", "perplexity_per_word")  # what `evaluate` finds


class WithTokenizer(nn.Module):
    """A masked-word model and its tokenizer, which are saved together as a plain Hugging Face folder."""

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.config: Any = model.config

    def forward(self, **inputs: Any) -> Any:
        """What the model gives."""
        return self.model(**inputs)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model and tokenizer; `encoders.huggingface` reads the folder. LoRA becomes part of the weights."""
        with quiet():
            merged(self.model).save_pretrained(folder)
            tokenizers.save(self.tokenizer, folder)


class Masking(config.Config):
    """How many words are masked, and how; what is left of `mask` and `random` stays as it is."""

    rate: float = Field(default=0.3, gt=0, lt=1)
    mask: float = Field(default=0.8, ge=0, le=1)
    random: float = Field(default=0.1, ge=0, le=1)


class Masker:
    """Hides words of a row; special tokens are never asked for."""

    def __init__(self, tokenizer: Any, masking: Masking) -> None:
        """Look up the special tokens.

        Raises:
            TextError: the tokenizer lacks one.
        """
        self._masking, self._mask_id = masking, tokenizer.mask_token_id
        self.specials = _specials(tokenizer)
        special_ids = set(tokenizer.all_special_ids)
        self._words = torch.tensor([word for word in range(len(tokenizer)) if word not in special_ids])

    def __call__(self, ids: Int[Tensor, " N"], rng: torch.Generator) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
        """The row with words masked by draws from `rng`, and the labels."""
        draw, fate = torch.rand(ids.shape, generator=rng), torch.rand(ids.shape, generator=rng)
        return self.by(ids, draw, fate, torch.randint(len(self._words), ids.shape, generator=rng))

    def fixed(self, ids: Int[Tensor, " N"], places: Int[Tensor, " N"], seed: int) -> tuple[Tensor, Tensor]:
        """The same by `seed` and each token's place in the corpus alone, however the corpus is cut and packed."""
        draws = [torch.from_numpy(_uniform(places.numpy(), seed, number)) for number in range(3)]
        return self.by(ids, draws[0], draws[1], (draws[2] * len(self._words)).long())

    def by(self, ids: Tensor, draw: Tensor, fate: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """The same by numbers in [0, 1): who is asked for, what becomes of it; and which other word it may become."""
        draw = torch.where(torch.isin(ids, self.specials), 2.0, draw)  # never asked for
        asked = draw < self._masking.rate
        if not asked.any() and (draw < 1).any():
            asked[draw.argmin()] = True  # a row without a question has no loss
        labels = torch.where(asked, ids, IGNORED)
        swapped = asked & (fate >= self._masking.mask) & (fate < self._masking.mask + self._masking.random)
        ids = torch.where(asked & (fate < self._masking.mask), self._mask_id, ids)
        return torch.where(swapped, self._words[other], ids), labels


class MaskedWords:
    """Rows of packed documents with words masked afresh at every draw; what the training loop calls `data`."""

    def __init__(
        self,
        documents: Iterable[str],
        tokenizer: Any,
        length: int = 1024,
        masking: Masking | None = None,
        seed: int = 0,
        longest: int | None = None,
    ) -> None:
        """Read, tokenize and pack.

        Args:
            documents: texts; kept on disk as token numbers.
            tokenizer: a fast tokenizer with [CLS], [SEP], [PAD] and [MASK].
            length: most tokens in a row.
            masking: rates.
            seed: of the order in which documents are packed.
            longest: most tokens that are read as one document, special tokens included (None: `length`); a longer
                document is cut into equal pieces.

        Raises:
            TextError: no document, a tokenizer without one of the special tokens, or less room than for one word.
        """
        self._mask = Masker(tokenizer, masking or Masking())
        self._ends = np.array([tokenizer.cls_token_id]), np.array([tokenizer.sep_token_id])
        longest = min(length, longest or length)
        if longest < 3:
            raise TextError(f"a row of {longest} tokens has no room for a word between [CLS] and [SEP]; give more")
        self.store = TokenStore(documents, tokenizer)
        self._pieces = packing.cut(self.store.lengths, longest - 2)
        self._rows = packing.pack(self._pieces.lengths + 2, length, seed)

    def __len__(self) -> int:
        """Rows."""
        return len(self._rows)

    @property
    def num_tokens(self) -> int:
        """In all rows, special tokens included."""
        return self.store.num_tokens + 2 * len(self._pieces.lengths)

    def row(self, index: int) -> tuple[Int[Tensor, " N"], Int[Tensor, " M"]]:
        """Token numbers of row `index`, nothing masked, and the lengths of the documents in it."""
        parts: list[np.ndarray] = []
        lengths = []
        for piece in self._rows[index]:
            start, count = int(self._pieces.starts[piece]), int(self._pieces.lengths[piece])
            parts += [self._ends[0], self.store.read(start, start + count), self._ends[1]]
            lengths.append(count + 2)
        return torch.from_numpy(np.concatenate(parts)), torch.tensor(lengths)

    def sample(self, index: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Row `index`, masked by draws from `rng`: `ids` and `labels`, each Int[N], and `lengths` Int[M]."""
        ids, lengths = self.row(index)
        ids, labels = self._mask(ids, rng)
        return {"ids": ids, "labels": labels, "lengths": lengths}

    def fixed_sample(self, index: int, seed: int) -> dict[str, Tensor]:
        """Row `index` with the masks of `seed`: the same for the same text and tokenizer, whatever the rows are."""
        ids, lengths = self.row(index)
        none = np.zeros(1, dtype=np.int64)  # special tokens have no place
        runs = ((int(self._pieces.starts[piece]), int(self._pieces.lengths[piece])) for piece in self._rows[index])
        places = [part for start, count in runs for part in (none, np.arange(start, start + count), none)]
        ids, labels = self._mask.fixed(ids, torch.from_numpy(np.concatenate(places)), seed)
        return {"ids": ids, "labels": labels, "lengths": lengths}

    @staticmethod
    def collate(samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Rows end to end: one row is as good as many, since documents do not meet."""
        return {name: torch.cat([sample[name] for sample in samples]) for name in samples[0]}


def loss(model: nn.Module, batch: Mapping[str, Tensor], rng: torch.Generator | None = None) -> dict[str, Tensor]:
    """Mean cross-entropy over the masked words (nats), the share of them that the model names first, and the tokens.

    `rng` is unused: the masks are drawn with the samples. `model` is a ModernBERT or BERT with a masked-word head.
    """
    network: Any = model.model if isinstance(model, WithTokenizer) else model
    found = packed_attention.states(network.base_model, batch["ids"], batch["lengths"])
    num_tokens = torch.tensor(float(len(batch["ids"])), device=found.device)
    return guess(network, found, batch["labels"]) | {"num_tokens": num_tokens}


def guess(network: Any, states: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> dict[str, Tensor]:
    """`loss` and `masked_accuracy` of what the model's head makes of the states of masked words."""
    asked = labels != IGNORED
    if not asked.any():  # nothing but special tokens, as the words of a script that the tokenizer does not know
        nothing = 0.0 * states.float().sum()
        return {"loss": nothing, "masked_accuracy": nothing.detach()}
    logits = _words(network, states[asked]).float()
    right = (logits.argmax(-1) == labels[asked]).float().mean()
    return {"loss": F.cross_entropy(logits, labels[asked]), "masked_accuracy": right.detach()}


@torch.no_grad()
def evaluate(model: nn.Module, data: MaskedWords, seed: int = 0, batch_size: int = 8) -> dict[str, float]:
    """Scores over every masked token of `data`, each counting once; the same tokens are masked each time.

    And for every model that has the tokenizer: masks depend on the text alone, not on rows and cuts.

    `loss` (nats) and `masked_accuracy` are means over tokens, `perplexity` is exp(loss). `perplexity_per_word` is
    exp(loss x tokens / words), words being what stands between blanks: it can be compared between tokenizers (of the
    same texts and masking rate), `perplexity` cannot.
    """
    device = next(model.parameters()).device
    sums, num = {"loss": 0.0, "masked_accuracy": 0.0}, 0
    for start in range(0, len(data), batch_size):
        rows = range(start, min(start + batch_size, len(data)))
        batch = data.collate([data.fixed_sample(row, seed) for row in rows])
        batch = {name: value.to(device) for name, value in batch.items()}
        found, words = loss(model, batch), int((batch["labels"] != IGNORED).sum())
        sums = {name: total + words * float(found[name]) for name, total in sums.items()}
        num += words
    scores = {name: total / max(1, num) for name, total in sums.items()}
    pieces = data.store.num_tokens / max(1, data.store.num_words)
    return scores | {"perplexity": _exp(scores["loss"]), "perplexity_per_word": _exp(scores["loss"] * pieces)}


def _words(network: Any, states: Float[Tensor, "Q D"]) -> Float[Tensor, "Q V"]:
    """The masked-word head on some of the states."""
    if network.config.model_type == "modernbert":
        return network.decoder(network.head(states))
    return network.cls(states)


def _uniform(places: np.ndarray, seed: int, number: int) -> np.ndarray:
    """Float32[N] in [0, 1) as a function of place, seed and number: the mixer of SplitMix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = (places.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64((seed * 3 + number) * 0xD1B54A32D192ED03 % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float64) / 2**24).astype(np.float32)


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))  # what a float can hold


def _specials(tokenizer: Any) -> Tensor:
    for name in ("cls_token", "sep_token", "pad_token", "mask_token"):
        if getattr(tokenizer, name) is None:
            raise TextError(f"the tokenizer has no {name}; masked words need one: use a BERT or ModernBERT tokenizer")
    return torch.tensor(sorted(set(tokenizer.all_special_ids)))
