"""Masked-language-model pre-training: mask, pack, loss.

Documents are packed end to end into rows of equal length, without padding; attention stays inside each document, so
a short note is learned as it is met later: alone. Masking: 30 % of the words (arXiv 2202.08005), of which 80 % become
[MASK], 10 % another word and 10 % stay (arXiv 1810.04805).
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.text.attention import attention_masks
from medtextdiff.text.errors import TextError
from medtextdiff.text.loading import quiet

IGNORED = -100  # label of a word that is not asked for
PADDING = -1  # document number of padding


class Config(config.Config):
    """A ModernBERT's size. The defaults are the small one that ships with the package (3.8 M parameters)."""

    width: int = 192
    layers: int = 6
    heads: int = 3
    mlp_width: int = 384
    local_attention: int = 128  # window of the local layers, both sides together
    global_every: int = 3
    max_tokens: int = 8192

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
        """Write model and tokenizer; `encoders.huggingface` reads the folder."""
        with quiet():
            self.model.save_pretrained(folder)  # type: ignore[operator]
            self.tokenizer.save_pretrained(folder)


class Masking(config.Config):
    """How many words are masked, and how; what is left of `mask` and `random` stays as it is."""

    rate: float = Field(default=0.3, gt=0, lt=1)
    mask: float = Field(default=0.8, ge=0, le=1)
    random: float = Field(default=0.1, ge=0, le=1)


class MaskedWords:
    """Rows of packed documents with words masked afresh at every draw; what the training loop calls `data`."""

    def __init__(
        self, documents: Iterable[str], tokenizer: Any, length: int = 128, masking: Masking | None = None, seed: int = 0
    ) -> None:
        """Read, tokenize and pack.

        Args:
            documents: texts; kept as token numbers only (8 bytes a token).
            tokenizer: a fast tokenizer with [CLS], [SEP], [PAD] and [MASK].
            length: N, tokens in a row.
            masking: rates.
            seed: of the order in which documents are packed.

        Raises:
            TextError: no document, or a tokenizer without one of the special tokens.
        """
        self.masking = masking or Masking()
        self._specials = _specials(tokenizer)
        self._mask_id = tokenizer.mask_token_id
        special_ids = set(tokenizer.all_special_ids)
        self._words = torch.tensor([word for word in range(len(tokenizer)) if word not in special_ids])
        texts = _tokenize(documents, tokenizer)
        if not texts:
            raise TextError("the corpus holds no document; check its paths and split")
        order = np.random.default_rng(seed).permutation(len(texts))
        ends = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
        self._ids, self._documents = _pack([texts[number] for number in order], length, ends)

    def __len__(self) -> int:
        """Rows."""
        return len(self._ids)

    def sample(self, index: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Row `index`, masked by draws from `rng`: `ids`, `labels` and `documents`, each Int[N]."""
        ids = torch.from_numpy(self._ids[index]).long()
        asked = self._choose(ids, rng)
        labels = torch.where(asked, ids, IGNORED)
        fate = torch.rand(ids.shape, generator=rng)
        others = self._words[torch.randint(len(self._words), ids.shape, generator=rng)]
        ids = torch.where(asked & (fate < self.masking.mask), self._mask_id, ids)
        swapped = asked & (fate >= self.masking.mask) & (fate < self.masking.mask + self.masking.random)
        ids = torch.where(swapped, others, ids)
        return {"ids": ids, "labels": labels, "documents": torch.from_numpy(self._documents[index]).long()}

    @staticmethod
    def collate(samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Rows to a batch: each entry Int[B, N]."""
        return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}

    def _choose(self, ids: Int[Tensor, " N"], rng: torch.Generator) -> Bool[Tensor, " N"]:
        draw = torch.rand(ids.shape, generator=rng)
        draw[torch.isin(ids, self._specials)] = 2.0  # never asked for
        asked = draw < self.masking.rate
        if not asked.any() and (draw < 1).any():
            asked[draw.argmin()] = True  # a row without a question has no loss
        return asked


def loss(model: nn.Module, batch: Mapping[str, Tensor], rng: torch.Generator | None = None) -> dict[str, Tensor]:
    """Mean cross-entropy over the masked words (nats), and the share of them that the model names first.

    `rng` is unused: the masks are drawn with the samples. Any ModernBERT or BERT with a masked-word head.
    """
    labels = batch["labels"]
    masks = attention_masks(getattr(model, "module", model).config, batch["documents"])
    output = model(input_ids=batch["ids"], attention_mask=masks, labels=labels)
    asked = labels != IGNORED
    logits = output.logits if output.logits.dim() == 2 else output.logits[asked]
    right = (logits.argmax(-1) == labels[asked]).float().mean()
    return {"loss": output.loss, "masked_accuracy": right.detach()}


@torch.no_grad()
def evaluate(model: nn.Module, data: MaskedWords, seed: int = 0, batch_size: int = 32) -> dict[str, float]:
    """Loss (nats) and accuracy over every masked word of `data`, each word counting once; the same masks each time."""
    rng = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    sums, num = {"loss": 0.0, "masked_accuracy": 0.0}, 0
    for start in range(0, len(data), batch_size):
        rows = range(start, min(start + batch_size, len(data)))
        batch = {
            name: value.to(device) for name, value in data.collate([data.sample(row, rng) for row in rows]).items()
        }
        found, words = loss(model, batch, rng), int((batch["labels"] != IGNORED).sum())
        sums = {name: total + words * float(found[name]) for name, total in sums.items()}
        num += words
    return {name: total / max(1, num) for name, total in sums.items()}


def _specials(tokenizer: Any) -> Tensor:
    for name in ("cls_token", "sep_token", "pad_token", "mask_token"):
        if getattr(tokenizer, name) is None:
            raise TextError(f"the tokenizer has no {name}; masked words need one: use a BERT or ModernBERT tokenizer")
    return torch.tensor(sorted(set(tokenizer.all_special_ids)))


def _tokenize(documents: Iterable[str], tokenizer: Any) -> list[np.ndarray]:
    texts: list[np.ndarray] = []
    stream = iter(documents)
    while chunk := list(islice(stream, 1000)):
        encoded = tokenizer(chunk, add_special_tokens=False, return_attention_mask=False, verbose=False)
        texts.extend(np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"] if ids)
    return texts


def _pack(texts: Sequence[np.ndarray], length: int, ends: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Token and document numbers, each int32 [rows, N]; only the end of the last row is padded."""
    start, stop, padding = (np.array([number], dtype=np.int32) for number in ends)
    ids = np.concatenate(list(chain.from_iterable((start, text, stop) for text in texts)))
    documents = np.repeat(np.arange(len(texts), dtype=np.int32), [len(text) + 2 for text in texts])
    missing = -len(ids) % length
    ids = np.concatenate([ids, np.repeat(padding, missing)])
    documents = np.concatenate([documents, np.full(missing, PADDING, dtype=np.int32)])
    return ids.reshape(-1, length), documents.reshape(-1, length)
