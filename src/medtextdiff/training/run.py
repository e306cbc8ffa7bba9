"""A run under way: its parts, and what happens at, between and after its steps. `engine.fit` tells the story."""

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from medtextdiff import config as configs
from medtextdiff.config import ConfigError
from medtextdiff.training import checkpoint, means, optimizer, randomness, schedule, stream, weights
from medtextdiff.training.checkpoint import Checkpoint, State
from medtextdiff.training.ema import Ema
from medtextdiff.training.errors import RunError, TrainingError
from medtextdiff.training.log import Log
from medtextdiff.training.progress import say
from medtextdiff.training.settings import FREE, Config
from medtextdiff.training.stream import Data
from medtextdiff.training.update import Loss, Outcome, Updater

Validate = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class Result:
    """What came out of `fit`. `weights` says which ones the model now holds."""

    run_dir: Path
    last_step: int
    best_step: int | None
    best_metric: float | None
    stopped_early: bool
    weights: Literal["best", "ema", "last"]
    seconds: float


class Run:
    """A run under way: what belongs together over its steps. Where it stands is a `State`, handed in and out."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        data: Data,
        config: Config,
        run_dir: Path,
        validate: Validate | None,
        accelerator: Any,
    ) -> None:
        _check(config, data, accelerator.num_processes)
        self.model, self.data, self.config, self.run_dir, self.validate = model, data, config, run_dir, validate
        self.accelerator, self.folder = accelerator, run_dir / "checkpoints"
        adamw = optimizer.adamw(
            model,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=config.betas,
            lr_scale=config.lr_scale,
        )
        self.updater = Updater(
            model,
            loss,
            adamw,
            accelerator,
            seed=config.seed,
            clip_norm=config.clip_norm,
            channels_last=config.channels_last,
        )
        self.ema = Ema(model, config.ema_decay) if config.ema_decay is not None else None
        self.saved: State | None = None

    def start(self, resume: bool) -> State:
        """The state to begin with: that of the last checkpoint if there is one."""
        self.accelerator.wait_for_everyone()  # until the first process has the lock
        state = State(config=configs.to_json(self.config), samples=len(self.data))
        path = checkpoint.latest(self.folder)
        if path is not None:
            if not resume:
                raise RunError(f"{self.run_dir} holds a run already; resume it, delete it, or choose another folder")
            state = self._load(path, state)
            self.saved = state
        if self.config.tensorboard and self.accelerator.log_with:
            arguments = {"tensorboard": {"purge_step": state.step + 1}}
            self.accelerator.init_trackers("tensorboard", init_kwargs=arguments)
        self.clock = time.monotonic() - state.seconds
        if self.accelerator.is_main_process:
            self.log = Log(self.run_dir, state.step, self.accelerator)
        if self.config.compile:
            self.model.compile()
        _train_mode(self.model)
        return state

    def batches(self, first: int) -> Generator[Any]:
        """This process's micro-batches from step `first` on."""
        c, world, rank = self.config, self.accelerator.num_processes, self.accelerator.process_index
        sizes = {"batch_size": c.batch_size, "accumulation": c.accumulation, "world": world}
        places = ((step, micro) for step in range(first, c.max_steps) for micro in range(c.accumulation))
        slices = (stream.positions(step, micro, rank, **sizes) for step, micro in places)
        return stream.batches(self.data, slices, c.seed, c.workers)

    def update(self, state: State, batches: Iterator[Any], *, stop: bool) -> Outcome:
        """One optimizer step, and the average after it."""
        step = state.step
        outcome = self.updater(step, batches, rate=self._rate(state), stop=stop, clock=self._now)
        if self.ema is not None:
            self.ema.update(step + 1)
        return outcome

    def count(self, state: State, outcome: Outcome) -> State:
        """Take an update into the state and, every `log_every` steps, into the log."""
        c, step, rate = self.config, state.step + 1, self._rate(state)
        window = means.add(state.window, outcome.losses, outcome.norm)
        state = state.after(step=step, seconds=outcome.seconds, window=window)
        if not due(step, c.log_every, c.max_steps) and not finished(state, c):
            return state
        if self.accelerator.is_main_process:
            seen = {"epoch": step * c.batch_size / len(self.data), "lr": c.learning_rate * rate}
            parts = c.accumulation * self.accelerator.num_processes
            self.log.add("train", step, means.summary(window, state.seconds, c.batch_size, parts) | seen)
        return state.after(window=means.empty(state.seconds))

    def examine(self, state: State) -> State:
        """Validate if it is time, and write a checkpoint if it is time or the model is the best so far."""
        c = self.config
        validated = (
            self.validate is not None
            and (due(state.step, c.validate_every, c.max_steps) or finished(state, c))
            and state.validated < state.step
        )
        if validated:
            state = self._validate(state)
        better = validated and state.best_step == state.step
        if (better or due(state.step, c.checkpoint_every, c.max_steps) or finished(state, c)) and state != self.saved:
            self.save(state)
        return state

    def save(self, state: State) -> None:
        """Write the checkpoint of this state."""
        if self.accelerator.is_main_process:
            average = self.ema.average if self.ema is not None else None
            tensors = Checkpoint(weights.trained(self.model), average, self.updater.state_dict())
            checkpoint.write(self.folder, state, tensors)
        self.accelerator.wait_for_everyone()
        self.saved = state

    def finish(self, state: State) -> Result:
        """Give the model its final weights, and put it to eval mode."""
        held: Literal["best", "ema", "last"] = "last"
        if state.best_step is not None:
            best = checkpoint.read_best(self.folder, state.best_step)
            weights.fill(weights.trained(self.model), best, self.folder)
            held = "best"
        elif self.ema is not None:
            self.ema.copy_to_model()
            held = "ema"
        self.model.eval()
        early = state.step < self.config.max_steps and not out_of_time(state, self.config)
        return Result(self.run_dir, state.step, state.best_step, state.best_metric, early, held, state.seconds)

    def _load(self, path: Path, fresh: State) -> State:
        state = checkpoint.read_state(path)
        _same_config(state, fresh, path)
        tensors = checkpoint.read(path)
        weights.fill(weights.trained(self.model), tensors.model, path)
        if self.ema is not None and tensors.average is not None:
            weights.fill(self.ema.average, tensors.average, path)
        self.updater.load_state_dict(tensors.optimizer)
        if self.accelerator.is_main_process:
            checkpoint.clean(self.folder, state)
            say(f"resuming from step {state.step} ({path})")
        return state.after(config=fresh.config)

    def _validate(self, state: State) -> State:
        metrics, seconds = self._scores(state.step)
        c = self.config
        if c.monitor not in metrics:
            raise ConfigError(f"monitor '{c.monitor}' is not validated; {configs.nearest(c.monitor, metrics)}")
        value = metrics[c.monitor]
        if not math.isfinite(value):
            raise TrainingError(f"the validation's {c.monitor} at step {state.step} is {value}", state.step)
        sign = 1 if c.monitor_mode == "max" else -1
        better = state.best_metric is None or sign * value > sign * state.best_metric
        state = state.after(validated=state.step, seconds=seconds, misses=state.misses + 1)
        if better:
            state = state.after(best_step=state.step, best_metric=value, misses=0)
        if self.accelerator.is_main_process:
            epoch = state.step * c.batch_size / len(self.data)
            self.log.add("validation", state.step, metrics | {"epoch": epoch, "best": better, "seconds": state.seconds})
            if better:
                average = self.ema.average if self.ema is not None else {}
                checkpoint.write_best(self.folder, state.step, weights.trained(self.model) | average)
        return state

    def _scores(self, step: int) -> tuple[dict[str, float], float]:
        """The first process validates with the averaged weights; all get the scores, and its clock."""
        from accelerate.utils import broadcast_object_list

        box: list[Any] = [None]
        if self.accelerator.is_main_process:
            assert self.validate is not None
            randomness.seed_everything(self.config.seed, "validate", step)
            self.model.eval()
            with torch.no_grad(), self.ema.applied() if self.ema is not None else nullcontext():
                box[0] = {name: float(value) for name, value in self.validate(self.model).items()}, self._now()
            _train_mode(self.model)
        return broadcast_object_list(box)[0]

    def _now(self) -> float:
        return time.monotonic() - self.clock

    def _rate(self, state: State) -> float:
        """The factor on the learning rate for the update that follows `state`."""
        c = self.config
        shape = {"max_steps": c.max_steps, "warmup_steps": c.warmup_steps}
        elapsed = 0.0 if c.max_minutes is None else state.seconds / (60 * c.max_minutes)
        return schedule.factor(state.step, **shape, shape=c.schedule, min_ratio=c.min_lr_ratio, elapsed=elapsed)


def finished(state: State, config: Config) -> bool:
    """Whether a run that stands there has nothing left to do."""
    impatient = config.patience is not None and state.misses >= config.patience
    return state.step >= config.max_steps or impatient or out_of_time(state, config)


def out_of_time(state: State, config: Config) -> bool:
    """Whether the run has used up its minutes."""
    return config.max_minutes is not None and state.seconds >= 60 * config.max_minutes


def due(step: int, every: int, last: int) -> bool:
    """Whether what happens `every` so many steps, and at the last one, happens after this step."""
    return step > 0 and (step % every == 0 or step == last)


def _check(config: Config, data: Data, world: int) -> None:
    if len(data) == 0:
        raise ConfigError("there is no training sample; check the data set's folder and split")
    parts = config.accumulation * world
    if config.batch_size % parts:
        raise ConfigError(
            f"batch_size {config.batch_size} cannot be cut into {parts} equal parts ({world} processes x accumulation "
            f"{config.accumulation}); choose a multiple of {parts}"
        )


def _same_config(state: State, fresh: State, path: Path) -> None:
    """Refuse to go on with a config that would have trained something else."""
    before = configs.completed(state.config)
    for name, now in fresh.config.items():
        if name not in FREE and before.get(name) != now:
            raise RunError(
                f"{path} was trained with {name}={before.get(name)!r}, now it is {now!r}; "
                "set it back to resume, or choose another run folder"
            )
    if state.samples != fresh.samples:
        raise RunError(
            f"{path} was trained on {state.samples} samples, now there are {fresh.samples}; put the data back to "
            "resume, or choose another run folder"
        )


def _train_mode(model: nn.Module) -> None:
    """Train mode, but eval mode for every module whose parameters are all frozen: its dropout and statistics rest."""
    model.train()
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            module.eval()
