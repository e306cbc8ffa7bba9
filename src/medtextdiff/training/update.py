"""One optimizer step: micro-batches in, parameters changed, losses out."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medtextdiff.training import optimizer as optimizers
from medtextdiff.training import randomness, stream
from medtextdiff.training.errors import TrainingError

Loss = Callable[[nn.Module, Any, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class Outcome:
    """Of one update: the losses (means over micro-batches and processes), the gradient's norm, a wish to stop.

    `seconds` is when its losses were known, the same for all processes.
    """

    losses: dict[str, float]
    norm: float
    stop: bool
    seconds: float


class Updater:
    """Makes updates of a model on accelerate: autocast, accumulation, clipping, several processes.

    `accelerator` was made for the precision and the accumulation that are wanted.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        accelerator: Any,
        *,
        seed: int,
        clip_norm: float | None,
        channels_last: bool,
    ) -> None:
        self._loss, self._accelerator = loss, accelerator
        self._seed, self._clip, self._channels_last = seed, clip_norm or math.inf, channels_last
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        if channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._forward, self.optimizer = accelerator.prepare(_Forward(model), optimizer)

    def __call__(
        self, step: int, batches: Iterator[Any], *, rate: float, stop: bool, clock: Callable[[], float]
    ) -> Outcome:
        """Update number `step` (from 0) on the next batches; `rate` is the learning-rate factor.

        `clock` tells the seconds that the run has lasted, as this process sees it.

        Raises:
            TrainingError: loss or gradient is not a finite number; the parameters are as before.
        """
        optimizers.set_rate(self.optimizer, rate)
        accumulation = self._accelerator.gradient_accumulation_steps
        parts = [self._accumulate(step, micro, next(batches)) for micro in range(accumulation)]
        losses, stop, seconds = self._agree(parts, stop, clock())
        if not math.isfinite(losses["loss"]):
            raise TrainingError(f"the loss of step {step + 1} is {losses['loss']}; {_ADVICE}", step + 1)
        norm = float(self._accelerator.clip_grad_norm_(self._parameters, self._clip))
        if not math.isfinite(norm) and self._accelerator.scaler is None:  # a scaler (fp16) skips such a step itself
            raise TrainingError(f"the gradient of step {step + 1} is not finite; {_ADVICE}", step + 1)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return Outcome(losses, norm, stop, seconds)

    def state_dict(self) -> dict[str, Any]:
        """The state of the optimizer, of the loss scale (fp16), and of a loss that has one (a teacher's weights)."""
        scaler, own = self._accelerator.scaler, getattr(self._loss, "state_dict", None)
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "loss": None if own is None else own(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None and self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(state["scaler"])
        if state.get("loss") is not None:
            self._loss.load_state_dict(state["loss"])  # type: ignore[attr-defined]

    def _accumulate(self, step: int, micro: int, batch: Any) -> dict[str, Tensor]:
        accelerator = self._accelerator
        batch = stream.to_device(batch, accelerator.device, self._channels_last)
        # Numbered over processes, too: two processes draw what one process draws with twice the accumulation.
        part = accelerator.process_index * accelerator.gradient_accumulation_steps + micro
        randomness.seed_everything(self._seed, "dropout", step, part)
        with accelerator.accumulate(self._forward):
            losses = self._forward(self._loss, batch, randomness.generator(self._seed, "loss", step, part))
            accelerator.backward(losses["loss"])
        return {name: value.detach() for name, value in losses.items()}

    def _agree(
        self, parts: list[dict[str, Tensor]], stop: bool, seconds: float
    ) -> tuple[dict[str, float], bool, float]:
        """Means over the micro-batches and processes; whether any process wants to stop; the mean of their clocks."""
        names = sorted(parts[0])
        means = [torch.stack([part[name].float() for part in parts]).mean() for name in names]
        own = torch.tensor([float(stop), seconds], device=means[0].device)
        *values, stops, seconds = self._accelerator.reduce(torch.cat([torch.stack(means), own]), "mean").tolist()
        return dict(zip(names, values, strict=True)), stops > 0, seconds


_ADVICE = "try a lower learning_rate, more warmup_steps, a clip_norm, or precision=float32; the last checkpoint is kept"


class _Forward(nn.Module):
    """Runs the loss inside one module call, which is what accelerate and DistributedDataParallel hook into.

    So a loss may call any method of the model, not only its forward.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Loss, batch: Any, rng: torch.Generator) -> dict[str, Tensor]:
        losses = loss(self.model, batch, rng)
        if not isinstance(losses, dict) or "loss" not in losses or any(value.ndim for value in losses.values()):
            raise TypeError("a loss function returns a dict of scalar tensors with an entry 'loss'")
        # Detached: a graph that backward does not walk would leave DistributedDataParallel waiting for gradients.
        return {name: value if name == "loss" else value.detach() for name, value in losses.items()}
