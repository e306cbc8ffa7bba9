"""The Accelerator of a run: which device, which precision."""

import os
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from medtextdiff.config import ConfigError
from medtextdiff.training.progress import say

# The other processes wait while the first validates or fills a cache: torch's own 10 or 30 minutes may be too few.
# Where one dies, torchrun ends them all.
_PATIENCE = timedelta(days=1)


def accelerator_for(precision: str, accumulation: int, run_dir: Path, tensorboard: bool, device: str) -> Any:
    """accelerate's Accelerator, alone or as one of torchrun's processes.

    `device` is auto (a GPU if there is one), cpu, cuda or cuda:N.

    Raises:
        ConfigError: the device is not there or cannot do the precision.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    cuda = _cuda(device)
    if tensorboard and find_spec("tensorboard") is None:
        say("tensorboard is not installed, metrics.jsonl alone is written (pip install 'medtextdiff[tensorboard]')")
        tensorboard = False
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision=mixed(precision, cuda),
        gradient_accumulation_steps=accumulation,
        log_with="tensorboard" if tensorboard else None,
        project_dir=run_dir,
        kwargs_handlers=[
            # A learned absent note, say, is not used in every batch.
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=_PATIENCE),
        ],
    )


def is_main_process() -> bool:
    """Whether this is the process that writes: the only one, or torchrun's first."""
    return int(os.environ.get("RANK", "0")) == 0


def release(accelerator: Any) -> None:
    """Close the trackers, and forget the precision, which accelerate otherwise holds for the whole process."""
    from accelerate.state import AcceleratorState

    for tracker in accelerator.trackers:
        tracker.finish()
    AcceleratorState._reset_state(reset_partial_state=accelerator.num_processes == 1)


def _cuda(device: str) -> bool:
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise ConfigError(f"there is no device '{device}'; use auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device '{device}' is not available here; use auto or cpu")
    if index:
        torch.cuda.set_device(int(index))
    return kind != "cpu" and torch.cuda.is_available()


def mixed(precision: str, cuda: bool) -> str:
    """What accelerate calls it: no, bf16 or fp16.

    Raises:
        ConfigError: fp16 without a GPU.
    """
    if precision == "auto":
        return "no" if not cuda else "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if precision == "fp16" and not cuda:
        raise ConfigError("precision fp16 needs a CUDA GPU; use bf16 or float32")
    return {"float32": "no"}.get(precision, precision)
