"""What training an adapter will need in memory, told before anything large is read, and whether it is there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from medtextdiff.config import ConfigError
from medtextdiff.synthesis import checkpointing

_SPARE = 1.1  # what allocators and libraries take beside
_TRAINED = 16  # bytes of a trained value: itself, its gradient, and AdamW's two averages
_GB = 1e9
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_USED = (Path("/sys/fs/cgroup/memory.current"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"))


@dataclass(frozen=True)
class Need:
    """Bytes: of the frozen weights, of what is trained with its gradients and averages, of what a step keeps for going
    backwards, and of the encoders, which are there before the network and never beside it."""

    weights: int
    trained: int
    activations: int
    encoders: int

    @property
    def total(self) -> int:
        """The most that is needed at one time."""
        return int(_SPARE * max(self.weights + self.trained + self.activations, self.encoders))


def estimate(network: nn.Module, example: Mapping[str, Any], *, keep_less: bool, ema: bool, encoders: int) -> Need:
    """What a step of a network needs that lies on the device "meta" with its adapter, for inputs that lie there too.

    The activations are counted in a forward pass without numbers: exactly what torch would keep.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    frozen = [p for p in network.parameters() if not p.requires_grad]
    return Need(
        weights=sum(p.numel() * p.element_size() for p in frozen),
        trained=sum(p.numel() for p in trained) * (_TRAINED + 4 * ema),
        activations=_activations(network, example, keep_less),
        encoders=encoders,
    )


def check(need: Need, device: str, free: int | None = None) -> None:
    """Refuse a training that cannot fit, and say what would help.

    Raises:
        ConfigError: more is needed than is free on `device`.
    """
    there = available(device) if free is None else free
    if need.total <= there:
        return
    if _SPARE * (need.weights + need.trained) > there:
        advice = "no smaller batch helps: set model.dtype to bf16 if it is float32, or use a device with more memory"
    elif _SPARE * need.encoders > there:
        advice = (
            "its encoders do not fit: set model.dtype to bf16 if it is float32, or fill the cache on another machine"
        )
    else:
        advice = (
            "raise training.accumulation (smaller parts of the same batch), lower data.size, or leave "
            "model.gradient_checkpointing on"
        )
    raise ConfigError(
        f"training needs about {need.total / _GB:.3g} GB on {device} (weights {need.weights / _GB:.3g}, adapter "
        f"{need.trained / _GB:.3g}, activations {need.activations / _GB:.3g}; encoders before {need.encoders / _GB:.3g}"
        f"), and {there / _GB:.3g} GB are free; {advice}"
    )


def available(device: str) -> int:
    """Bytes that are free on a device; on a CPU no more than the container's limit leaves."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    import psutil  # accelerate's

    free = int(psutil.virtual_memory().available)
    for limit, used in zip(_LIMITS, _USED, strict=True):
        if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
            free = min(free, max(0, int(limit.read_text()) - int(used.read_text())))
    return free


class _Counter:
    """Bytes of what autograd keeps, each storage once, parameters not at all."""

    def __init__(self, network: nn.Module) -> None:
        self._parameters = {p.untyped_storage()._cdata for p in network.parameters()}
        self._seen: set[int] = set()
        self._alive: list[Any] = []  # so that no address is used twice
        self.bytes = 0

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen and storage._cdata not in self._parameters:
            self._seen.add(storage._cdata)
            self._alive.append(tensor)
            self.bytes += storage.nbytes()
        return tensor


class _Fused(torch.autograd.Function):
    """Attention that keeps what a fused kernel keeps: its inputs and its output, never the weights of all pairs."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out)
        return out


class _FusedAttention(TorchFunctionMode):
    """On the device "meta" torch takes attention apart; where one trains it does not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **given)
        inputs = [*args, *(given[name] for name in ("query", "key", "value") if name in given)]
        return _Fused.apply(*inputs[:3])


def _activations(network: Any, example: Mapping[str, Any], keep_less: bool) -> int:
    outside = _Counter(network)
    largest = 0

    def counted(block: Callable[..., Any], *given: Any) -> Any:
        """A checkpointed block: its inputs stay, what is within is there only while it is gone through backwards."""
        nonlocal largest
        for value in given:
            if isinstance(value, Tensor):
                outside.add(value)
        within = _Counter(network)
        with saved_tensors_hooks(within.add, lambda tensor: tensor):
            found = block(*given)
        largest = max(largest, within.bytes)
        return found

    if keep_less:
        checkpointing.enable(network, counted)
    with torch.enable_grad(), _FusedAttention(), saved_tensors_hooks(outside.add, lambda tensor: tensor):
        network(**example)
    return outside.bytes + largest
