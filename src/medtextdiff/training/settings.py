"""The settings of a training run; `engine.Config` is the same class."""

from typing import Annotated, Literal

from pydantic import Field

from medtextdiff import config as configs
from medtextdiff.training.schedule import Shape

Ratio = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Config(configs.Config):
    """How to train. `batch_size` is that of one optimizer step, over all processes and accumulated micro-batches."""

    max_steps: Count = 1000
    max_minutes: Positive | None = None  # wall-clock budget; the schedule then follows the time, see engine.fit
    batch_size: Count = 8
    accumulation: Count = 1  # micro-batches per step and process
    learning_rate: Positive = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Ratio, Ratio] = (0.9, 0.999)
    clip_norm: Positive | None = 1.0
    lr_scale: dict[str, Positive] = Field(
        default_factory=dict
    )  # beginning of a parameter's name -> factor on the learning rate
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Shape = "cosine"
    min_lr_ratio: Ratio = 0.0
    precision: Literal["float32", "bf16", "fp16", "auto"] = "float32"  # auto: bf16 where a GPU has it
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    checkpoint_every: Count = 200
    validate_every: Count = 200
    patience: Count | None = None  # stop after so many validations without a better one
    monitor: str = "dice"
    monitor_mode: Literal["max", "min"] = "max"
    log_every: Count = 10
    tensorboard: bool = False
    workers: Annotated[int, Field(ge=0)] = 0
    channels_last: bool = True
    compile: bool = False


# May change when a run is resumed: they do not change what is learned, or (max_steps, max_minutes) how long.
FREE = {
    *("max_steps", "max_minutes", "checkpoint_every", "validate_every", "patience"),
    *("log_every", "tensorboard", "workers", "compile"),
}
