"""Gradient checkpointing: a block's inner values are made again on the way back, not kept (arXiv 1604.06174)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

Through = Callable[..., Any]  # (block, *inputs) -> the block's outputs

# Blocks of the networks for which diffusers has no checkpointing of its own.
_BLOCKS = {
    "PriorTransformer": ("BasicTransformerBlock",),
    "Kandinsky3UNet": ("Kandinsky3DownSampleBlock", "Kandinsky3UpSampleBlock"),
}


def enable(network: nn.Module, through: Through | None = None) -> None:
    """Send a diffusers network's blocks through `through` wherever gradients are wanted; None: torch's checkpoint."""
    through = _again if through is None else through
    kinds = _BLOCKS.get(type(network).__name__)
    if kinds is None:
        network.enable_gradient_checkpointing(through)  # type: ignore[operator]
        return
    for module in network.modules():
        if type(module).__name__ in kinds:
            module.forward = partial(_forward, module.forward, through)


def _forward(real: Callable[..., Any], through: Through, *given: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return real(*given, **named)
    return through(partial(real, **named), *given)


def _again(block: Callable[..., Any], *given: Any) -> Any:
    return checkpoint(block, *given, use_reentrant=False)
