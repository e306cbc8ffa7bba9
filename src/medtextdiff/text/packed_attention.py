"""Attention over documents that lie end to end in one row, each looking at itself alone, without padding.

A batch is one stream of N tokens. Documents of like length are cut out and go through torch's attention together, so
the work grows with the sum of the squared lengths, not with N squared. In a local layer a document is further cut
into blocks of queries with the keys in their reach, so that its work grows with its length alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from medtextdiff.text.errors import TextError

NAME = "medtextdiff_packed"  # how transformers knows the attention of this file
_TOKENS = 16_384  # of a group, padding included
_FILL = 0.75  # the shortest of a group has at least this share of the longest's keys ...
_SHORT = 48  # ... unless the longest is as short as this
_PLAIN = 128  # keys up to which plain products are faster on a CPU than torch's own (bfloat16, 40 keys: 6 times)


@dataclass(frozen=True)
class Group:
    """Pieces that go through attention together: places in the stream, and which keys are real and in reach."""

    queries: Int[Tensor, "G Q"]
    keys: Int[Tensor, "G S"]
    mask: Bool[Tensor, "G 1 R S"] | None  # R is Q or 1; None: all


@dataclass(frozen=True)
class Plan:
    """Groups that cover a stream, and where each token's result lies in the groups' results laid end to end."""

    groups: list[Group]
    place: Int[Tensor, " N"]


@dataclass(frozen=True)
class Plans:
    """The plan of a model's global layers, and of its local ones."""

    whole: Plan
    local: Plan


def plan(lengths: np.ndarray, device: torch.device, reach: int | None = None) -> Plan:
    """How to attend inside documents of these lengths, which fill the stream in this order.

    `reach`: a token looks at most so many places to either side; None: as far as its document goes.
    """
    pieces = _pieces(lengths, reach)
    order = np.argsort(-pieces[:, 3], kind="stable")
    groups, places, done = [], [], 0
    for part in _chunks(pieces[order]):
        queries, is_query = _spread(part[:, 0], part[:, 1])
        keys, is_key = _spread(part[:, 2], part[:, 3])
        mask = _mask(queries, keys, is_key, reach)
        tensors = [None if array is None else torch.from_numpy(array).to(device) for array in (queries, keys, mask)]
        groups.append(Group(*tensors))  # type: ignore[arg-type]
        places.append((queries[is_query], done + np.flatnonzero(is_query)))
        done += queries.size
    place = np.empty(int(lengths.sum()), dtype=np.int64)
    for queries, where in places:
        place[queries] = where
    return Plan(groups, torch.from_numpy(place).to(device))


def attend(
    query: Float[Tensor, "N H D"],
    key: Float[Tensor, "N H D"],
    value: Float[Tensor, "N H D"],
    way: Plan,
    *,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Float[Tensor, "N H D"]:
    """Attention along a plan."""
    results = []
    for group in way.groups:
        q, k, v = _cut(query, group.queries), _cut(key, group.keys), _cut(value, group.keys)  # (G, H, ., D)
        attention = _plain if k.device.type == "cpu" and k.shape[2] <= _PLAIN else F.scaled_dot_product_attention
        found = attention(q, k, v, attn_mask=group.mask, dropout_p=dropout, scale=scale)
        results.append(found.transpose(1, 2).flatten(0, 1))  # (G*Q, H, D)
    return torch.cat(results).index_select(0, way.place)


def states(model: Any, ids: Int[Tensor, " N"], lengths: Int[Tensor, " M"]) -> Float[Tensor, "N D"]:
    """The last hidden states of a stream of documents by a BERT or ModernBERT of transformers (no task head).

    Each document is read as it would be alone, its positions from 0.

    Raises:
        TextError: a model of another kind.
    """
    settings = model.config
    if settings.model_type not in ("bert", "modernbert"):
        raise TextError(f"a '{settings.model_type}' cannot read packed documents; use a BERT or a ModernBERT")
    counts = lengths.cpu().numpy()
    whole = plan(counts, ids.device)
    is_modern = settings.model_type == "modernbert"
    local = plan(counts, ids.device, settings.sliding_window) if is_modern else whole
    begins = torch.repeat_interleave(torch.cumsum(lengths, 0) - lengths, lengths)
    positions = torch.arange(len(ids), device=ids.device) - begins  # (N,)
    nothing = {"full_attention": None, "sliding_attention": None} if is_modern else None
    with _used_by(model):
        found = model(
            input_ids=ids[None], position_ids=positions[None], attention_mask=nothing, packed=Plans(whole, local)
        )
    return found.last_hidden_state[0]


@contextmanager
def _used_by(model: nn.Module) -> Iterator[None]:
    """Inside the block the model's layers call the attention of this file."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attention)
    settings: Any = model.config
    before = settings._attn_implementation
    settings._attn_implementation = NAME
    try:
        yield
    finally:
        settings._attn_implementation = before


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed: Plans,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer: Float[1 H N D] each, to Float[1 N H D]."""
    way = packed.whole if sliding_window is None else packed.local
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))  # (N, H, D)
    return attend(q, k, v, way, dropout=dropout, scale=scaling)[None], None


def _plain(
    query: Float[Tensor, "G H Q D"],
    key: Float[Tensor, "G H S D"],
    value: Float[Tensor, "G H S D"],
    *,
    attn_mask: Tensor | None,
    dropout_p: float,
    scale: float | None,
) -> Float[Tensor, "G H Q D"]:
    """`F.scaled_dot_product_attention` for few keys, written out; in bfloat16 the scores are rounded to it."""
    scores = ((query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-1, -2)).float()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)  # each query sees itself: no row is empty
    return F.dropout(scores.softmax(-1).to(value.dtype), dropout_p, training=dropout_p > 0) @ value


def _cut(stream: Tensor, places: Tensor) -> Tensor:
    return stream.index_select(0, places.flatten()).unflatten(0, places.shape).transpose(1, 2)  # (G, H, L, D)


def _pieces(lengths: np.ndarray, reach: int | None) -> np.ndarray:
    """Int64 rows (first query, queries, first key, keys)."""
    begins = np.cumsum(lengths) - lengths
    if reach is None:
        return np.stack([begins, lengths, begins, lengths], axis=1).astype(np.int64)
    block = 2 * reach
    blocks = -(-lengths // block)
    document = np.repeat(np.arange(len(lengths)), blocks)
    number = np.arange(len(document)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    first = number * block
    last = np.minimum(first + block, lengths[document])
    low, high = np.maximum(first - reach, 0), np.minimum(last + reach, lengths[document])
    begin = begins[document]
    return np.stack([begin + first, last - first, begin + low, high - low], axis=1).astype(np.int64)


def _chunks(pieces: np.ndarray) -> Iterator[np.ndarray]:
    """Neighbours of like number of keys, given from most to least."""
    start = 0
    while start < len(pieces):
        longest = int(pieces[start, 3])
        shortest = 0 if longest <= _SHORT else _FILL * longest
        stop = start + int(np.searchsorted(-pieces[start:, 3], -shortest, side="right"))
        stop = min(stop, start + max(1, _TOKENS // longest))
        yield pieces[start:stop]
        start = stop


def _spread(begins: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places Int64[G, L] of runs of the stream, and which are real; beyond its end a run repeats its first place."""
    step = np.arange(int(counts.max()))
    real = step < counts[:, None]
    return begins[:, None] + np.where(real, step, 0), real


def _mask(queries: np.ndarray, keys: np.ndarray, is_key: np.ndarray, reach: int | None) -> np.ndarray | None:
    if reach is not None and keys.shape[1] > reach + 1:
        near = np.abs(queries[:, :, None] - keys[:, None, :]) <= reach
        return (near & is_key[:, None, :])[:, None]  # (G, 1, Q, S)
    return None if is_key.all() else is_key[:, None, None, :]
