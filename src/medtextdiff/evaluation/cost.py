"""What an image costs: seconds, arithmetic, memory. Also the account of memory that `bench` uses."""

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_CLEAR_PEAK = Path("/proc/self/clear_refs")  # writing 5 makes Linux forget the highest memory use so far


@dataclass(frozen=True)
class Cost:
    """Of one image, but for `parameters`, `peak_mb` and `training_hours`. None: the machine does not tell."""

    parameters: int | None
    gflop: float | None  # of matmuls, convolutions and attention
    seconds: float  # the median of the runs
    peak_mb: float | None  # above the memory used before
    batch: int
    training_hours: float | None = None


def measure(
    generate: Callable[[], Any],
    *,
    batch: int,
    device: torch.device,
    parameters: int | None = None,
    training_hours: float | None = None,
    runs: int = 3,
) -> Cost:
    """`generate` makes `batch` images; it runs once for memory and arithmetic, then `runs` times for the clock."""
    with counting_flops() as counter:
        peak = peak_mb(generate, device)
    flop = counter.get_total_flops()
    times = []
    for _ in range(runs):
        wait(device)
        start = time.perf_counter()
        generate()
        wait(device)
        times.append(time.perf_counter() - start)
    seconds = sorted(times)[len(times) // 2] / batch
    return Cost(parameters, flop / batch / 1e9 if flop else None, seconds, peak, batch, training_hours)


def counting_flops() -> Any:
    """torch's counter of multiplications and additions, which leaves out the attention that a CPU fuses, with it."""
    from torch.utils.flop_counter import FlopCounterMode

    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={fused: _attention_flops})


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Of (B, heads, tokens, width) shapes: each query by each key, and the weights by each value."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mb(run: Callable[[], Any], device: torch.device) -> float | None:
    """The highest memory use during `run` above that before, in MB; None where the system does not tell."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    _return_freed_memory()
    try:
        _CLEAR_PEAK.write_text("5")
    except OSError:
        run()
        return None
    before = _memory("VmRSS")
    run()
    return (_memory("VmHWM") - before) / 1e3


def _return_freed_memory() -> None:
    """What earlier work freed still counts as this process's; a run would take from it and seem to need nothing."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _memory(field: str) -> int:
    """A line of Linux's account of this process, in kB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")
