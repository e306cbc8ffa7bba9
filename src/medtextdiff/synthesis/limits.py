"""What a generator's settings of use may be: each system has its own samplers, and its own range of the numbers."""

from typing import Any

from medtextdiff.config import ConfigError, nearest


def check_use(system: Any, *, sampler: str, steps: int, guidance: float) -> None:
    """Refuse settings that the generator `system`, of whatever kind, cannot sample with.

    Raises:
        ConfigError: an unknown sampler (the nearest is offered), or steps or guidance beyond their range.
    """
    known, timesteps, (lowest, highest) = system.samplers, system.num_timesteps, system.guidances
    if sampler not in known:
        raise ConfigError(f"no sampler '{sampler}' for this model; {nearest(sampler, known)}")
    if not 1 <= steps <= timesteps:
        raise ConfigError(f"steps must be from 1 to {timesteps}, got {steps}; 25 is usual")
    if not lowest <= guidance <= highest:
        raise ConfigError(
            f"guidance must be from {lowest:g} to {highest:g}, got {guidance:g}; 1 leaves the prompt unguided"
        )
