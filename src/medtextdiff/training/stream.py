"""The endless stream of training samples: position -> epoch, index, random numbers; and positions -> batches.

Update `step` of a run with global batch size N takes positions step*N ... step*N + N-1. Position p lies in epoch p // n
(n samples) and is sample `permutation(seed, epoch)[p % n]`. Ranks and micro-batches cut a global batch into
consecutive slices. So the data of any step can be had without having run the steps before it.
"""

import signal
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medtextdiff.training import randomness


@runtime_checkable
class Data(Protocol):
    """What can be trained on. `sample` must draw from `rng` alone."""

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: torch.Generator) -> Any:
        """Sample `index` of 0 ... len-1, its augmentation drawn from `rng`."""
        ...

    def collate(self, samples: list[Any]) -> Any:
        """Samples as one batch: a tensor, or a dataclass, mapping, list or tuple that holds tensors."""
        ...


def place(position: int, n: int, seed: int) -> tuple[int, int]:
    """(epoch, index) of a position in the stream over `n` samples."""
    epoch = position // n
    return epoch, int(_permutation(seed, epoch, n)[position % n])


def positions(step: int, micro: int, rank: int, *, batch_size: int, accumulation: int, world: int) -> range:
    """The positions of one micro-batch of one rank. `batch_size` is global and a multiple of accumulation * world."""
    size = batch_size // (world * accumulation)
    first = step * batch_size + rank * (batch_size // world) + micro * size
    return range(first, first + size)


def batches(data: Data, slices: Iterable[Sequence[int]], seed: int, workers: int = 0) -> Generator[Any]:
    """One collated batch for each slice of positions, in order, the same whatever the number of workers."""
    loader = DataLoader(
        _Stream(data, seed),
        batch_sampler=(list(places) for places in slices),
        collate_fn=data.collate,
        num_workers=workers,
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # so that the loader does not draw from the global one
    )
    yield from loader


def to_device(value: Any, device: torch.device, channels_last: bool = False) -> Any:
    """A batch with all its tensors on `device`; float tensors with four axes in channels-last order if asked."""
    if isinstance(value, Tensor):
        if channels_last and value.ndim == 4 and value.is_floating_point():
            return value.to(device, non_blocking=True, memory_format=torch.channels_last)
        return value.to(device, non_blocking=True)
    if is_dataclass(value) and not isinstance(value, type):
        moved = {field.name: to_device(getattr(value, field.name), device, channels_last) for field in fields(value)}
        return replace(value, **moved)
    if isinstance(value, Mapping):
        return {key: to_device(item, device, channels_last) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [to_device(item, device, channels_last) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


class _Stream(Dataset):
    def __init__(self, data: Data, seed: int) -> None:
        self.data, self.seed = data, seed

    def __getitem__(self, position: int) -> Any:
        epoch, index = place(position, len(self.data), self.seed)
        return self.data.sample(index, randomness.generator(self.seed, "sample", epoch, index, position))


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, n: int) -> Tensor:
    return torch.randperm(n, generator=randomness.generator(seed, "epoch", epoch))


def _ignore_signals(worker: int) -> None:
    # Ctrl-C and many schedulers signal the whole group; the engine decides when to stop, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
