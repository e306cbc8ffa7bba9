"""Every random number of a run as a function of (seed, place in the run), so that resuming needs no stored state."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(*parts: int | str) -> int:
    """A 63-bit seed from what names a place in the run, e.g. `derive(seed, "loss", step, rank)`."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded with `derive(*parts)`: the numbers are the same on every device."""
    return torch.Generator().manual_seed(derive(*parts))


def seed_everything(*parts: int | str) -> None:
    """Seed torch's (all devices), numpy's and Python's global generators, which e.g. dropout draws from."""
    seed = derive(*parts)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def untouched() -> Iterator[None]:
    """Give the caller back its global random state at the end of the block."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
