"""The exponential moving average of what is trained."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

POWER = 2 / 3  # of the warm-up; Crowson's value, as in diffusers' EMAModel(use_ema_warmup=True)


def decay_at(updates: int, limit: float) -> float:
    """The decay of update `updates` (from 1): 1 - updates^(-2/3), at most `limit`; the first update copies."""
    return min(limit, 1 - max(1, updates) ** -POWER)


class Ema:
    """A running average of a model's trainable parameters; buffers stay the model's own."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take in the parameters after update number `updates` (from 1)."""
        weight = 1 - decay_at(updates, self.decay)
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self._live.values()], weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the model has the averaged parameters."""
        kept = {name: p.detach().clone() for name, p in self._live.items()}
        self.copy_to_model(self.average)
        try:
            yield
        finally:
            self.copy_to_model(kept)

    @torch.no_grad()
    def copy_to_model(self, values: Mapping[str, Tensor] | None = None) -> None:
        """Write `values` (default: the average) into the model's parameters."""
        for name, value in (values or self.average).items():
            self._live[name].copy_(value)
