"""Time, peak memory and arithmetic of a few ways to compute one thing, run in turn in one process."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from medtextdiff.evaluation.cost import counting_flops, peak_mb, wait

_MATMUL_SIDE, _CONV_CHANNELS, _CONV_SIDE = 2048, 256, 64


@dataclass(frozen=True)
class Way:
    """One way to compute something. `run` does all of it and gives what it computed, or None."""

    name: str
    run: Callable[[], Any]
    precision: str = "float32"  # of the arithmetic that counts: the peak it is held against


@dataclass(frozen=True)
class Row:
    """What was measured of one way. Missing figures are None: memory where the system does not tell, arithmetic of 0.

    seconds: median of `runs` after one that does not count. peak_mb: the highest memory use above that before.
    gflop: multiplications and additions of matmuls, convolutions and attention. share: of the machine's peak.
    """

    name: str
    seconds: float
    runs: int
    peak_mb: float | None
    gflop: float | None
    share: float | None
    precision: str
    faster: float  # than the first way of its group

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def side_by_side(ways: Sequence[Way], runs: int, device: torch.device) -> list[Row]:
    """Measure each way `runs` times, in turn, so that what disturbs the machine disturbs all.

    A run before that tells memory and arithmetic, and warms up what wants warming.

    Args:
        ways: the first is what the others are compared with.
        runs: how often each counts; the median is told.
        device: where it computes.
    """
    if runs < 1 or not ways:
        raise ValueError(f"give at least one way and one run, got {len(ways)} and {runs}")
    first = {way.name: _first_run(way.run, device) for way in ways}
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(runs):
        for way in ways:
            times[way.name].append(_seconds(way.run, device))
    base = statistics.median(times[ways[0].name])
    rows = []
    for way in ways:
        seconds, (memory, flop) = statistics.median(times[way.name]), first[way.name]
        share = flop / seconds / peak_flops(device, way.precision) if flop else None
        gflop = flop / 1e9 if flop else None
        rows.append(Row(way.name, seconds, runs, memory, gflop, share, way.precision, base / seconds))
    return rows


def once(ways: Sequence[Way], device: torch.device) -> list[Row]:
    """Time and memory of long work that each way does a single time, one after the other; arithmetic is not counted."""
    rows: list[Row] = []
    for way in ways:
        start = time.perf_counter()
        memory = peak_mb(way.run, device)
        wait(device)
        seconds = time.perf_counter() - start
        faster = (rows[0].seconds if rows else seconds) / seconds
        rows.append(Row(way.name, seconds, 1, memory, None, None, way.precision, faster))
    return rows


def relative_error(found: Any, expected: Any) -> float:
    """The largest difference over the largest expected value; lists of tensors: the worst of them."""
    pairs = zip(found, expected, strict=True) if isinstance(expected, list | tuple) else [(found, expected)]
    return max(float((a.float() - b.float()).abs().max() / b.float().abs().max()) for a, b in pairs)


@cache
def peak_flops(device: torch.device, precision: str) -> float:
    """The most operations a second that a large matmul or convolution reaches here in this precision."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(_MATMUL_SIDE, _MATMUL_SIDE, device=device, dtype=dtype)
    x = torch.randn(4, _CONV_CHANNELS, _CONV_SIDE, _CONV_SIDE, device=device, dtype=dtype)
    x = x.to(memory_format=torch.channels_last)
    weight = torch.randn(_CONV_CHANNELS, _CONV_CHANNELS, 3, 3, device=device, dtype=dtype)
    weight = weight.to(memory_format=torch.channels_last)
    matmul = 2 * _MATMUL_SIDE**3
    conv = 2 * x.numel() * _CONV_CHANNELS * 9
    with torch.no_grad():
        return max(
            matmul / min(_seconds(lambda: a @ a, device) for _ in range(6)),
            conv / min(_seconds(lambda: torch.conv2d(x, weight, padding=1), device) for _ in range(6)),
        )


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures hold for: processor, threads, instructions, versions, and the measured peaks."""
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None  # before ours
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "instructions": _instructions() if device.type == "cpu" else "",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "peak_gflops_float32": round(peak_flops(device, "float32") / 1e9),
        "peak_gflops_bf16": round(peak_flops(device, "bf16") / 1e9),
        "load_before": load,
    }


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - start


def _first_run(run: Callable[[], Any], device: torch.device) -> tuple[float | None, int]:
    with counting_flops() as counter:
        peak = peak_mb(run, device)
    return peak, int(counter.get_total_flops())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _instructions() -> str:
    found = torch.backends.cpu.get_cpu_capability()
    extra = [("AMX", torch.cpu._is_amx_tile_supported), ("AVX512-BF16", torch.cpu._is_avx512_bf16_supported)]
    return ", ".join([found, *(name for name, has in extra if has())])
