"""The one loop: `fit(model, loss, data, config, run_dir)`, on accelerate."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from torch import nn

from medtextdiff.training import lock, randomness
from medtextdiff.training.checkpoint import State
from medtextdiff.training.device import accelerator_for, release
from medtextdiff.training.errors import Interrupted
from medtextdiff.training.interruption import Interruption
from medtextdiff.training.progress import Progress, say
from medtextdiff.training.run import Result, Run, Validate, finished
from medtextdiff.training.settings import Config
from medtextdiff.training.stream import Data
from medtextdiff.training.update import Loss

__all__ = ["AfterStep", "Config", "Data", "Interrupted", "Loss", "Result", "Validate", "fit"]

AfterStep = Callable[[nn.Module, int], None]


def fit(
    model: nn.Module,
    loss: Loss,
    data: Data,
    config: Config,
    run_dir: Path,
    *,
    validate: Validate | None = None,
    resume: bool = True,
    after_step: AfterStep | None = None,
    begin: Callable[[], None] | None = None,
    device: str = "auto",
) -> Result:
    """Train `model` in place, and leave it with its best, else averaged, else last weights, in eval mode.

    `loss(model, batch, rng) -> {"loss": mean, ...}` runs under autocast; `rng` is a CPU generator. `validate(model)`
    gets the averaged weights (if `ema_decay`), in eval mode, without autocast, on the first process only, and names
    the metric that `config.monitor` picks the best weights by. `after_step(model, step)` follows each update. `begin()`
    is called once, on the first process, when the run folder is locked and known to fit: write its files there.
    Modules without a trainable parameter stay in eval mode. Everything random depends on (seed, step) alone, so a run
    that was killed and is resumed ends with the same bits (on one kind of machine and number of threads).
    With `max_minutes` the run also ends by the clock, validated and saved as at its last step, and the rate falls with
    the share of the time (or of the steps, whichever is larger) that is gone; time counts over all sessions, validation
    included. Then the number of steps, and so the weights, depend on the machine.
    Under torchrun each process takes its slice of every batch; losses are averaged over slices, so a loss that is a
    mean over valid pixels is the mean of the slices' means. All processes must see `run_dir`.

    Raises:
        ConfigError: a config that cannot be run here.
        RunError: a run folder in use, damaged, or begun with another config; or begun, and `resume` is False.
        TrainingError: the loss is not a finite number; the last checkpoint is as it was.
        Interrupted: SIGTERM or Ctrl-C; the step was finished and a checkpoint written.
    """
    with ExitStack() as stack:
        accelerator = accelerator_for(config.precision, config.accumulation, run_dir, config.tensorboard, device)
        stack.callback(release, accelerator)
        stack.enter_context(randomness.untouched())
        run_dir.mkdir(parents=True, exist_ok=True)
        if accelerator.is_main_process:
            stack.enter_context(lock.held(run_dir, say))
        stop = stack.enter_context(Interruption())
        run = Run(model, loss, data, config, run_dir, validate, accelerator)
        state = run.start(resume)
        if begin is not None and accelerator.is_main_process:
            begin()
        batches = stack.enter_context(closing(run.batches(state.step)))
        left = None if config.max_minutes is None else 60 * config.max_minutes - state.seconds
        bar = stack.enter_context(Progress(state.step, config.max_steps, accelerator.is_main_process, left))
        return _loop(run, state, batches, bar, stop, after_step)


def _loop(
    run: Run, state: State, batches: Iterator[Any], bar: Progress, stop: Interruption, after_step: AfterStep | None
) -> Result:
    while True:
        state = run.examine(state)  # validate, checkpoint
        if finished(state, run.config):
            return run.finish(state)
        outcome = run.update(state, batches, stop=stop.wanted is not None)
        state = run.count(state, outcome)
        if after_step is not None:
            after_step(run.model, state.step)
        bar.show(state.step, outcome.losses["loss"])
        if outcome.stop and not finished(state, run.config):
            run.save(state)
            raise Interrupted(_farewell(state.step, stop.wanted), state.step)


def _farewell(step: int, name: str | None) -> str:
    return f"stopped by {name or 'a signal'} after step {step}, saved; run the same command again to go on"
