"""What a run becomes when it is built: the model, its loss and its data, ready for the engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[nn.Module, Any, torch.Generator], dict[str, Tensor]]


@dataclass
class Job:
    """Everything `training.engine.fit` needs, and what the run folder records.

    `data` has `__len__()`, `sample(index, rng)` and `collate(samples)`. `validate(model)` gives named scores; `scores`
    names them where they are known beforehand. `data_hashes` says which files were trained on (id -> SHA-256 of the
    content), `also_read` what else a resumed run must find unchanged, and `frozen` the weights that do not train (a
    digest for each such component), which a finished run must find as well. `settle(run_dir)` is called before the
    training begins, for what a job keeps in the run folder; it makes nothing there yet. `prepare(run_dir, device)`
    follows, for a job that reads its model only then and must know where; it may add to `also_read`.
    `describe(run_dir)` is called once the folder is known to be this run's: it may write there what else is to be told
    of the data.
    `conclude(model, run_dir)` is called after the training, before the components are saved; it gives the names of
    files that it wrote into the run folder. `kept` names frozen components that are saved all the same, so that the
    run stands alone.
    """

    model: nn.Module
    loss: Loss
    data: Any
    validate: Callable[[nn.Module], dict[str, float]] | None = None
    after_step: Callable[[nn.Module, int], None] | None = None
    data_hashes: dict[str, str] = field(default_factory=dict)
    settle: Callable[[Path], None] | None = None
    describe: Callable[[Path], None] | None = None
    prepare: Callable[[Path, str], None] | None = None
    conclude: Callable[[nn.Module, Path], list[str]] | None = None
    kept: tuple[str, ...] = ()
    also_read: dict[str, str] = field(default_factory=dict)
    scores: tuple[str, ...] = ()
    frozen: dict[str, str] = field(default_factory=dict)


class Wrapped(nn.Module):
    """A model of named components, so that a run folder has one sub-folder for each."""

    def __init__(self, **components: nn.Module) -> None:
        super().__init__()
        for name, component in components.items():
            self.add_module(name, component)


def on_component(name: str, loss: Loss) -> Loss:
    """A loss of one component as a loss of the `Wrapped` whole."""

    def wrapped(model: nn.Module, batch: Any, rng: torch.Generator) -> dict[str, Tensor]:
        return loss(getattr(model, name), batch, rng)

    return wrapped
