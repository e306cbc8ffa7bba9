"""AdamW over what is trained, with a learning-rate factor per component."""

from collections.abc import Mapping

import torch
from torch import nn

from medtextdiff.config import ConfigError, nearest


def adamw(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    lr_scale: Mapping[str, float],
) -> torch.optim.AdamW:
    """AdamW with one group per factor; each group keeps its base rate as `base_lr`.

    `lr_scale` maps the beginning of a parameter's name ("denoiser", "denoiser.up_blocks") to a factor; the longest
    that fits counts.

    Raises:
        ConfigError: nothing is trainable, or a name in `lr_scale` fits no trainable parameter.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise ConfigError("the model has no parameter that requires a gradient; nothing to train")
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in named.items():
        groups.setdefault(_prefix(name, lr_scale), []).append(parameter)
    if unused := [prefix for prefix in lr_scale if not any(_fits(name, prefix) for name in named)]:
        known = {name.partition(".")[0] for name in named}
        raise ConfigError(f"lr_scale names '{unused[0]}', which is no trainable component; {nearest(unused[0], known)}")
    rates = {prefix: learning_rate * lr_scale.get(prefix, 1.0) for prefix in groups}
    return torch.optim.AdamW(
        [{"params": groups[prefix], "lr": rates[prefix], "base_lr": rates[prefix]} for prefix in groups],
        betas=betas,
        weight_decay=weight_decay,
        fused=True,
    )


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def _prefix(name: str, lr_scale: Mapping[str, float]) -> str:
    return max((prefix for prefix in lr_scale if _fits(name, prefix)), key=len, default="")


def _fits(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")
