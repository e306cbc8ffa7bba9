"""Pre-training a denoiser on images alone, in the form that the training loop calls."""

from collections.abc import Callable

import torch
from torch import Tensor

from medtextdiff import config
from medtextdiff.diffusion.objective import Config as ObjectiveConfig
from medtextdiff.types import Batch, Denoiser

Loss = Callable[[Denoiser, Batch, torch.Generator], dict[str, Tensor]]


class Config(config.Config):
    """The denoising loss of `objective` on a batch's images; notes and masks are not looked at."""

    objective: ObjectiveConfig = ObjectiveConfig()

    def build(self) -> Loss:
        """A function `loss(model, batch, rng) -> {"loss": ...}`."""
        built = self.objective.build()

        def loss(model: Denoiser, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
            return {"loss": built.loss(model, batch.images, rng)}

        return loss
