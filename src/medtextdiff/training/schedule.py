"""The learning rate as a function of the step, or of the time where a run ends by the clock."""

import math
from typing import Literal

Shape = Literal["cosine", "constant", "linear"]


def factor(
    step: int, *, max_steps: int, warmup_steps: int, shape: Shape, min_ratio: float, elapsed: float = 0.0
) -> float:
    """What the base rate is multiplied with at update `step` (from 0).

    Rises linearly to 1 over `warmup_steps` updates, then stays (constant), or falls to `min_ratio` at `max_steps`
    along half a cosine or a line. `elapsed` is the share of a run's time budget that is gone: the rate has fallen to
    `min_ratio` when either the steps or the time are used up.
    """
    rising = (step + 1) / warmup_steps if step < warmup_steps else 1.0
    if shape == "constant":
        return rising
    steps_gone = max(0, step - warmup_steps) / max(1, max_steps - warmup_steps)
    done = min(1.0, max(steps_gone, elapsed))
    falling = 0.5 * (1 + math.cos(math.pi * done)) if shape == "cosine" else 1 - done
    return min(rising, min_ratio + (1 - min_ratio) * falling)
