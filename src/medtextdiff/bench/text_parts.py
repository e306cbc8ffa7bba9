"""The tables on notes: many of them with the encoder that ships, and the two common shapes of encoder side by side."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medtextdiff.bench.measure import Row, Way, side_by_side
from medtextdiff.bench.models import Bed
from medtextdiff.text.attention import attention_masks
from medtextdiff.text.encoders import huggingface

_SHORTEST, _LONGEST = 5, 2000  # tokens of the notes that are encoded
_PADDED_BATCH = 32
_BERT_LIMIT = 512  # positions that BERT has learned; longer rows measure the arithmetic of its shape, nothing more
_GRID = ((1, 16), (1, 128), (1, 512), (1, 2048), (1, 8192), (8, 16), (8, 128), (8, 512), (8, 2048), (64, 16), (64, 128))
_MIXED = (16, 10, 500)  # notes, shortest, longest


def notes(bed: Bed, runs: int, num: int = 1000) -> tuple[list[Row], dict[str, float]]:
    """Encoding notes of 5 to 2,000 tokens with the encoder that ships: padded batches in their order, against ours."""
    words = ["nuclei", "lung", "left", "density", "upper", "infected", "areas", "polyp", "the", "is", "of", "right"]
    rng = np.random.default_rng(1)
    told = [" ".join(rng.choice(words, size=max(1, length - 2))) for length in _lengths(num, _SHORTEST, _LONGEST)]
    encoder = huggingface.Config(exact=False, cache_size=0).build().to(bed.device)

    def padded() -> None:
        with torch.no_grad():
            for start in range(0, num, _PADDED_BATCH):
                batch = encoder.tokenizer(told[start : start + _PADDED_BATCH], padding=True, return_tensors="pt")
                encoder.model(
                    input_ids=batch["input_ids"].to(bed.device), attention_mask=batch["attention_mask"].to(bed.device)
                )

    def by_length() -> None:
        for start in range(0, num, 256):  # what a run holds is not all of them at once
            with torch.no_grad():
                encoder(told[start : start + 256])

    def once() -> None:
        with torch.no_grad():
            encoder(list(dict.fromkeys(told)))

    ways = [Way("padded batches", padded), Way("ours, 256 notes a call", by_length), Way("ours, one call", once)]
    return side_by_side(ways, runs, bed.device), {}


def encoders(bed: Bed, runs: int) -> tuple[list[Row], dict[str, float]]:
    """The shapes of BERT-base and ModernBERT-base with random weights: notes x tokens, and notes of mixed lengths.

    Each group of rows is compared with BERT in float32. BERT takes 512 tokens; longer rows give it more positions.
    """
    models = {"BERT-base": _bert(bed), "ModernBERT-base": _modernbert(bed)}
    rows = []
    for num, length in _GRID:
        ids = torch.randint(1000, 2000, (num, length), generator=torch.Generator().manual_seed(0)).to(bed.device)
        rows += _shapes(bed, models, runs, f"{num} x {length}", [(ids, None)])
    count, shortest, longest = _MIXED
    lengths = _lengths(count, shortest, longest)
    rows += _shapes(bed, models, runs, f"{count} notes of {shortest} to {longest}, padded", _padded(bed, lengths))
    rows += _shapes(bed, models, runs, f"{count} notes of {shortest} to {longest}, one by one", _alone(bed, lengths))
    return rows, {}


def _shapes(
    bed: Bed, models: dict[str, nn.Module], runs: int, what: str, batches: list[tuple[Tensor, Tensor | None]]
) -> list[Row]:
    ways = []
    for precision in ("float32", "bf16") if bed.bf16 else ("float32",):
        for name, model in models.items():
            beyond = name == "BERT-base" and max(ids.shape[1] for ids, _ in batches) > _BERT_LIMIT
            label = f"{what}: {name}{' (more positions than it has)' if beyond else ''}, {precision}"
            ways.append(Way(label, _encode(bed, model, batches, precision), precision))
    return side_by_side(ways, runs, bed.device)


def _encode(
    bed: Bed, model: Any, batches: list[tuple[Tensor, Tensor | None]], precision: str
) -> Callable[[], list[Tensor]]:
    def run() -> list[Tensor]:
        low = torch.autocast(bed.device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
        with torch.no_grad(), low:
            return [
                model(
                    input_ids=ids,
                    attention_mask=attention_masks(model.config, torch.ones_like(ids) if real is None else real),
                ).last_hidden_state
                for ids, real in batches
            ]

    return run


def _padded(bed: Bed, lengths: np.ndarray) -> list[tuple[Tensor, Tensor | None]]:
    real = torch.arange(int(lengths.max()))[None, :] < torch.from_numpy(lengths)[:, None]
    ids = torch.randint(1000, 2000, real.shape, generator=torch.Generator().manual_seed(0))
    return [(ids.to(bed.device), real.long().to(bed.device))]


def _alone(bed: Bed, lengths: np.ndarray) -> list[tuple[Tensor, Tensor | None]]:
    rng = torch.Generator().manual_seed(0)
    return [(torch.randint(1000, 2000, (1, int(num)), generator=rng).to(bed.device), None) for num in lengths]


def _lengths(num: int, shortest: int, longest: int) -> np.ndarray:
    """Spread evenly over the logarithm: most notes are short."""
    draws = np.random.default_rng(0).uniform(math.log(shortest), math.log(longest), size=num)
    return np.exp(draws).astype(int)


def _bert(bed: Bed) -> nn.Module:
    from transformers import BertConfig, BertModel

    positions = max(length for _, length in _GRID)
    sizes: dict[str, int] = {} if bed.full else {"hidden_size": 96, "intermediate_size": 384}
    settings = BertConfig(max_position_embeddings=positions, attn_implementation="sdpa", **sizes)
    return _fresh(bed, lambda: BertModel(settings, add_pooling_layer=False))


def _modernbert(bed: Bed) -> nn.Module:
    from transformers import ModernBertConfig, ModernBertModel

    sizes: dict[str, int] = {} if bed.full else {"hidden_size": 96, "intermediate_size": 144}
    settings = ModernBertConfig(attn_implementation="sdpa", **sizes)
    return _fresh(bed, lambda: ModernBertModel(settings))


def _fresh(bed: Bed, make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval().requires_grad_(False).to(bed.device)
