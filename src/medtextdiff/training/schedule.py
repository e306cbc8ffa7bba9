"""The learning rate as a function of the step."""

import math
from typing import Literal

Shape = Literal["cosine", "constant", "linear"]


def factor(step: int, *, max_steps: int, warmup_steps: int, shape: Shape, min_ratio: float) -> float:
    """What the base rate is multiplied with at update `step` (from 0).

    Rises linearly to 1 over `warmup_steps` updates, then stays (constant), or falls to `min_ratio` at `max_steps`
    along half a cosine or a line.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if shape == "constant":
        return 1.0
    done = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    falling = 0.5 * (1 + math.cos(math.pi * done)) if shape == "cosine" else 1 - done
    return min_ratio + (1 - min_ratio) * falling
