"""Means over the steps since the last log line, kept as plain sums so that a checkpoint can hold them."""

import math
from collections.abc import Mapping

Window = dict[str, float]


def empty(seconds: float) -> Window:
    """A window that begins when a run has lasted `seconds`."""
    return {"since": seconds}


def add(window: Window, losses: Mapping[str, float], norm: float) -> Window:
    """The window with one more step. A norm that is not finite (a step that fp16 skipped) is left out."""
    news = {f"sum.{name}": value for name, value in losses.items()} | {"steps": 1.0}
    if math.isfinite(norm):
        news |= {"norm": norm, "norms": 1.0}
    return window | {name: window.get(name, 0.0) + value for name, value in news.items()}


def summary(window: Window, seconds: float, batch_size: int, parts: int = 1) -> dict[str, float]:
    """The losses' means, the gradient norm's mean, the run's seconds so far, samples per second.

    What a loss calls `num_X` it counted in its part of the batch, of which there are `parts`: gives `X_per_second` too.
    """
    steps, passed = window["steps"], seconds - window.get("since", 0.0)
    losses = {name.removeprefix("sum."): value / steps for name, value in window.items() if name.startswith("sum.")}
    counts = {name.removeprefix("num_"): value for name, value in losses.items() if name.startswith("num_")}
    speeds = {f"{name}_per_second": value * parts * steps / max(passed, 1e-9) for name, value in counts.items()}
    return (
        losses
        | speeds
        | {
            "grad_norm": window["norm"] / window["norms"] if "norms" in window else math.nan,
            "seconds": seconds,
            "samples_per_second": steps * batch_size / max(passed, 1e-9),
        }
    )
