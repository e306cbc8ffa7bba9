"""Train a byte-level BPE tokenizer with ModernBERT's special tokens.

Bytes are its smallest words, so no text ever becomes [UNK]. Case is dropped by default: in notes it says little, and
a small vocabulary spends itself on words instead. Digits stand alone, so that no number is a word of its own.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medtextdiff.text.errors import TextError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SMALLEST = len(SPECIAL) + 256


def digest(tokenizer: Any) -> str:
    """A SHA-256 of a tokenizer's words and their numbers."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def save(tokenizer: Any, folder: str | Path) -> None:
    """Write a tokenizer as it was given: a fast one keeps the cut or padding of its last call, also in its files."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
        for name in ("max_length", "stride", "truncation_side", "truncation_strategy"):
            tokenizer.init_kwargs.pop(name, None)
    tokenizer.save_pretrained(folder)


def train(documents: Iterable[str], size: int = 8192, lowercase: bool = True, max_tokens: int = 8192) -> Any:
    """A `PreTrainedTokenizerFast` learned from `documents`, which are read once and not kept.

    Args:
        documents: any number of texts.
        size: words in the vocabulary, special tokens included; at least 261 (256 bytes and 5 special tokens).
            A small corpus gives fewer.
        lowercase: fold case.
        max_tokens: the length the tokenizer says that its model takes.

    Raises:
        TextError: `size` leaves no room for the bytes.
    """
    from tokenizers.trainers import BpeTrainer

    if size < _SMALLEST:
        raise TextError(f"a byte-level vocabulary needs at least {_SMALLEST} words, got size={size}; choose more")
    tokenizer = _untrained(lowercase)
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=_alphabet(),
        show_progress=False,
        min_frequency=2,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return _wrap(tokenizer, max_tokens)


def bytes_only(max_tokens: int = 8192) -> Any:
    """A tokenizer whose words are the 256 bytes: no training, no file, case kept. For tests."""
    from tokenizers.models import BPE

    tokenizer = _untrained(lowercase=False)
    words = {word: number for number, word in enumerate([*SPECIAL, *_alphabet()])}
    tokenizer.model = BPE(vocab=words, merges=[])
    tokenizer.add_special_tokens(list(SPECIAL))
    return _wrap(tokenizer, max_tokens)


def _alphabet() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _untrained(lowercase: bool) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    tokenizer = Tokenizer(BPE())
    # A leading space makes the first word the same word as elsewhere in a sentence; the decoder takes it off again.
    folds = [normalizers.Lowercase()] if lowercase else []
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *folds, normalizers.Prepend(" ")])
    digits = pre_tokenizers.Split(Regex(r" ?\p{N}"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(content=" ", left=1, right=0)])
    return tokenizer


def _wrap(tokenizer: Any, max_tokens: int) -> Any:
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    ids = {name: tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]")}
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=list(ids.items())
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_tokens,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
